"""Adaptive depth (arXiv 2312.16392, Section 3) as one transformation of a stock network.

A residual stage is split into a *mandatory* and a *skippable* sub-path and gets one switch. While the
switch is on, the skippable blocks are the identity, the mandatory norms use their second copy, and
stochastic depth inside the mandatory sub-path is off. Nothing of the network's own forward changes.
"""

import copy
import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from mmcv.cnn import is_norm
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule, BaseTTAModel, ModuleList, PretrainedInit, is_model_wrapper
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from .depth_names import DepthNames, Skip
from .errors import InputError, NotAdaptiveError

# How the buffers of calibrated norms end, see PathNorm.
PATH_STATISTICS = ('.full_mean', '.full_var', '.skip_mean', '.skip_var')


class Switch:
    """Whether the skippable sub-path of one stage is skipped; shared by the stage's modules."""

    on = False


class NeverOn(Switch):
    """The switch of what both sub-paths share."""


class Skippable:
    """Mixin: the module is the identity of its first argument while `switch.on`."""

    def forward(self, *args, **kwargs):
        return (*args, *kwargs.values())[0] if self.switch.on else super().forward(*args, **kwargs)

    def __reduce__(self):  # a class made at run time cannot be pickled by name
        return _new_skippable, (type(self).__mro__[2],), self.__dict__


@functools.cache
def _skippable_class(cls):
    return type(f'Skippable{cls.__name__}', (Skippable, cls), {})


def _new_skippable(cls):
    return object.__new__(_skippable_class(cls))


