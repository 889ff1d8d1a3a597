import random
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmpretrain import get_model
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..depth import adaptive_backbone, unwrap
from ..errors import InputError, NotAdaptiveError
from ..registry import HOOKS
from .losses import feature_divergence, kl_divergence, touch


class _TrainStepHook(Hook):
    """Stands in for the model's `train_step` while training runs."""

    def before_train(self, runner):
        model = runner.model
        if is_model_wrapper(model) and not isinstance(model, DistributedDataParallel):
            raise NotAdaptiveError(
                f'{type(self).__name__} cannot drive {type(model).__name__}, which moves parameters within '
                'an iteration; train without a wrapper or with '
                "model_wrapper_cfg=dict(type='MMDistributedDataParallel')"
            )
        self.prepare(runner)
        model.train_step = partial(self.train_step, model)

    def after_train(self, runner):
        del runner.model.train_step  # the method of its class shows again

    def prepare(self, runner):
        """Fails now for what would fail in the first iteration."""


@HOOKS.register_module()
class SelfDistillationHook(_TrainStepHook):
    """Trains a stock classifier or detector with an adaptive-depth backbone by self-distillation.

    Each iteration is two passes over the same batch and one optimizer step (Algorithm 1). The super-net
    learns from the labels, `alpha * L(super)`; then the base-net learns from the super-net,
    `(1 - alpha) * KL(super || base)`. A classifier's base-net sees no labels and is compared by its
    logits; a detector's learns from the ground truth too and is compared by the pooled features of its
    neck, `(1 - alpha) * (L(base) + KL)`. Each pass runs its own backward, so that the peak memory is
    that of one pass. While training runs, the hook stands in for the model's `train_step`.

    Logged are `loss_super`, `loss_base` (where the base-net learns from the labels) and `loss_distill`
    with these weights, their sum `loss`, and what the heads report of the super-net.

    Args:
        alpha (float): Weight of the super-net's loss, between 0 and 1.
        temperature (float): Temperature of the KL terms, above 0.
        topk (int, optional): Only this many of the teacher's largest logits enter; None takes all.
        features (Sequence[str], optional): Modules whose outputs are distilled, such as
            `('backbone.layer3', 'backbone.layer4')`, or `'backbone.stages.3'` in Swin and ConvNeXt and
            `'backbone.layers.11'` in ViT: see `feature_divergence`. By default `('neck',)` in a
            detector, none in a classifier.
        levels (str): Which levels of the neck: 'all', or 'foreground' for the one that holds most
            foreground anchors of the batch (the first, if there are none). That one is asked of the
            targets of the detector's dense head, `bbox_head` or `rpn_head`.
        labels (bool, optional): Whether the second pass learns from the labels too. By default in a
            detector only.
        logits (bool, optional): Whether the logits, the output of the module `head`, are distilled. By
            default where there is one, as in every classifier.
        depths (Sequence): The depths of the two passes, see `set_skip`. Either may be 'random', drawn
            anew in each iteration among those that the other pass does not have (paper, Table 4).
        teacher (dict, optional): A classifier that teaches the super-net: `config` and `checkpoint`
            (paths, or what else `mmpretrain.get_model` takes), `weight` (0.9) of its KL term in the
            super-net's loss, where the labels keep the rest, and its `temperature` (2).

    Raises:
        ValueError: An argument is out of its range, or does not fit the model.
        TypeError: The model has no adaptive-depth backbone, or a wrapper that shards it.
    """

    def __init__(
        self,
        alpha=0.5,
        temperature=1.0,
        topk=500,
        features=None,
        levels='all',
        labels=None,
        logits=None,
        depths=('super', 'base'),
        teacher=None,
    ):
        if not 0 < alpha < 1:
            raise InputError(f'alpha={alpha!r}: give a number between 0 and 1, without both')
        if not temperature > 0:
            raise InputError(f'temperature={temperature!r}: give a number above 0')
        if topk is not None and not topk >= 1:
            raise InputError(f'topk={topk!r}: give a number of logits from 1 on, or None for all')
        if isinstance(features, str):
            raise InputError(f'features={features!r}: give a list of module names')
        if levels not in ('all', 'foreground'):
            raise InputError(f"levels={levels!r}: give 'all' or 'foreground'")
        if isinstance(depths, str) or len(depths) != 2:
            raise InputError(f"depths={depths!r}: give two, such as ('super', 'base') or ('super', 'random')")
        self.alpha = alpha
        self.temperature = temperature
        self.topk = topk
        self.features = None if features is None else tuple(features)
        self.levels = levels
        self.labels = labels
        self.logits = logits
        self.depths = self.skips = tuple(depths)
        self.teacher = Teacher(**teacher) if teacher else None

    def prepare(self, runner):
        self.before_train_iter(runner)
        model = unwrap(runner.model)
        self._distilled(model)
        with self._counting(model):
            pass
        if self.teacher:
            self.teacher.build(model)

    def before_train_iter(self, runner, batch_idx=0, data_batch=None):
        # By the iteration alone: all processes draw the same, and so does a run that was resumed.
        self.skips = draw(adaptive_backbone(runner.model), self.depths, runner.iter)

    def train_step(self, model, data, optim_wrapper):
        """One iteration of Algorithm 1, called as `model.train_step(data, optim_wrapper)` is."""
        stock = unwrap(model)
        backbone, distilled = adaptive_backbone(model), self._distilled(stock)
        labels = not hasattr(stock, 'head') if self.labels is None else self.labels
        first, second = self.skips
        with optim_wrapper.optim_context(model):
            data = stock.data_preprocessor(data, True)

        # A pass stays at its depth until its backward is done: with_cp runs the forward again there.
        with backbone.skipping(first), _no_sync(model):
            with (
                optim_wrapper.optim_context(model),
                record(distilled) as taught,
                self._counting(stock) as counts,
            ):
                losses = model._run_forward(data, mode='loss')
                loss, logs = stock.parse_losses(losses)
                if self.teacher:
                    loss = self.teacher.mix(loss, taught['head'], data, self.topk)
            loss_super = self.alpha * loss
            optim_wrapper.backward(optim_wrapper.scale_loss(loss_super))
            optim_wrapper._inner_count -= 1  # it counts iterations, and this one goes on

        parts = {'loss_super': loss_super}
        with backbone.skipping(second):
            with optim_wrapper.optim_context(model), record(distilled) as student:
                losses = model._run_forward(data, mode='loss' if labels else 'tensor')
                if labels:
                    parts['loss_base'] = (1 - self.alpha) * stock.parse_losses(losses)[0]
                if self.levels == 'foreground':
                    level = _most(counts)
                    taught['neck'], student['neck'] = taught['neck'][level], student['neck'][level]
                if distilled:
                    parts['loss_distill'] = (1 - self.alpha) * self.divergence(student, taught)
            loss = sum(part for name, part in parts.items() if name != 'loss_super')
            # With depths drawn at random some parameters are in neither pass: there too, zero is theirs.
            if isinstance(model, DistributedDataParallel) or 'random' in self.depths:
                loss = touch(loss, [p for p in backbone.idle_parameters() if p.requires_grad])
            optim_wrapper.update_params(loss)

        parts = {name: part.detach() for name, part in parts.items()}
        return {**logs, 'loss': sum(parts.values()), **parts}

    def divergence(self, student: dict, teacher: dict) -> Tensor:
        """The sum of all KL terms, from the recorded outputs of the two passes."""
        return sum(
            kl_divergence(student[name], teacher[name], self.temperature, self.topk)
            if name == 'head'
            else feature_divergence(student[name], teacher[name], self.temperature)
            for name in student
        )

    def _counting(self, model):
        return count_foreground(model) if self.levels == 'foreground' else nullcontext()

    def _distilled(self, model) -> dict:
        """The modules whose outputs are compared, by their names."""
        classifier = hasattr(model, 'head')
        names = list((() if classifier else ('neck',)) if self.features is None else self.features)
        if self.levels == 'foreground' and 'neck' not in names:
            raise InputError(f"levels='foreground' needs 'neck' among the features, which are {names}")
        if (classifier if self.logits is None else self.logits) or self.teacher:
            names.insert(0, 'head')
        if not (names or self.labels or (self.labels is None and not classifier)):
            raise InputError('nothing is left for the base-net to learn from: labels, logits or features')
        modules = dict(model.named_modules())
        for name in names:
            if name not in modules:
                stages = [f'backbone.{n}' for n, _ in adaptive_backbone(model).named_children()]
                raise InputError(
                    f'there is no module {name!r} to distil in {type(model).__name__}; give names '
                    f'from named_modules(), such as {", ".join(stages)}'
                )
        return {name: modules[name] for name in names}


