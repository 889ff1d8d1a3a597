"""Trainings that run in two gloo processes and in one, for the tests of the engine.

Here and not beside the tests, because a new process imports this by its name.
"""

import mmadn  # noqa: F401, I001  first, for torchvision

from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import backbones
import detectors
import torch
import toy
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from mmadn import SelfDistillationHook, calibrate

SEGMENTATION = find_spec('mmseg') is not None
if SEGMENTATION:
    import segmentors

STEPS = 2


def parts(data, n):
    """A batch in `n` equal parts."""
    size = len(data['inputs']) // n
    return [{key: value[i * size : (i + 1) * size] for key, value in data.items()} for i in range(n)]


@dataclass
class Case:
    family: str = 'resnet'
    amp: bool = False
    accumulate: int = 1
    hook: dict = field(default_factory=dict)  # its arguments

    def build(self):
        if self.family in ('resnet', 'with_cp'):
            return toy.build(backbone=dict(norm_eval=True, with_cp=self.family == 'with_cp'))
        if self.family == 'retinanet':
            norm = dict(type='BN', requires_grad=False)
            return detectors.build('retinanet', norm_cfg=norm, norm_eval=True, frozen_stages=1)
        if self.family == 'dino':
            cfg = detectors.dino()
            cfg.model.backbone.norm_eval = True
            return detectors.initialized(cfg.model)
        if self.family == 'segmentor':
            return segmentors.build(norm_eval=True)
        torch.manual_seed(0)
        vit = dict(type='mmadn.ADNVisionTransformer', **backbones.CASES['vit'].args)
        head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=toy.CLASSES, in_channels=16)
        return MODELS.build(
            dict(
                type='mmpretrain.ImageClassifier',
                data_preprocessor=dict(num_classes=toy.CLASSES, mean=[127.5] * 3, std=[127.5] * 3),
                backbone=vit,
                head=head,
            )
        )

    def batch(self, step):
        if self.family in ('retinanet', 'dino'):
            return detectors.twins(step)
        return segmentors.batch(4, step) if self.family == 'segmentor' else toy.batch(16, seed=step)

    def train(self, model, network, select, amp=None, rank=0):
        """Two optimizer steps; returns all weights. `select(data)` gives this process its part."""
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        if self.amp if amp is None else amp:  # mmengine's own asks for a GPU, though autocast works without
            amp_optimizer_wrapper.is_cuda_available = lambda: True
            build = partial(AmpOptimWrapper, dtype='bfloat16')
        else:
            build = OptimWrapper
        wrapper = build(optimizer=optimizer, accumulative_counts=self.accumulate)
        wrapper.initialize_count_status(network, 0, STEPS * self.accumulate)
        hook = SelfDistillationHook(**self.hook)
        # Processes have different seeds, as with mmengine's diff_rank_seed.
        hook.before_train(SimpleNamespace(model=model, cfg=Config(), iter=0, seed=rank))
        model.train()
        for step in range(STEPS):
            hook.before_train_iter(SimpleNamespace(model=model, iter=step))
            batch = self.batch(step)
            for data in parts(batch, self.accumulate):
                model.train_step(select(data), wrapper)
        return torch.cat([p.detach().flatten() for p in network.parameters()])


LAYER, BLOCK = dict(features=('backbone.layer3',)), dict(features=('backbone.layers.8',))
FOREGROUND = dict(levels='foreground')
CASES = {
    'plain': Case(hook=LAYER),
    'accumulate': Case(accumulate=2, hook=LAYER),
    'amp': Case(amp=True, hook=LAYER),
    'amp_accumulate': Case(amp=True, accumulate=2, hook=LAYER),
    'random_depths': Case(hook=dict(depths=('random', 'random'), **LAYER)),
    'layer_norm': Case('vit', hook=BLOCK),
    'detector': Case('retinanet', hook=FOREGROUND),
    'detector_amp': Case('retinanet', amp=True, hook=FOREGROUND),
    # Here the second pass does not use the head, and what lies between it and the features.
    'features_alone': Case(hook=dict(logits=False, **LAYER)),
    'features_alone_accumulate': Case(accumulate=2, hook=dict(logits=False, **LAYER)),
    'features_alone_with_cp': Case('with_cp', hook=dict(logits=False, **LAYER)),
    'encoder_and_decoder': Case('dino'),
    'detector_without_labels': Case('retinanet', hook=dict(labels=False)),
}
if SEGMENTATION:
    CASES['segmentor'] = Case('segmentor')


def calibrated(rank=0, processes=1):
    """The statistics of a backbone calibrated with four batches, of which each process has a part."""
    model = toy.build()
    calibrate(model, [toy.batch(8, seed=seed) for seed in range(4)][rank::processes])
    return torch.cat([buffer.float().flatten() for buffer in model.backbone.buffers()])


def worker(rank, folder):
    """Trains all cases, as starting the processes takes longer."""
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    results = {}
    for name, case in CASES.items():
        with DefaultScope.overwrite_default_scope('mmpretrain'):  # building a detector sets another one
            network = case.build()
        model = MMDistributedDataParallel(network, find_unused_parameters=False, broadcast_buffers=False)
        reductions = []

        def count(state, bucket, reductions=reductions):
            reductions.append(bucket.buffer().numel())
            return allreduce_hook(state, bucket)

        model.register_comm_hook(None, count)
        weights = case.train(model, network, lambda data: parts(data, 2)[rank], rank=rank)
        results[name] = weights, sum(reductions)
    results['calibrated'] = calibrated(rank, 2)
    torch.save(results, f'{folder}/{rank}.pth')
    distributed.destroy_process_group()
