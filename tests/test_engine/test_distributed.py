"""Two gloo processes on this machine, compared with one process that has the whole batch."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.optim.optimizer import amp_optimizer_wrapper
from torch import multiprocessing
from two_processes import CASES, STEPS, calibrated, worker

from mmadn.utils.distributed import launch_on_cpu


@pytest.fixture(scope='module')
def processes(tmp_path_factory):
    """What each of two processes ends with."""
    folder = tmp_path_factory.mktemp('processes')
    multiprocessing.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


@pytest.mark.parametrize('name', CASES)
def test_two_processes_equal_one(name, processes, monkeypatch):
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    case = CASES[name]
    network = case.build()
    expected = case.train(network, network, lambda data: data)
    (first, reduced), (second, _) = (results[name] for results in processes)
    assert torch.equal(first, second)
    if case.amp:  # either run is off by the type's rounding, measured against float32
        network = case.build()
        exact = case.train(network, network, lambda data: data, amp=False)
        assert (first - expected).norm() < (expected - exact).norm()
    else:
        assert (first - expected).abs().max() < 1e-6
    # Every parameter once a step: neither a second reduction nor one left out.
    assert reduced == STEPS * sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_norms_are_calibrated_with_the_images_of_all_processes(processes):
    first, second = (results['calibrated'] for results in processes)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, calibrated(), rtol=1e-5, atol=1e-6)


def test_launch_on_cpu_says_what_the_environment_lacks(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match='lacks RANK, WORLD_SIZE, MASTER_ADDR; .*dist_train.sh'):
        launch_on_cpu(Config(dict(launcher='pytorch')))
    with pytest.raises(ValueError, match='lacks SLURM_PROCID'):
        launch_on_cpu(Config(dict(launcher='slurm')))
    with pytest.raises(ValueError, match="launcher='cloud': give none, pytorch, slurm, mpi"):
        launch_on_cpu(Config(dict(launcher='cloud')))


FAKE_SRUN = """#!/bin/sh
# Starts the command after the options as Slurm would, in two tasks.
while [ "${1#-}" != "$1" ]; do case "$1" in -p) shift 2;; *) shift;; esac; done
for i in 0 1; do
  SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=2 SLURM_NODELIST=here "$@" & pids="$pids $!"
done
for p in $pids; do wait $p || exit 1; done
"""


@pytest.fixture
def port():
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return str(listener.getsockname()[1])


@pytest.mark.parametrize('launcher', ['dist', 'slurm'])
def test_scripts_train_on_cores(launcher, tmp_path, digits, port):
    config, options = 'configs/demo/resnet50_adn_digits.py', digits.small
    env = {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'}
    env |= {'PORT': port, 'MASTER_PORT': port}  # the one of dist_train.sh, the other of Slurm
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        env.pop(name, None)
    if launcher == 'dist':
        command = ['tools/dist_train.sh', config, '2', '--work-dir', str(tmp_path / 'run')]
    else:
        for name, text in {'srun': FAKE_SRUN, 'scontrol': '#!/bin/sh\necho 127.0.0.1\n'}.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        env.update(PATH=f'{tmp_path}:{env["PATH"]}', GPUS='2', GPUS_PER_NODE='0')
        command = ['tools/slurm_train.sh', 'cpu', 'job', config, str(tmp_path / 'run')]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / 'run' / 'epoch_1.pth').exists()
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'GPU number: 2' in log or 'world_size: 2' in log.lower() or '[1/4]' in log
