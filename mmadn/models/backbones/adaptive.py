"""Any residual network with adaptive depth, of an OpenMMLab library or your own, and any model of several."""

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence

from mmengine.model import BaseModel
from torch import nn

from ...depth import AdaptiveDepth, RunningLayers, SwitchableDepth, is_skipped, split
from ...depth_names import Skip
from ...errors import InputError
from .layouts import find_stages


class AdaptiveBackbone(AdaptiveDepth):
    """A stock backbone with adaptive depth (paper, Section 3), whose residual stages are found in it.

    In a config, `type='mmadn.ADN...'` is the backbone of that name of the library that the config belongs
    to, with its arguments, defaults and checkpoints: `mmadn.ADNResNet` is mmpretrain's ResNet in a
    classifier, mmdet's in a detector and mmseg's in a segmentor. In Python, `adaptive(Net)` is the class.

    The first half of each stage, rounded up, is mandatory. A stage of a single block has nothing to skip:
    it follows the switch of the stage before it, or of the first that has something to skip.

    Args:
        *args, **kwargs: What the stock backbone takes, and the arguments of `AdaptiveDepth`: `skip`,
            `mandatory`, `skip_aware_norms` and `fixed`.
        residual_stages: The names of the modules that hold the blocks of each stage, such as
            ['layer1', 'layer2'], for a backbone in which they are not found.
        group: How many successive blocks of a single stage count as one, a divisor of their number; by
            default 3 in ViT and its relatives, which have blocks and no stages.

    Raises:
        ValueError: An argument does not fit the backbone, its stages are not found, or nothing could be
            skipped.

    Example:
        >>> backbone = ADNResNet(50)
        >>> backbone.set_skip('TTFF')
        >>> backbone(torch.rand(1, 3, 224, 224))[0].shape
        torch.Size([1, 2048, 7, 7])
    """

    def __init__(
        self, *args, residual_stages: Sequence[str] | None = None, group: int | None = None, **kwargs
    ) -> None:
        self.residual_stages, self.group = residual_stages, group
        super().__init__(*args, **kwargs)

    def sub_paths(self, mandatory: Sequence[int] | None) -> list[tuple[list, list]]:
        stages = find_stages(self, self.residual_stages, self.group)
        place = {module: i for i, module in enumerate(self.modules())}  # what runs first is defined first
        paths, waiting = [], []
        for stage, (required, skippable) in zip(
            stages, split([stage.blocks for stage in stages], mandatory), strict=True
        ):
            required = sorted([*required, *stage.beside], key=place.get)
            if len(stage.blocks) > 1:
                paths.append(([*waiting, *required], skippable))
                waiting = []
            else:
                (paths[-1][0] if paths else waiting).extend(required)
        if not paths:
            stock = stock_class(type(self)).__name__
            raise InputError(
                f'{stock} has nothing to skip: each of its {len(stages)} stages is a single block; choose a '
                'deeper one'
            )
        return paths

    def _load_from_state_dict(self, *args) -> None:
        # Some stock classes rename the tensors of their first checkpoints, if `self.__class__` is theirs.
        own, self.__class__ = self.__class__, stock_class(type(self))
        try:
            self._load_from_state_dict(*args)
        finally:
            self.__class__ = own


