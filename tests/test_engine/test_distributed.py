"""Two gloo processes on this machine, compared with one process that has the whole batch."""

import os
import subprocess
import sys
from types import SimpleNamespace

import backbones
import detectors
import pytest
import torch
import toy
from conftest import ROOT
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import MODELS
from torch import distributed, multiprocessing
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from mmadn import SelfDistillationHook
from mmadn.engine.distributed import launch_on_cpu

STEPS = 2


def parts(data, n):
    """A batch in `n` equal parts."""
    size = len(data['inputs']) // n
    return [{key: value[i * size : (i + 1) * size] for key, value in data.items()} for i in range(n)]


def train(model, network, depths, amp, accumulate, select):
    """Two optimizer steps; returns all weights. `select(data)` gives this process its part."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    if amp:  # mmengine's own, which asks for a GPU though autocast works without
        amp_optimizer_wrapper.is_cuda_available = lambda: True
        wrapper = AmpOptimWrapper(dtype='bfloat16', optimizer=optimizer, accumulative_counts=accumulate)
    else:
        wrapper = OptimWrapper(optimizer, accumulative_counts=accumulate)
    wrapper.initialize_count_status(network, 0, STEPS * accumulate)
    if detector := not hasattr(network, 'head'):
        hook = SelfDistillationHook(levels='foreground', depths=depths)
    else:
        feature = 'backbone.layer3' if hasattr(network.backbone, 'layer3') else 'backbone.layers.8'
        hook = SelfDistillationHook(features=(feature,), depths=depths)
    model.train()
    for step in range(STEPS):
        hook.before_train_iter(SimpleNamespace(model=model, iter=step))
        batch = detectors.twins(step) if detector else toy.batch(16, seed=step)
        for data in parts(batch, accumulate):
            hook.train_step(model, select(data), wrapper)
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def build(family):
    if family == 'resnet':
        return toy.build(backbone=dict(norm_eval=True))
    if family == 'retinanet':
        norm = dict(type='BN', requires_grad=False)
        return detectors.build('retinanet', norm_cfg=norm, norm_eval=True, frozen_stages=1)
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            data_preprocessor=dict(num_classes=toy.CLASSES, mean=[127.5] * 3, std=[127.5] * 3),
            backbone=dict(type='mmadn.ADNVisionTransformer', **backbones.CASES['vit'].args),
            head=dict(type='mmpretrain.VisionTransformerClsHead', num_classes=toy.CLASSES, in_channels=16),
        )
    )


ENDS, RANDOM = ('super', 'base'), ('random', 'random')
CASES = {  # family, depths, amp, accumulated batches
    'plain': ('resnet', ENDS, False, 1),
    'accumulate': ('resnet', ENDS, False, 2),
    'amp': ('resnet', ENDS, True, 1),
    'amp_accumulate': ('resnet', ENDS, True, 2),
    'random_depths': ('resnet', RANDOM, False, 1),
    'layer_norm': ('vit', ENDS, False, 1),
    'detector': ('retinanet', ENDS, False, 1),
    'detector_amp': ('retinanet', ENDS, True, 1),
}


def worker(rank, folder):
    """Trains all cases, as starting the processes takes longer."""
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    results = {}
    for name, (family, depths, amp, accumulate) in CASES.items():
        network = build(family)
        model = MMDistributedDataParallel(network, find_unused_parameters=False, broadcast_buffers=False)
        reductions = []

        def count(state, bucket, reductions=reductions):
            reductions.append(bucket.buffer().numel())
            return allreduce_hook(state, bucket)

        model.register_comm_hook(None, count)
        weights = train(model, network, depths, amp, accumulate, lambda data: parts(data, 2)[rank])
        results[name] = weights, sum(reductions)
    torch.save(results, f'{folder}/{rank}.pth')
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def processes(tmp_path_factory):
    """What each of two processes ends with."""
    folder = tmp_path_factory.mktemp('processes')
    multiprocessing.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f'{rank}.pth') for rank in (0, 1)]


@pytest.mark.parametrize('name', CASES)
def test_two_processes_equal_one(name, processes, monkeypatch):
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    family, depths, amp, accumulate = CASES[name]
    network = build(family)
    expected = train(network, network, depths, amp, accumulate, lambda data: data)
    (first, reduced), (second, _) = (results[name] for results in processes)
    assert torch.equal(first, second)
    if amp:  # either run is off by the type's rounding, measured against float32
        network = build(family)
        exact = train(network, network, depths, False, accumulate, lambda data: data)
        assert (first - expected).norm() < (expected - exact).norm()
    else:
        assert (first - expected).abs().max() < 1e-6
    # Every parameter once a step: neither a second reduction nor one left out.
    assert reduced == STEPS * sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_launch_on_cpu_says_what_the_environment_lacks(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match='lacks RANK, WORLD_SIZE, MASTER_ADDR; .*dist_train.sh'):
        launch_on_cpu(Config(dict(launcher='pytorch')))
    with pytest.raises(RuntimeError, match='lacks SLURM_PROCID'):
        launch_on_cpu(Config(dict(launcher='slurm')))


FAKE_SRUN = """#!/bin/sh
# Starts the command after the options as Slurm would, in two tasks.
while [ "${1#-}" != "$1" ]; do case "$1" in -p) shift 2;; *) shift;; esac; done
for i in 0 1; do
  SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=2 SLURM_NODELIST=here "$@" & pids="$pids $!"
done
for p in $pids; do wait $p || exit 1; done
"""


@pytest.mark.parametrize('launcher', ['dist', 'slurm'])
def test_scripts_train_on_cores(launcher, tmp_path, digits):
    config, options = 'configs/demo/resnet50_adn_digits.py', digits.small
    env = {
        **os.environ,
        'PYTHON': sys.executable,
        'PORT': '29617',
        'MASTER_PORT': '29618',
        'OMP_NUM_THREADS': '1',
    }
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
