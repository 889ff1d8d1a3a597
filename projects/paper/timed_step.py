"""The training step of a config without a Runner, so that several can be timed side by side."""

import copy
import math
from collections.abc import Iterable, Sequence, Sized
from contextlib import AbstractContextManager
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS, OPTIM_WRAPPERS, DefaultScope
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample

from benchmarks.contests.train import MIB, bytes_held
from mmadn.checkpoint.files import load_model
from mmadn.engine.self_distillation import SelfDistillationHook
from mmadn.engine.teacher import DistillationHook
from mmadn.errors import InputError
from mmadn.evaluation.memory import peak_memory

IMAGENET = 1281167  # training images of ImageNet-1k


class TrainStep:
    """The training step of one config, as a Runner would do it, with a batch of random images.

    Args:
        role: 'adaptive', 'full' or 'base'.
        cfg: Of a classifier, with what is needed to train it.

    Raises:
        ValueError: The config is not of this kind, or does not train on this device.
    """

    def __init__(self, role: str, cfg: Config, device: str):
        self.role, self.device = role, torch.device(device)
        lacking = [name for name in ('model', 'train_dataloader', 'optim_wrapper') if not cfg.get(name)]
        if lacking:
            raise InputError(f'the {role} config has no {", ".join(lacking)}: give one to train with')
        self.loader, self.scope = cfg.train_dataloader, cfg.get('default_scope') or 'mmpretrain'
        self.model = load_model(cfg, device=device).train()
        if not isinstance(self.model, ImageClassifier):
            raise InputError(
                f'the {role} config is of a {type(self.model).__name__}; give one of an ImageClassifier'
            )
        with self._scoped():
            self.wrapper = self._optim_wrapper(copy.deepcopy(cfg.optim_wrapper))
            self.hooks = self._hooks(cfg.get('custom_hooks') or ())
        # All that the hooks ask of a runner.
        self.runner = SimpleNamespace(model=self.model, iter=-1, cfg=cfg, seed=0)
        for hook in self.hooks:
            hook.before_train(self.runner)

    def _scoped(self) -> AbstractContextManager:
        return DefaultScope.overwrite_default_scope(self.scope)

    def _optim_wrapper(self, cfg: dict) -> OptimWrapper:
        kind = cfg.get('type', 'OptimWrapper')
        kind = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
        if self.device.type == 'cpu' and issubclass(kind, AmpOptimWrapper):
            raise InputError(
                f'the {self.role} config trains by {kind.__name__}, which needs a GPU; give --device cuda '
                'or --cfg-options optim_wrapper.type=OptimWrapper'
            )
        wrapper = build_optim_wrapper(self.model, cfg)
        for group in wrapper.param_groups:
            group['lr'] = 0.0  # costs the same, and no network can diverge on labels drawn at random
        return wrapper

    def _hooks(self, custom: Iterable[dict]) -> list[Hook]:
        """The hooks that stand in for `train_step`."""
        hooks = []
        with HOOKS.switch_scope_and_registry(None) as registry:
            for cfg in custom:
                kind = registry.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
                if kind in (SelfDistillationHook, DistillationHook):
                    hooks.append(registry.build(copy.deepcopy(cfg)))
        adaptive = any(isinstance(hook, SelfDistillationHook) for hook in hooks)
        if adaptive != (self.role == 'adaptive'):
            raise InputError(
                f'the {self.role} config trains {"by" if adaptive else "without"} SelfDistillationHook; give '
                'one with it as --adaptive, and those of individual networks as --full and --base'
            )
        return hooks

    @cached_property
    def dataset(self) -> Sized:
        """The training data; raises FileNotFoundError if they are missing."""
        try:
            with self._scoped():
                return DATASETS.build(copy.deepcopy(self.loader.dataset))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'the {self.role} config: {error}; without data, give --images and --shape'
            ) from None

    def image_shape(self) -> tuple:
        """Channels, height and width that the training pipeline makes of any image, or else of the first."""
        steps = self.loader.dataset.get('pipeline') or ()
        with self._scoped():
            pipeline = Compose(copy.deepcopy([s for s in steps if 'LoadImage' not in str(s['type'])]))
            shapes = set()
            for size in ((600, 800), (900, 700)):
                image = dict(img=np.zeros((*size, 3), np.uint8), img_shape=size, ori_shape=size, gt_label=0)
                shapes.add(tuple(getattr(pipeline(image).get('inputs'), 'shape', ())))
            shape = shapes.pop()
            return tuple(self.dataset[0]['inputs'].shape) if shapes or not shape else shape

    def count_images(self) -> int:
        """How many an epoch has: for a dataset of `num_classes=1000` those of ImageNet."""
        return IMAGENET if self.loader.dataset.get('num_classes') == 1000 else len(self.dataset)

    def iterations(self, images: int) -> int:
        """How many batches an epoch of so many images has in one process."""
        rest = math.floor if self.loader.get('drop_last') else math.ceil
        return max(rest(images / len(self.labels)), 1)

    def draw(self, batch: int, shape: Sequence[int], classes: int) -> None:
        """Draws the batch, the same for all networks; its images move to the device in each step."""
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(256, (batch, *shape), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(classes, (batch,), generator=generator).tolist()

    def prepare(self) -> None:
        """Makes what a step needs: fresh samples, as mixup changes them, and the depths."""
        samples = [DataSample().set_gt_label(label) for label in self.labels]
        images = self.images if self.loader.get('collate_fn') else list(self.images)
        self.batch = dict(inputs=images, data_samples=samples)
        self.runner.iter += 1
        for hook in self.hooks:
            hook.before_train_iter(self.runner)

    def run(self) -> None:
        self.model.train_step(self.batch, self.wrapper)

    def rehearse(self) -> None:
        """A step that is not timed; raises ValueError if the network cannot learn from such a batch."""
        self.prepare()
        try:
            self.run()
        except (AssertionError, RuntimeError, ValueError) as error:
            size = 'x'.join(map(str, self.images.shape[1:]))
            raise InputError(
                f'a step of the {self.role} network fails with batch {len(self.labels)} of {size}: {error}; '
                'give another --batch or --shape'
            ) from error

    def memory(self) -> float:
        """MiB of weights, buffers and optimizer state, and of what a step takes beside them at its peak."""
        self.prepare()
        return (bytes_held(self.model, self.wrapper.optimizer) + peak_memory(self.run, self.device)) / MIB
