"""Ordinary networks with other numbers of blocks, such as a base-net that is trained on its own.

Only stock classes that take no numbers of blocks are here: Swin, ViT and ConvNeXt take `arch=dict(...)`.
"""

from collections.abc import Sequence

from mmpretrain.models import MobileNetV2, ResNet

from ...registry import MODELS


@MODELS.register_module()
class ShortResNet(ResNet):
    """mmpretrain's ResNet with other numbers of blocks.

    Args:
        depth: A depth of mmpretrain's ResNet, which says of what kind the blocks are.
        blocks: How many blocks each stage has, such as (2, 2, 3, 2).
        **kwargs: What mmpretrain's ResNet takes.
    """

    def __init__(self, depth: int, blocks: Sequence[int], **kwargs) -> None:
        self.arch_settings = {depth: (ResNet.arch_settings[depth][0], tuple(blocks))}
        super().__init__(depth, **kwargs)


@MODELS.register_module()
class ShortMobileNetV2(MobileNetV2):
    """mmpretrain's MobileNetV2 with other numbers of blocks.

    Args:
        blocks: How many blocks each of the seven stages has, such as (1, 1, 2, 2, 2, 2, 1).
        **kwargs: What mmpretrain's MobileNetV2 takes.
    """

    def __init__(self, blocks: Sequence[int], **kwargs) -> None:
        self.arch_settings = [
            [expand_ratio, channels, number, stride]
            for (expand_ratio, channels, _, stride), number in zip(
                MobileNetV2.arch_settings, blocks, strict=True
            )
        ]
        super().__init__(**kwargs)
