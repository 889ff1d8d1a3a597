import os
import subprocess

import torch
from mmengine.config import Config
from mmengine.device import get_device

from ..errors import InputError

# Where a launcher says who a process is: torch.distributed's name, the launcher's name.
_ENVIRONMENT = {
    'pytorch': {'RANK': 'RANK', 'WORLD_SIZE': 'WORLD_SIZE'},
    'slurm': {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'},
    'mpi': {
        'RANK': 'OMPI_COMM_WORLD_RANK',
        'WORLD_SIZE': 'OMPI_COMM_WORLD_SIZE',
        'LOCAL_RANK': 'OMPI_COMM_WORLD_LOCAL_RANK',
    },
}


def number_of_processes(cfg: Config) -> int:
    """How many processes the launcher of a config has started, also before they know each other."""
    names = _ENVIRONMENT.get(cfg.get('launcher', 'none'), {})
    return int(os.environ.get(names.get('WORLD_SIZE', ''), 1))


def launch_on_cpu(cfg: Config) -> None:
    """Lets several processes train without an accelerator, over gloo; does nothing on a machine with one.

    mmengine's own start-up selects a CUDA device for each process. It uses a process group that exists
    already as it is, so this makes one and has the model wrapped without devices.

    Raises:
        ValueError: The launcher is unknown, or this process was not started by it.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or get_device() != 'cpu':
        return
    if launcher not in _ENVIRONMENT:
        raise InputError(f'launcher={launcher!r}: give none, {", ".join(_ENVIRONMENT)}')
    env, names = os.environ, _ENVIRONMENT[launcher]
    asks_slurm = launcher == 'slurm' and 'MASTER_ADDR' not in env
    needed = [*names.values(), 'SLURM_NODELIST' if asks_slurm else 'MASTER_ADDR']
    if missing := [name for name in needed if name not in env]:
        raise InputError(
            f'launcher={launcher!r}: the environment lacks {", ".join(missing)}; start the processes with '
            'tools/dist_train.sh (pytorch), tools/slurm_train.sh (slurm) or mpirun'
        )
    env.update({name: env[theirs] for name, theirs in names.items()})
    if asks_slurm:
        nodes = ['scontrol', 'show', 'hostnames', env['SLURM_NODELIST']]
        env['MASTER_ADDR'] = subprocess.check_output(nodes, text=True).split()[0]
    env.setdefault('MASTER_PORT', '29500')
    torch.distributed.init_process_group('gloo')
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False)
    cfg.model_wrapper_cfg = {**wrapper, **(cfg.get('model_wrapper_cfg') or {}), 'device_ids': None}