class AdaptiveModel(SwitchableDepth):
    """A stock model in which more than the backbone has an adaptive depth, such as the coders of a DETR.

    In a config, `type='mmadn.ADNDINO'` is mmdet's DINO, whose encoder and decoder skip the second half of
    their layers, with two copies of the norms of the first. `model.set_skip` sets all parts: the letters of
    the backbone come first, where that is one of mmadn's, and then those of the parts, "TTTTFT" or by their
    names "backbone=TTTT,decoder=T", where those that are not named run whole. A part can be set by itself,
    `model.backbone.set_skip("TTTT")`.

    Args:
        *args, **kwargs: What the stock model takes.
        parts: The names of the parts beside the backbone, with the arguments of `AdaptiveBackbone` if there
            are some: `dict(decoder=dict(mandatory=[2]))`, or
            `dict(bbox_head=dict(residual_stages=['cls_convs', 'reg_convs']))`. By default `encoder` and
            `decoder`.
        skip: The depth at the start.

    Raises:
        ValueError: There is no such part, or its stages are not found.

    Example:
        >>> model = MODELS.build(dict(type='mmadn.ADNDINO', ...))
        >>> model.set_skip('backbone=TTTT,encoder=F,decoder=T')
        >>> model.skip
        'TTTTFT'
    """

    def __init__(
        self, *args, parts: Sequence[str] | Mapping[str, dict] | None = None, skip: Skip = 'super', **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        given = [parts] if isinstance(parts, str) else ('encoder', 'decoder') if parts is None else parts
        if not isinstance(given, (list, tuple, Mapping)):
            raise InputError(f'parts={parts!r}: give a list of names, or a dict of arguments by names')
        given = given if isinstance(given, Mapping) else dict.fromkeys(given)
        modules, children = dict(self.named_modules()), [name for name, _ in self.named_children()]
        lacking = [name for name in given if name not in modules]
        if lacking or not given:
            raise InputError(
                f'parts={parts!r}: {stock_class(type(self)).__name__} has no '
                f'{" and no ".join(lacking) or "such part"}; give names of modules of it that have residual '
                f'stages (it has {", ".join(children)})'
            )
        known = set(own_arguments(AdaptiveBackbone))
        for name, arguments in given.items():
            if isinstance(modules[name], AdaptiveDepth):
                raise InputError(f'parts={parts!r}: {name} has a depth already; remove it')
            if unknown := set(arguments or {}) - known:
                raise InputError(
                    f'parts={parts!r}: {name} takes {", ".join(sorted(known))}, and no '
                    f'{", ".join(sorted(unknown))}'
                )
            _make_adaptive(modules[name], **(arguments or {}))
        backbone = getattr(self, 'backbone', None)
        self.parts = ['backbone'] * isinstance(backbone, AdaptiveDepth) + [*given]
        self._switches = [switch for network in self.networks() for switch in network._switches]
        self.set_skip(skip)

    def networks(self) -> list[AdaptiveDepth]:
        return [self.get_submodule(name) for name in self.parts]

    @property
    def part_lengths(self) -> dict[str, int]:
        numbers = [network.num_skippable_stages for network in self.networks()]
        return dict(zip(self.parts, numbers, strict=True))

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        yield from super().idle_parameters()
        for branches in prediction_branches(self):
            gone = idle_layers(self.decoder)
            used = {p for i, branch in enumerate(branches) if i not in gone for p in branch.parameters()}
            yield from {p for i in gone for p in branches[i].parameters()} - used


def prediction_branches(model: nn.Module) -> Iterator[nn.ModuleList]:
    """What the head of a DETR has for each layer of a decoder that has a depth, and maybe for its encoder."""
    if 'decoder' in getattr(model, 'parts', ()):
        head = getattr(model, 'bbox_head', None)
        found = (getattr(head, name, None) for name in ('cls_branches', 'reg_branches'))
        yield from (branches for branches in found if isinstance(branches, nn.ModuleList))


def idle_layers(decoder: AdaptiveDepth) -> list[int]:
    """The numbers of the layers that are skipped at the present depth."""
    return [i for i, layer in enumerate(decoder.layers.children()) if is_skipped(layer)]


def _make_adaptive(
    network: nn.Module, residual_stages: Sequence[str] | None = None, group: int | None = None, **kwargs
) -> None:
    """Gives a network that is built already an adaptive depth, by the arguments of `AdaptiveBackbone`."""
    network.__class__ = adaptive(type(network))
    network.residual_stages, network.group = residual_stages, group
    network._divide(**kwargs)
    if isinstance(getattr(network, 'layers', None), nn.ModuleList):
        network.layers = RunningLayers(network.layers)


@functools.cache
def adaptive(stock: type[nn.Module]) -> type[AdaptiveBackbone | AdaptiveModel]:
    """The class with adaptive depth, `ADN` before its name: an `AdaptiveBackbone`, or an `AdaptiveModel`."""
    base = AdaptiveModel if issubclass(stock, BaseModel) else AdaptiveBackbone
    library = stock.__module__.partition('.')[0]
    about = f"{library}'s {stock.__name__} with adaptive depth; see `{base.__name__}`."
    return type(
        f'ADN{stock.__name__}',
        (base, stock),
        # A class made at run time cannot be pickled by its name.
        {'__module__': __name__, '__doc__': about, '__reduce__': _by_its_stock_class},
    )


def _by_its_stock_class(network: SwitchableDepth) -> tuple:
    return _new_adaptive, (stock_class(type(network)),), network.__getstate__()


def _new_adaptive(stock: type[nn.Module]) -> SwitchableDepth:
    return object.__new__(adaptive(stock))


def stock_class(cls: type[SwitchableDepth]) -> type[nn.Module]:
    """The stock class that one with adaptive depth is made of."""
    after = cls.__mro__[cls.__mro__.index(SwitchableDepth) :]
    return next(base for base in after if base not in SwitchableDepth.__mro__)


def own_arguments(cls: type[SwitchableDepth]) -> Iterator[str]:
    """What an adaptive-depth backbone or model takes beside the arguments of its stock class."""
    for each in cls.__mro__[: cls.__mro__.index(SwitchableDepth)]:
        for parameter in inspect.signature(each.__init__).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                yield parameter.name