@HOOKS.register_module()
class DistillationHook(_TrainStepHook):
    """Trains a stock classifier on the labels and on a teacher: the individually distilled networks.

    They are what the paper compares with in Fig. 4b, and it does not say how labels and teacher are
    weighted; the default is that of `Teacher`.

    Args:
        teacher (dict): As in SelfDistillationHook.
        topk (int, optional): Only this many of the teacher's largest logits enter; None takes all.
    """

    def __init__(self, teacher, topk=500):
        self.teacher, self.topk = Teacher(**teacher), topk

    def prepare(self, runner):
        self.teacher.build(unwrap(runner.model))

    def train_step(self, model, data, optim_wrapper):
        """An iteration, called as `model.train_step(data, optim_wrapper)` is."""
        with optim_wrapper.optim_context(model):
            data = unwrap(model).data_preprocessor(data, True)
            with record({'head': unwrap(model).head}) as student:
                losses = model._run_forward(data, mode='loss')
            loss, logs = unwrap(model).parse_losses(losses)
            logs['loss'] = self.teacher.mix(loss, student['head'], data, self.topk)
        optim_wrapper.update_params(logs['loss'])
        return logs


class Teacher:
    """A trained classifier that teaches another one; see the arguments of SelfDistillationHook."""

    def __init__(self, config, checkpoint, weight=0.9, temperature=2.0):
        if not 0 < weight <= 1:
            raise InputError(f'teacher weight={weight!r}: give a number above 0, at most 1')
        if not temperature > 0:
            raise InputError(f'teacher temperature={temperature!r}: give a number above 0')
        self.config, self.checkpoint = config, checkpoint
        self.weight, self.temperature = weight, temperature

    def build(self, model):
        """Loads the teacher on the device of `model`, the student, whose normalised images it gets."""
        device = next(model.parameters()).device
        self.model = get_model(self.config, pretrained=self.checkpoint, device=device).eval()
        for name in ('mean', 'std'):
            theirs, ours = (getattr(m.data_preprocessor, name, None) for m in (self.model, model))
            if theirs is not None and ours is not None and not torch.equal(theirs, ours):
                raise InputError(
                    f'the teacher {self.config} normalises images by {name}={theirs.flatten().tolist()}, the '
                    f'model by {ours.flatten().tolist()}: both see the same images, so choose one of them'
                )

    def mix(self, loss, logits, data, topk):
        """The student's loss on the labels, mixed with the divergence of its logits, (N, C), from here."""
        with torch.no_grad():
            taught = self.model(data['inputs'], mode='tensor')
        if taught.shape != logits.shape:
            raise InputError(
                f'the teacher {self.config} knows {taught.shape[1]} classes, the model {logits.shape[1]}'
            )
        divergence = kl_divergence(logits, taught, self.temperature, topk)
        return self.weight * divergence + (1 - self.weight) * loss


