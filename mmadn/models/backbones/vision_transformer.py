from collections.abc import Sequence

from mmpretrain.models import VisionTransformer

from ...depth import AdaptiveDepth, split
from ...errors import InputError
from ...registry import MODELS


@MODELS.register_module()
class ADNVisionTransformer(AdaptiveDepth, VisionTransformer):
    """mmpretrain's Vision Transformer with adaptive depth.

    A group of successive blocks is what a stage is elsewhere. The final norm serves both sub-paths.

    Args:
        skip: The depth at the start, such as 'TTFF'.
        mandatory: How many blocks of each stage always run, by default (2, 2, 2, 2) of the
            (3, 3, 3, 3) blocks of ViT-B.
        skip_aware_norms: Whether the norms of mandatory blocks have two copies, see `AdaptiveDepth`.
        fixed: Trains the depth `skip` alone, see `AdaptiveDepth`.
        *args, **kwargs: What mmpretrain's VisionTransformer takes.
        group: How many blocks a group has; a divisor of the number of blocks.

    Raises:
        ValueError: `group` does not divide the number of blocks.
    """

    def __init__(self, *args, group: int = 3, **kwargs) -> None:
        self.group = group
        super().__init__(*args, **kwargs)

    def sub_paths(self, mandatory: Sequence[int] | None) -> list[tuple[list, list]]:
        blocks, group = list(self.layers), self.group
        if type(group) is not int or not 1 <= group <= len(blocks) or len(blocks) % group:
            raise InputError(f'group={group!r}: give a divisor of the {len(blocks)} blocks')
        return split([blocks[i : i + group] for i in range(0, len(blocks), group)], mandatory)
