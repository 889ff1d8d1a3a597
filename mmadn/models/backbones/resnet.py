from mmpretrain.models import ResNet

from ...depth import AdaptiveDepth, split
from ...registry import MODELS


class AdaptiveResNet(AdaptiveDepth):
    """What of a ResNet is mandatory and what is skippable, for the ResNet of any OpenMMLab library."""

    shared = ('downsample',)

    def sub_paths(self, mandatory):
        return split([getattr(self, name) for name in self.res_layers], mandatory)


@MODELS.register_module()
class ADNResNet(AdaptiveResNet, ResNet):
    """ResNet with adaptive depth (paper, Section 3): mmpretrain's ResNet and two arguments more.

    A config of mmdet gets mmdet's ResNet under this name, see `DetADNResNet`.

    The norms of the stem and of the shortcuts serve both sub-paths. `avg_down=True` gives the
    published `vd` variant, which averages in the stride-2 shortcuts.

    Args:
        depth (int): 50 or 101 in the paper; any depth of mmpretrain's ResNet works.
        skip (str | Sequence[bool] | bool): The depth at the start, see `set_skip`.
        mandatory (Sequence[int], optional): How many blocks of each stage always run. By default
            the first half, rounded up: (2, 2, 3, 2) of ResNet50's (3, 4, 6, 3).
        **kwargs: What mmpretrain's ResNet takes.

    Example:
        >>> backbone = ADNResNet(50)
        >>> backbone.set_skip('TTFF')
        >>> backbone(torch.rand(1, 3, 224, 224))[0].shape
        torch.Size([1, 2048, 7, 7])
    """
