"""Any residual backbone with adaptive depth: of an OpenMMLab library, or your own."""

import functools
from collections.abc import Sequence

from torch import nn

from ...depth import AdaptiveDepth, split
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


@functools.cache
def adaptive(backbone: type[nn.Module]) -> type[AdaptiveBackbone]:
    """The class of a backbone with adaptive depth, `ADN` before its name; see `AdaptiveBackbone`."""
    library = backbone.__module__.partition('.')[0]
    about = f"{library}'s {backbone.__name__} with adaptive depth; see `AdaptiveBackbone`."
    return type(
        f'ADN{backbone.__name__}',
        (AdaptiveBackbone, backbone),
        # A class made at run time cannot be pickled by its name.
        {'__module__': __name__, '__doc__': about, '__reduce__': _by_its_stock_class},
    )


def _by_its_stock_class(network: AdaptiveBackbone) -> tuple:
    return _new_adaptive, (stock_class(type(network)),), network.__getstate__()


def _new_adaptive(backbone: type[nn.Module]) -> AdaptiveBackbone:
    return object.__new__(adaptive(backbone))


def stock_class(cls: type[AdaptiveDepth]) -> type[nn.Module]:
    """The stock class that one with adaptive depth is made of."""
    after = cls.__mro__[cls.__mro__.index(AdaptiveDepth) :]
    return next(base for base in after if base not in AdaptiveDepth.__mro__)
