"""Adaptive depth (arXiv 2312.16392, Section 3) as one transformation of a stock network.

A residual stage is split into a *mandatory* and a *skippable* sub-path and gets one switch. While the
switch is on, the skippable blocks are the identity, the mandatory norms use their second copy, and
stochastic depth inside the mandatory sub-path is off. Nothing of the network's own forward changes.
"""

import copy
import functools
from contextlib import contextmanager

from mmcv.cnn import is_norm
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule, BaseTTAModel, PretrainedInit, initialize, is_model_wrapper
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from .depth_names import DepthNames
from .errors import InputError, NotAdaptiveError


class Switch:
    """Whether the skippable sub-path of one stage is skipped; shared by the stage's modules."""

    on = False


class Skippable:
    """Mixin: the module is the identity of its first argument while `switch.on`."""

    def forward(self, x, *args, **kwargs):
        return x if self.switch.on else super().forward(x, *args, **kwargs)

    def __reduce__(self):  # a class made at run time cannot be pickled by name
        return _new_skippable, (type(self).__mro__[2],), self.__dict__


@functools.cache
def _skippable_class(cls):
    return type(f'Skippable{cls.__name__}', (Skippable, cls), {})


def _new_skippable(cls):
    return object.__new__(_skippable_class(cls))


class SkipAwareNorm(nn.Module):
    """Two copies of a norm: `full` runs with the skippable sub-path, `skip` without it.

    A wrapper and not a subclass, because `convert_sync_batchnorm` drops what a subclass adds. A
    checkpoint of the stock network (`bn1.weight`) loads into `full`, and into `skip` what it does not
    give explicitly (`bn1.skip.weight`).
    """

    def __init__(self, norm: nn.Module, switch: Switch):
        super().__init__()
        self.full, self.skip, self.switch = norm, copy.deepcopy(norm), switch

    def forward(self, *args, **kwargs):
        # By the dict and not by attribute: nn.Module's __getattr__ shows in the latency of a small net.
        return self._modules['skip' if self.switch.on else 'full'](*args, **kwargs)

    # Stock code initialises a norm by its `weight` and `bias` (zero-init of a residual branch).
    weight = property(lambda self: self.full.weight)
    bias = property(lambda self: self.full.bias)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in [*self.full._parameters, *self.full._buffers]:
            if prefix + name in state_dict:
                value = state_dict.pop(prefix + name)
                state_dict.setdefault(f'{prefix}full.{name}', value)
                state_dict.setdefault(f'{prefix}skip.{name}', value.clone())  # not one tensor for both
        super()._load_from_state_dict(state_dict, prefix, *args)


