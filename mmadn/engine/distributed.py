import os
import subprocess

import torch
from mmengine.config import Config
from mmengine.device import get_device

from ..errors import FailedError

# Where a launcher says who a process is: torch.distributed's name, the launcher's name.
_ENVIRONMENT = {
    'pytorch': {},
    'slurm': {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'},
    'mpi': {
        'RANK': 'OMPI_COMM_WORLD_RANK',
        'WORLD_SIZE': 'OMPI_COMM_WORLD_SIZE',
        'LOCAL_RANK': 'OMPI_COMM_WORLD_LOCAL_RANK',
    },
}


def launch_on_cpu(cfg: Config) -> None:
    """Lets several processes train without an accelerator, over gloo; does nothing on a machine with one.

    mmengine's own start-up selects a CUDA device for each process. It uses a process group that exists
    already as it is, so this makes one and has the model wrapped without devices.

    Raises:
        RuntimeError: A variable of the launcher's environment is missing.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or get_device() != 'cpu':
        return
    env = os.environ
    try:
        env.update({name: env[theirs] for name, theirs in _ENVIRONMENT[launcher].items()})
        if launcher == 'slurm' and 'MASTER_ADDR' not in env:
            nodes = ['scontrol', 'show', 'hostnames', env['SLURM_NODELIST']]
            env['MASTER_ADDR'] = subprocess.check_output(nodes, text=True).split()[0]
        env.setdefault('MASTER_PORT', '29500')
        missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR') if name not in env]
    except KeyError as error:
        missing = error.args
    if missing:
        raise FailedError(
            f'launcher={launcher!r}: the environment lacks {", ".join(missing)}; start the processes with '
            'tools/dist_train.sh (pytorch), tools/slurm_train.sh (slurm) or mpirun'
        )
    torch.distributed.init_process_group('gloo')
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False)
    cfg.model_wrapper_cfg = {**wrapper, **(cfg.get('model_wrapper_cfg') or {}), 'device_ids': None}