class RunningLayers(ModuleList):
    """Layers over which a stock forward loops, and which is as long as those that run at the present depth.

    A decoder gives the output of each of its layers, and a head has a branch for each, so that a layer which
    is the identity would have its output counted once more; one that the loop does not meet has none.
    """

    def __iter__(self) -> Iterator[nn.Module]:
        return (layer for layer in self.children() if not is_skipped(layer))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class PathNorm(nn.Module):
    """A norm that both sub-paths share, and where it is a batch norm the statistics for either way to it.

    The statistics of a batch norm describe its input, and in the first block of a stage the switch of the
    stage *before* changes that, beside the norm's own. Training the super-net and the base-net shows a stage
    two of the four pairs of switches, those of equal ones, whose statistics each norm keeps itself.
    `mmadn.calibrate` estimates those of unequal ones too, `full_mean` and `full_var` of shape (C,). Until
    then, and again once training has moved the weights, a norm's own serve whatever the stage before does.

    A wrapper and not a subclass, because `convert_sync_batchnorm` drops what a subclass adds. A
    checkpoint of the stock network (`bn1.weight`) loads into `full`, and into `skip` what it does not
    give explicitly (`bn1.skip.weight`).

    Args:
        norm: The stock norm.
        switch: That of the own stage.
        before: That of the stage before, where the statistics follow it.
    """

    def __init__(self, norm: nn.Module, switch: Switch, before: Switch | None):
        super().__init__()
        self.full = norm
        self.switch, self.before, self.calibrated = switch, before, False
        if before is not None:
            self._add_statistics('full')
            self._register_state_dict_hook(_leave_out_uncalibrated)

    def _add_statistics(self, name: str) -> None:
        norm = self._modules[name]
        self.register_buffer(f'{name}_mean', norm.running_mean.clone())
        self.register_buffer(f'{name}_var', norm.running_var.clone())

    def forward(self, *args, **kwargs):
        # By the dict and not by attribute: nn.Module's __getattr__ shows in the latency of a small net.
        norm = self._modules['skip' if self.switch.on else 'full']
        if self.calibrated:
            if norm.training:
                self.calibrated = False
            elif self.before.on != self.switch.on:
                mean, var = self.statistics(self.switch.on, self.before.on)
                return F.batch_norm(*args, mean, var, norm.weight, norm.bias, eps=norm.eps)
        return norm(*args, **kwargs)

    def statistics(self, skipped: bool, before: bool) -> tuple[Tensor, Tensor]:
        """Mean and variance, of shape (C,), for a pair of switches: its own, and that of the stage before."""
        name = 'skip' if skipped else 'full'
        if before == skipped:
            return self._modules[name].running_mean, self._modules[name].running_var
        return self._buffers[f'{name}_mean'], self._buffers[f'{name}_var']

    def ordinary(self, skipped: bool, before: bool) -> nn.Module:
        """The norm that this one is for a pair of switches, as an ordinary one that shares its tensors."""
        norm = self._modules['skip' if skipped else 'full']
        if self.calibrated and before != skipped:
            norm = copy.copy(norm)
            mean, var = self.statistics(skipped, before)
            norm._buffers = {**norm._buffers, 'running_mean': mean, 'running_var': var}
        return norm

    def present(self) -> nn.Module:
        """The ordinary norm of the present depth."""
        return self.ordinary(self.switch.on, self.before is not None and self.before.on)

    # Stock code initialises a norm by its `weight` and `bias` (zero-init of a residual branch).
    weight = property(lambda self: self.full.weight)
    bias = property(lambda self: self.full.bias)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in [*self.full._parameters, *self.full._buffers]:
            full = f'{prefix}full.{name}'
            if prefix + name in state_dict:
                state_dict.setdefault(full, state_dict.pop(prefix + name))
            if full in state_dict and 'skip' in self._modules:  # not one tensor for both
                state_dict.setdefault(f'{prefix}skip.{name}', state_dict[full].clone())
        self.calibrated = any(prefix + name in state_dict for name in self._buffers)
        if not self.calibrated:
            state_dict.update({prefix + name: value for name, value in self._buffers.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


class SkipAwareNorm(PathNorm):
    """Two copies of a norm, Section 3.2: `full` runs with the skippable sub-path, `skip` without it."""

    def __init__(self, norm: nn.Module, switch: Switch, before: Switch | None = None):
        super().__init__(norm, switch, before)
        self.skip = copy.deepcopy(norm)
        if before is not None:
            self._add_statistics('skip')


def _leave_out_uncalibrated(norm: PathNorm, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    for name in () if norm.calibrated else norm._buffers:
        del state_dict[prefix + name]


def split(
    stages: Iterable[Iterable[nn.Module]], mandatory: Sequence[int] | None = None
) -> list[tuple[list, list]]:
    """Splits every stage: its first ceil(n/2) blocks are mandatory, the rest is skippable.

    Args:
        stages: The residual blocks of each stage.
        mandatory: How many blocks of each stage always run instead.

    Returns:
        The mandatory and the skippable blocks of each stage.

    Raises:
        ValueError: `mandatory` has not one entry a stage, or one outside 1..n.
    """
    stages = [list(blocks) for blocks in stages]
    lengths = [len(blocks) for blocks in stages]
    counts = [(n + 1) // 2 for n in lengths] if mandatory is None else mandatory
    if (
        not isinstance(counts, (list, tuple))
        or len(counts) != len(lengths)
        or not all(type(k) is int and 1 <= k <= n for k, n in zip(counts, lengths, strict=True))
    ):
        raise InputError(
            f'mandatory={mandatory!r}: give one number of blocks a stage, each at least 1 and at '
            f'most {", ".join(map(str, lengths))} (the {len(lengths)} stages of this network)'
        )
    return [(blocks[:k], blocks[k:]) for blocks, k in zip(stages, counts, strict=True)]


class SwitchableDepth(DepthNames):
    """Mixin for what is set to a depth: a network of adaptive depth, or a model with several of them."""

    _switches: list[Switch]

    @property
    def num_skippable_stages(self) -> int:
        return len(self._switches)

    @property
    def skip(self) -> str:
        """One letter a stage, such as "TTFF". T skips the stage's skippable sub-path, F runs it.

        The switches belong to the model, so two threads that run one model at two depths disturb each
        other. Give each thread a network of its own, which shares the weights:
        `mmadn.deploy.extract(model, 'TTTT', share=True)`.
        """
        return ''.join('FT'[switch.on] for switch in self._switches)

    @skip.setter
    def skip(self, skip: Skip) -> None:
        for switch, letter in zip(self._switches, self.parse_skip(skip), strict=True):
            switch.on = letter == 'T'

    def set_skip(self, skip: Skip) -> None:
        """Sets the depth: a string of T and F, bools, "super" (all F), "base" (all T) or one bool.

        Raises:
            ValueError: `skip` is none of these, or has not one entry a skippable stage.
        """
        self.skip = skip

    @contextmanager
    def skipping(self, skip: Skip) -> Iterator['SwitchableDepth']:
        """Runs a `with` block at another depth and restores the former one, also after an error."""
        before = self.skip
        self.skip = skip
        try:
            yield self
        finally:
            self.skip = before

    def networks(self) -> list['AdaptiveDepth']:
        """The networks whose stages the letters are, in their order."""
        return [self]

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters that no network uses at its present depth."""
        for module in self.modules():
            if isinstance(module, SkipAwareNorm):
                yield from (module.full if module.switch.on else module.skip).parameters()
            elif is_skipped(module):
                yield from module.parameters()


class AdaptiveDepth(SwitchableDepth):
    """Mixin that gives a stock backbone an adaptive depth: `class ADNNet(AdaptiveDepth, Net)`.

    The subclass declares `sub_paths(mandatory)`, which returns the mandatory and the skippable modules
    of each stage (see `split`), and computes nothing.

    Args:
        skip: The depth at the start, see `set_skip`.
        mandatory: How many blocks of each stage always run. By default
            the first half, rounded up.
        skip_aware_norms: Whether the norms of mandatory sub-paths have two copies; False for
            the paper's ablation (Table 3). The published ResNets share those of the shortcuts between the
            depths; 'all' doubles them too.
        fixed: Trains at the depth `skip` only: freezes what the other depths alone use, which
            gets no gradient there and would stop DistributedDataParallel.
        *args, **kwargs: What the stock backbone takes.

    Raises:
        ValueError: `skip` or `mandatory` does not fit the network.
    """

    shared = ('downsample',)  # children of a mandatory module whose norms serve both sub-paths

    def __init__(
        self,
        *args,
        skip: Skip = 'super',
        mandatory: Sequence[int] | None = None,
        skip_aware_norms: bool | str = True,
        fixed: bool = False,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self._divide(skip, mandatory, skip_aware_norms, fixed)

    def _divide(
        self,
        skip: Skip = 'super',
        mandatory: Sequence[int] | None = None,
        skip_aware_norms: bool | str = True,
        fixed: bool = False,
    ) -> None:
        """Makes the stock network that this is until now one of adaptive depth."""
        if skip_aware_norms not in (True, False, 'all'):
            raise InputError(f"skip_aware_norms={skip_aware_norms!r}: give True, False or 'all'")
        self.mandatory = mandatory
        self.fixed = fixed
        self._switches = []
        shared = () if skip_aware_norms == 'all' else self.shared
        for required, skippable in self.sub_paths(mandatory):
            switch, before = Switch(), self._switches[-1] if self._switches else None
            self._switches.append(switch)
            for i, module in enumerate(required):
                _make_skip_aware(module, switch, None if i else before, shared, skip_aware_norms)
            for module in skippable:
                _make_skippable(module, switch)
        self.set_skip(skip)
        for parameter in self.idle_parameters() if fixed else ():
            parameter.requires_grad = False

    def init_weights(self) -> None:
        """Initialises as the stock backbone does, both copies of every norm alike, and then loads weights.

        What `init_cfg` loads comes last, as the stock backbone loads it: it fills both copies itself, and
        some stock backbones initialise over it otherwise. A second call only warns, as mmengine's own does.
        """
        if not isinstance(self, BaseModule):  # mmengine calls only what the stock backbone has
            return getattr(super(), 'init_weights', lambda: None)()
        if self.is_init:
            return BaseModule.init_weights(self)
        given = self.init_cfg
        configs = [given] if isinstance(given, dict) else given or []
        pretrained = [cfg for cfg in configs if _loads_weights(cfg['type'])]
        rest = [cfg for cfg in configs if cfg not in pretrained] if pretrained else given
        pretrained = [type(cfg)({**cfg, 'type': 'Pretrained'}) for cfg in pretrained]  # as stock ones know it
        for cfg in [rest, *pretrained] if rest or not pretrained else pretrained:
            self._initialize(cfg)
        for module in self.modules():
            if isinstance(module, SkipAwareNorm):
                module.skip.load_state_dict(module.full.state_dict())
        for cfg in pretrained:  # again, because a file may give the second copies too
            self._initialize(cfg)
        self.init_cfg, self._is_init = given, True

    def _initialize(self, cfg: dict | list | None) -> None:
        self.init_cfg, self._is_init = cfg, False
        super().init_weights()


def _loads_weights(type_: str | type) -> bool:
    """Whether an initialiser, given by its name or its class, is mmengine's for pretrained weights."""
    return PretrainedInit in (type_, WEIGHT_INITIALIZERS.get(type_) if isinstance(type_, str) else None)


def switches(module: nn.Module) -> set[Switch]:
    """The switches that decide what runs in a module."""
    return {m.switch for m in module.modules() if hasattr(m, 'switch') and not isinstance(m.switch, NeverOn)}


def is_skipped(module: nn.Module) -> bool:
    """Whether a module is the identity at the present depth."""
    return isinstance(module, Skippable) and module.switch.on


def _make_skippable(module: nn.Module, switch: Switch) -> None:
    module.__class__ = _skippable_class(type(module))
    module.switch = switch


def _make_skip_aware(
    module: nn.Module, switch: Switch, before: Switch | None, shared: Sequence[str], norms: bool
) -> None:
    for name, child in list(module.named_children()):
        if is_norm(child) and norms:
            setattr(module, name, SkipAwareNorm(child, switch, before if _has_statistics(child) else None))
        elif isinstance(child, DropPath):
            _make_skippable(child, switch)
        elif name not in shared:
            _make_skip_aware(child, switch, before, shared, norms)
        elif before is not None and norms:
            _make_statistics_follow(child, before)


def _make_statistics_follow(module: nn.Module, before: Switch) -> None:
    """Norms that both sub-paths share keep one scale and shift; their statistics follow the stage before."""
    for name, child in list(module.named_children()):
        if _has_statistics(child):
            setattr(module, name, PathNorm(child, NeverOn(), before))
        else:
            _make_statistics_follow(child, before)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside wrappers, such as MMDistributedDataParallel or test-time augmentation, or itself."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def depth_of(model: nn.Module) -> SwitchableDepth:
    """What sets the depth of any model, wrapped for training or not: all its parts, or else its backbone.

    It is the model itself, or the only one inside it, if other parts than the backbone have a depth too
    (`mmadn.ADNDINO`); or else `adaptive_backbone(model)`.

    Raises:
        TypeError: The model has no adaptive depth, or it is not clear which of several is meant.
    """
    model = present_branch(unwrap(model))
    if isinstance(model, SwitchableDepth):
        return model
    several = [m for m in model.modules() if isinstance(m, SwitchableDepth) and m.networks() != [m]]
    return several[0] if len(several) == 1 else adaptive_backbone(model)


def adaptive_backbone(model: nn.Module) -> AdaptiveDepth:
    """The adaptive-depth backbone of any model, wrapped for training or not.

    It is `model.backbone`, or else the only one inside the model, as in a tracker around a detector. Of a
    semi-supervised detector (mmdet's SemiBaseDetector) it is the student's, which is what is trained, and
    in eval mode that of the network that predicts, by default the teacher.

    Raises:
        TypeError: The model has none, or has several and none of them at `model.backbone`.
    """
    model = present_branch(unwrap(model))
    backbone = getattr(model, 'backbone', None)
    if isinstance(backbone, AdaptiveDepth):
        return backbone
    found = {name: each for name, each in model.named_modules() if isinstance(each, AdaptiveDepth)}
    if len(found) == 1:
        return next(iter(found.values()))
    name = type(model).__name__
    if found:
        raise NotAdaptiveError(
            f'{name} has several backbones of adaptive depth, {", ".join(found)}; give the part of it that '
            'is meant, or make only one of them adaptive'
        )
    lacks = 'no adaptive depth'
    if backbone is not None:
        lacks = f'the backbone {type(backbone).__name__}, which has no adaptive depth'
    raise NotAdaptiveError(
        f"{name} has {lacks}; choose one of mmadn's in the config, such as "
        "backbone=dict(type='mmadn.ADNResNet', depth=50)"
    )


def present_branch(model: nn.Module) -> nn.Module:
    """The network of a semi-supervised detector that is trained, or in eval mode predicts; else the model."""
    if not hasattr(model, 'semi_test_cfg'):
        return model
    return getattr(model, 'student' if model.training else model.semi_test_cfg.get('predict_on', 'teacher'))
