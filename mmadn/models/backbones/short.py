"""Stock backbones with another number of blocks, which their stock classes do not take as an argument.

Swin, ViT and ConvNeXt need none of this: mmpretrain's own take `arch=dict(...)`.
"""

from mmpretrain.models import MobileNetV2, ResNet

from ...registry import MODELS


@MODELS.register_module()
class ShortResNet(ResNet):
    """mmpretrain's ResNet; `blocks=(2, 2, 3, 2)` says how many each stage has, for the kind of `depth`."""

    def __init__(self, depth, blocks, **kwargs):
        self.arch_settings = {depth: (ResNet.arch_settings[depth][0], tuple(blocks))}
        super().__init__(depth, **kwargs)


@MODELS.register_module()
class ShortMobileNetV2(MobileNetV2):
    """mmpretrain's MobileNetV2; `blocks=(1, 1, 2, 2, 2, 2, 1)` says how many each stage has."""

    def __init__(self, blocks, **kwargs):
        self.arch_settings = [
            [expand_ratio, channels, number, stride]
            for (expand_ratio, channels, _, stride), number in zip(
                MobileNetV2.arch_settings, blocks, strict=True
            )
        ]
        super().__init__(**kwargs)
