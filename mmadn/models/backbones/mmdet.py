"""The backbones whose class in mmdet is another one than in mmpretrain, under the same names in configs."""

from mmdet.models.backbones import ResNet

from ...registry import MODELS
from .resnet import AdaptiveResNet


@MODELS.register_module(name='mmdet/ADNResNet')
class DetADNResNet(AdaptiveResNet, ResNet):
    """`mmadn.ADNResNet` in a config of mmdet: mmdet's ResNet, with its arguments and defaults.

    Those differ from mmpretrain's: `norm_eval=True`, `out_indices=(0, 1, 2, 3)`, `dcn` and `plugins`.

    Args:
        *args, **kwargs: What `AdaptiveDepth` and mmdet's ResNet take.
    """
