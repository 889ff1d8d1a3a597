from mmpretrain.models import VisionTransformer

from ...depth import AdaptiveDepth, split
from ...errors import InputError
from ...registry import MODELS


@MODELS.register_module()
class ADNVisionTransformer(AdaptiveDepth, VisionTransformer):
    """Vision Transformer with adaptive depth: mmpretrain's VisionTransformer and three arguments more.

    `group` successive blocks are what a stage is elsewhere. The final norm serves both sub-paths.

    Args:
        group (int): Blocks to a stage; the number of blocks is a multiple of it.
        skip (str | Sequence[bool] | bool): The depth at the start, see `set_skip`.
        mandatory (Sequence[int], optional): How many blocks of each stage always run. By default
            the first half, rounded up: (2, 2, 2, 2) of ViT-B's (3, 3, 3, 3).
        **kwargs: What mmpretrain's VisionTransformer takes.
    """

    def __init__(self, *args, group=3, **kwargs):
        self.group = group
        super().__init__(*args, **kwargs)

    def sub_paths(self, mandatory):
        blocks, group = list(self.layers), self.group
        if type(group) is not int or not 1 <= group <= len(blocks) or len(blocks) % group:
            raise InputError(f'group={group!r}: give a divisor of the {len(blocks)} blocks')
        return split([blocks[i : i + group] for i in range(0, len(blocks), group)], mandatory)
