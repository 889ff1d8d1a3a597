"""The backbones whose class in mmdet is another one than in mmpretrain, under the same names in configs."""

from mmdet.models.backbones import ResNet

from ...registry import MODELS
from .resnet import AdaptiveResNet


@MODELS.register_module(name='mmdet/ADNResNet')
class DetADNResNet(AdaptiveResNet, ResNet):
    """`mmadn.ADNResNet` in a config of mmdet: mmdet's ResNet, with its arguments and defaults.

    Those differ from mmpretrain's: `norm_eval=True`, `out_indices=(0, 1, 2, 3)`, `dcn` and `plugins`.

    Args:
        skip: The depth at the start, such as 'TTFF'.
        mandatory: How many blocks of each stage always run, by default the first half of them,
            rounded up.
        skip_aware_norms: Whether the norms of mandatory blocks have two copies, see `AdaptiveDepth`.
        fixed: Trains the depth `skip` alone, see `AdaptiveDepth`.
        *args, **kwargs: What mmdet's ResNet takes.
    """