def draw(backbone, depths, iteration: int) -> list[str]:
    """The skips of the two passes of an iteration; 'random' is any that the other pass does not have.

    Raises:
        ValueError: A depth is neither 'random' nor one of the backbone's.
    """
    skips = [None if depth == 'random' else backbone.parse_skip(depth) for depth in depths]
    generator = random.Random(iteration)
    for i in range(2):
        if skips[i] is None:
            skips[i] = generator.choice([skip for skip in backbone.subnets() if skip != skips[1 - i]])
    return skips


@contextmanager
def record(modules: dict):
    """Collects in a dict, under the same names, what `modules` return during a `with` block."""
    outputs = {}
    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(
                lambda module, args, output, name=name: outputs.__setitem__(name, output)
            )
            stack.callback(handle.remove)
        yield outputs


@contextmanager
def count_foreground(model):
    """Collects in a list how many foreground anchors each level has, by the targets of a detector's head.

    Yields:
        list[Tensor]: Filled by a pass in `mode='loss'` with one number for each level of the neck.

    Raises:
        ValueError: The detector has no dense head that labels anchors by level.
    """
    head = getattr(model, 'bbox_head', None) or getattr(model, 'rpn_head', None)
    advice = "levels='foreground' asks the targets of a bbox_head or rpn_head; give levels='all'"
    if not hasattr(head, 'get_targets'):
        raise InputError(f'{type(model).__name__} has no head with get_targets: {advice}')
    counts, get_targets = [], head.get_targets

    def counting(*args, **kwargs):
        targets = get_targets(*args, **kwargs)
        labels = next((item for item in targets or () if _labels_by_level(item)), None)
        if labels is None:
            raise InputError(f'{type(head).__name__} labels no anchors by level: {advice}')
        counts[:] = [((level >= 0) & (level < head.num_classes)).sum() for level in labels]
        return targets

    head.get_targets = counting
    try:
        yield counts
    finally:
        del head.get_targets  # the method of its class shows again


def _most(counts) -> int:
    counts = torch.stack(counts)
    all_reduce(counts)  # all processes choose the level alike, as one with the whole batch would
    return int(counts.argmax())


def _labels_by_level(item):
    return isinstance(item, (list, tuple)) and all(
        isinstance(level, Tensor) and level.dtype == torch.long for level in item
    )


def _no_sync(model):
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