def split(stages, mandatory=None):
    """Splits every stage: its first ceil(n/2) blocks are mandatory, the rest is skippable.

    Args:
        stages (Iterable[Iterable[nn.Module]]): The residual blocks of each stage.
        mandatory (Sequence[int], optional): How many blocks of each stage always run instead.

    Returns:
        list[tuple[list, list]]: The mandatory and the skippable blocks of each stage.

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


class AdaptiveDepth(DepthNames):
    """Mixin that gives a stock backbone an adaptive depth: `class ADNNet(AdaptiveDepth, Net)`.

    The subclass declares `sub_paths(mandatory)`, which returns the mandatory and the skippable modules
    of each stage (see `split`), and computes nothing.

    Args:
        skip (str | Sequence[bool] | bool): The depth at the start, see `set_skip`.
        mandatory (Sequence[int], optional): How many blocks of each stage always run. By default
            the first half, rounded up.
        skip_aware_norms (bool | str): Whether the norms of mandatory sub-paths have two copies; False for
            the paper's ablation (Table 3). The published ResNets share those of the shortcuts between the
            depths; 'all' doubles them too.
        fixed (bool): Trains at the depth `skip` only: freezes what the other depths alone use, which
            gets no gradient there and would stop DistributedDataParallel.
        *args, **kwargs: What the stock backbone takes.

    Raises:
        ValueError: `skip` or `mandatory` does not fit the network.
    """

    shared = ()  # children of a mandatory module whose norms serve both sub-paths

    def __init__(self, *args, skip='super', mandatory=None, skip_aware_norms=True, fixed=False, **kwargs):
        if skip_aware_norms not in (True, False, 'all'):
            raise InputError(f"skip_aware_norms={skip_aware_norms!r}: give True, False or 'all'")
        super().__init__(*args, **kwargs)
        self.mandatory = mandatory
        self.fixed = fixed
        self._switches = []
        shared = () if skip_aware_norms == 'all' else self.shared
        for required, skippable in self.sub_paths(mandatory):
            switch = Switch()
            self._switches.append(switch)
            for module in required:
                _make_skip_aware(module, switch, shared, skip_aware_norms)
            for module in skippable:
                _make_skippable(module, switch)
        self.set_skip(skip)
        for parameter in self.idle_parameters() if fixed else ():
            parameter.requires_grad = False

    @property
    def num_skippable_stages(self) -> int:
        return len(self._switches)

    @property
    def skip(self) -> str:
        """One letter a stage, "TTFF": T skips the stage's skippable sub-path, F runs it.

        The switches belong to the model, so two threads that run one model at two depths disturb each
        other. Give each thread a network of its own, which shares the weights:
        `mmadn.deploy.extract(model, 'TTTT', share=True)`.
        """
        return ''.join('FT'[switch.on] for switch in self._switches)

    @skip.setter
    def skip(self, skip):
        for switch, letter in zip(self._switches, self.parse_skip(skip), strict=True):
            switch.on = letter == 'T'

    def set_skip(self, skip) -> None:
        """Sets the depth: a string of T and F, bools, "super" (all F), "base" (all T) or one bool.

        Raises:
            ValueError: `skip` is none of these, or has not one entry a skippable stage.
        """
        self.skip = skip

    @contextmanager
    def skipping(self, skip):
        """Runs a `with` block at another depth and restores the former one, also after an error."""
        before = self.skip
        self.skip = skip
        try:
            yield self
        finally:
            self.skip = before

    def idle_parameters(self):
        """Yields the parameters that the network does not use at its current depth."""
        for module in self.modules():
            if isinstance(module, SkipAwareNorm):
                yield from (module.full if module.switch.on else module.skip).parameters()
            elif is_skipped(module):
                yield from module.parameters()

    def init_weights(self) -> None:
        """Initialises as the stock backbone does, both copies of every norm alike, and then loads weights.

        What `init_cfg` loads comes last: it fills both copies itself, and some stock backbones initialise
        over it. A second call only warns, as mmengine's own does.
        """
        if self.is_init:
            return BaseModule.init_weights(self)
        given = self.init_cfg
        configs = [given] if isinstance(given, dict) else given or []
        pretrained = [cfg for cfg in configs if _loads_weights(cfg['type'])]
        if pretrained:
            self.init_cfg = [cfg for cfg in configs if cfg not in pretrained]
        super().init_weights()
        self.init_cfg = given
        for module in self.modules():
            if isinstance(module, SkipAwareNorm):
                module.skip.load_state_dict(module.full.state_dict())
        initialize(self, pretrained)


def _loads_weights(type_) -> bool:
    """Whether an initialiser, given by its name or its class, is mmengine's for pretrained weights."""
    return PretrainedInit in (type_, WEIGHT_INITIALIZERS.get(type_) if isinstance(type_, str) else None)


def is_skipped(module) -> bool:
    """Whether a module is the identity at the present depth."""
    return isinstance(module, Skippable) and module.switch.on


def _make_skippable(module, switch):
    module.__class__ = _skippable_class(type(module))
    module.switch = switch


def _make_skip_aware(module, switch, shared, norms):
    for name, child in list(module.named_children()):
        if is_norm(child) and norms:
            setattr(module, name, SkipAwareNorm(child, switch))
        elif isinstance(child, DropPath):
            _make_skippable(child, switch)
        elif name not in shared:
            _make_skip_aware(child, switch, shared, norms)


def unwrap(model):
    """The model inside wrappers, such as MMDistributedDataParallel or test-time augmentation, or itself."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def adaptive_backbone(model) -> AdaptiveDepth:
    """The adaptive-depth backbone of a classifier or detector, wrapped for training or not.

    Raises:
        TypeError: The model has none.
    """
    model = unwrap(model)
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, AdaptiveDepth):
        raise NotAdaptiveError(
            f'{type(model).__name__} has the backbone {type(backbone).__name__}, which has no adaptive '
            "depth; choose one of mmadn's in the config, such as "
            "backbone=dict(type='mmadn.ADNResNet', depth=50)"
        )
    return backbone
