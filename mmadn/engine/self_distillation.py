import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

from mmengine.dist import broadcast_object_list
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..depth import SwitchableDepth, depth_of, unwrap
from ..errors import InputError
from ..registry import HOOKS
from .anatomy import backbone_name, beside_backbone, default_features, logits, queries
from .foreground import count_foreground, foremost
from .losses import feature_divergence, logits_divergence, query_divergence
from .teacher import Teacher
from .train_step_hook import TrainStepHook, record
from .two_passes import forgetting, local_gradients, own_samples, reaching_all, touch


class Lesson(NamedTuple):
    """What the first pass teaches the second one."""

    compared: dict[str, Callable]  # the names of the modules whose outputs are compared, and how
    outputs: dict[str, list]  # of these and maybe others, by their names, run by run
    taught: Tensor | None  # the logits of an external teacher, of shape (N, C)


@HOOKS.register_module()
class SelfDistillationHook(TrainStepHook):
    """Trains any stock model with an adaptive-depth backbone by self-distillation.

    Each iteration is two passes over the same batch and one optimizer step (Algorithm 1). The super-net
    learns from the labels, `alpha * L(super)`; then the base-net learns from the super-net,
    `(1 - alpha) * KL(super || base)`. A classifier's base-net sees no labels and is compared by its
    logits. Every other base-net learns from the ground truth too, `(1 - alpha) * (L(base) + KL)`: a
    detector's is compared by the pooled features of the neck, or of the backbone if it has no neck, and a
    segmentor's by the logits of each pixel, or as a detector's where its head gives none. Each pass runs its
    own backward, so that the peak memory is that of one pass. While training runs, the hook stands in for
    the model's `train_step`.

    The backbone may be anywhere in the model, see `adaptive_backbone`. In a semi-supervised detector the
    student is trained, while its teacher stays at its depth. A module that runs several times in a pass, on
    frames or on labelled and unlabelled images, is compared run by run, and the runs are averaged.

    Statistics that a head or a loss keeps from iteration to iteration, such as the thresholds of Dynamic
    R-CNN, follow the first pass alone and serve both. Norms follow every pass that uses them.

    Logged are `loss_super`, `loss_base` (where the base-net learns from the labels) and `loss_distill`
    with these weights, their sum `loss`, and what the heads report of the super-net.

    Args:
        alpha: Weight of the super-net's loss, between 0 and 1.
        temperature: Temperature of the KL terms, above 0.
        topk: Only this many of the teacher's largest logits enter; None takes all.
        features: Names in the model of the modules whose outputs are distilled, such as
            `('backbone.layer3', 'backbone.layer4')`, or `'backbone.stages.3'` in Swin and ConvNeXt and
            `'backbone.layers.11'` in ViT: see `feature_divergence`. By default `('neck',)` in a
            detector, `('backbone',)` without a neck, `('detector.neck',)` in a tracker, and beside it an
            encoder that has a depth; none where there are logits.
        levels: Which levels of the neck are distilled: 'all', or 'foreground' for the one that holds most
            foreground anchors of the batch (the first, if there are none), by the targets of the
            detector's dense head, `bbox_head` or `rpn_head`.
        labels: Whether the second pass learns from the labels too. By default, but in a classifier.
        logits: Whether the second pass learns from the logits, see `logits_divergence`: the output of the
            module `head`, or of a segmentor's `decode_head`; of a DETR whose decoder has a depth, the
            queries of its head, see `query_divergence`. By default where there are some.
        depths: The depths of the two passes, see `set_skip`. Either may be 'random', drawn anew in each
            iteration among those that the other pass does not have (paper, Table 4). The draws depend on
            the seed of the run and on the iteration: all processes draw the same, and so does a resumed
            run, because mmengine stores the seed in each checkpoint.
        teacher: The arguments of `Teacher`, a classifier that teaches the super-net beside the labels, and
            with `labels=True` the base-net too.

    Raises:
        ValueError: An argument is out of its range, or does not fit the model or the run.
        TypeError: The model has no adaptive-depth backbone, or a wrapper that shards it.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        temperature: float = 1.0,
        topk: int | None = 500,
        features: Sequence[str] | None = None,
        levels: str = 'all',
        labels: bool | None = None,
        logits: bool | None = None,
        depths: Sequence[str | Sequence[bool] | bool] = ('super', 'base'),
        teacher: dict | None = None,
    ) -> None:
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
        self.features = features
        self.levels = levels
        self.labels = labels
        self.logits = logits
        self.depths = self.skips = tuple(depths)
        self.seed = 0
        self.teacher = Teacher(**teacher) if teacher else None

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        seeds = [runner.seed]  # by now that of the run that is resumed
        broadcast_object_list(seeds)  # with diff_rank_seed each process has a seed of its own
        (self.seed,) = seeds

    def before_train_iter(self, runner: Runner, batch_idx: int = 0, data_batch: dict | None = None) -> None:
        self.skips = draw(depth_of(runner.model), self.depths, self.seed, runner.iter)

    def prepare(self, runner: Runner) -> None:
        self.before_train_iter(runner)
        model = unwrap(runner.model)
        if any(network.fixed for network in depth_of(model).networks()):
            raise InputError(
                'fixed=True freezes what only other depths use, and SelfDistillationHook '
                'trains several depths; remove one of the two from the config'
            )
        self._check_names(model)
        with self._counting(model):
            pass
        if self.teacher:
            self.teacher.build(model)

    def train_step(self, model: nn.Module, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """One iteration of Algorithm 1, called as `model.train_step(data, optim_wrapper)` is."""
        stock, depth = unwrap(model), depth_of(model)
        with optim_wrapper.optim_context(model):
            data = stock.data_preprocessor(data, True)

        # A pass stays at its depth until its backward is done: with_cp runs the forward again there.
        with depth.skipping(self.skips[0]), local_gradients(model):
            with optim_wrapper.optim_context(model):
                loss_super, lesson, logs = self.first_pass(model, own_samples(data))
            optim_wrapper.backward(optim_wrapper.scale_loss(loss_super))
        optim_wrapper._inner_count -= 1  # it counts iterations, and this one goes on

        with depth.skipping(self.skips[1]), forgetting(stock, depth.networks()), reaching_all(stock):
            with optim_wrapper.optim_context(model):
                losses = self.second_pass(model, data, lesson)
            touch(depth.idle_parameters())  # before the backward, so that their reduction need not wait
            optim_wrapper.backward(optim_wrapper.scale_loss(sum(losses.values())))
        if optim_wrapper.should_update():
            optim_wrapper.step()
            optim_wrapper.zero_grad()

        parts = {name: loss.detach() for name, loss in dict(loss_super=loss_super, **losses).items()}
        return {**logs, 'loss': sum(parts.values()), **parts}

    def first_pass(self, model: nn.Module, data: dict) -> tuple[Tensor, Lesson, dict[str, Tensor]]:
        """The super-net's pass, which learns from the labels and from an external teacher.

        Returns:
            The weighted loss, what the second pass learns from, and what the heads report for the log.
        """
        stock = unwrap(model)
        recorded = {*self._compared(stock), 'head'} if self.teacher else self._compared(stock)
        with record(stock, recorded) as outputs, self._counting(stock) as counts:
            losses = model._run_forward(data, mode='loss')
        loss, logs = stock.parse_losses(losses)
        taught = None
        if self.teacher:
            taught = self.teacher.logits(data['inputs'])
            loss = self.teacher.mix(loss, outputs['head'][-1], taught, self.topk)
        level = foremost(counts) if self.levels == 'foreground' else None
        return self.alpha * loss, Lesson(self._compared(stock, level), outputs, taught), logs

    def second_pass(self, model: nn.Module, data: dict, lesson: Lesson) -> dict[str, Tensor]:
        """The base-net's pass, which learns from the first one; returns the weighted losses by name."""
        stock = unwrap(model)
        labels = self._labels(stock)
        recorded = {*lesson.compared, 'head'} if self.teacher and labels else lesson.compared
        with record(stock, recorded) as outputs:
            losses = model._run_forward(data, mode='loss' if labels else 'tensor')
        parts = {}
        if labels:
            loss = stock.parse_losses(losses)[0]
            if self.teacher:
                loss = self.teacher.mix(loss, outputs['head'][-1], lesson.taught, self.topk)
            parts['loss_base'] = (1 - self.alpha) * loss
        if lesson.compared:
            parts['loss_distill'] = (1 - self.alpha) * self.divergence(outputs, lesson)
        return parts

    def divergence(self, outputs: dict[str, list], lesson: Lesson) -> Tensor:
        """The sum of all KL terms between the recorded outputs of the second pass and those of the first."""
        terms = []
        for name, compare in lesson.compared.items():
            students, teachers = outputs[name], lesson.outputs[name]
            if not teachers or len(students) != len(teachers):
                raise InputError(
                    f'{name!r} runs {len(teachers)} times in the first pass and {len(students)} times in the '
                    'second, so that its outputs cannot be compared; give other features'
                )
            runs = [compare(s, t) for s, t in zip(students, teachers, strict=True)]
            terms.append(sum(runs) / len(runs))
        return sum(terms)

    def _counting(self, model: nn.Module) -> AbstractContextManager:
        return count_foreground(model) if self.levels == 'foreground' else nullcontext()

    def _labels(self, model: nn.Module) -> bool:
        """Whether the second pass learns from the labels."""
        return not beside_backbone(model, 'head') if self.labels is None else self.labels

    def _compared(self, model: nn.Module, level: int | None = None) -> dict[str, Callable]:
        """The names of the modules whose outputs are compared, and how; of the neck one level, if given."""
        heads, decoded, neck = logits(model), queries(model), beside_backbone(model, 'neck')
        predicting = [*heads, *([decoded] if decoded else [])]
        features = (() if heads else default_features(model)) if self.features is None else self.features
        given = (predicting or ['head']) if self.logits else predicting if self.logits is None else []
        of_logits = partial(logits_divergence, temperature=self.temperature, topk=self.topk)
        of_features = partial(feature_divergence, temperature=self.temperature)
        compared = {name: of_logits if name in heads else of_features for name in [*given, *features]}
        if decoded in given:
            detector = model.get_submodule(decoded.rpartition('.')[0])
            compared[decoded] = partial(query_divergence, queries=detector.num_queries)
        if level is not None:
            compared[neck] = partial(of_features, level=level)
        return compared

    def _check_names(self, model: nn.Module) -> None:
        names = list(self._compared(model))
        neck = beside_backbone(model, 'neck') or 'neck'
        if self.levels == 'foreground' and neck not in names:
            raise InputError(f"levels='foreground' needs {neck!r} among the features, which are {names}")
        if not (names or self._labels(model)):
            raise InputError('nothing is left for the base-net to learn from: labels, logits or features')
        modules = dict(model.named_modules())
        for name in [*names, 'head'] if self.teacher else names:
            if name not in modules:
                backbone = backbone_name(model)
                stages = [f'{backbone}.{n}' for n, _ in model.get_submodule(backbone).named_children()]
                raise InputError(
                    f'there is no module {name!r} to distil in {type(model).__name__}; give names '
                    f'from named_modules(), such as {", ".join(stages)}'
                )


def draw(depth: SwitchableDepth, depths: Sequence, seed: int, iteration: int) -> list[str]:
    """The skips of the two passes of an iteration; 'random' is any that the other pass does not have.

    Raises:
        ValueError: A depth is neither 'random' nor one of the backbone's.
    """
    skips = [None if each == 'random' else depth.parse_skip(each) for each in depths]
    generator = random.Random(f'{seed} {iteration}')
    for i in range(2):
        if skips[i] is None:
            skips[i] = generator.choice([skip for skip in depth.subnets() if skip != skips[1 - i]])
    return skips
