from collections.abc import Sequence

from mmpretrain.models import ResNet

from ...depth import AdaptiveDepth, split
from ...registry import MODELS


class AdaptiveResNet(AdaptiveDepth):
    """What of a ResNet is mandatory and what is skippable, for the ResNet class of any OpenMMLab library."""

    shared = ('downsample',)

    def sub_paths(self, mandatory: Sequence[int] | None) -> list[tuple[list, list]]:
        return split([getattr(self, name) for name in self.res_layers], mandatory)


@MODELS.register_module()
class ADNResNet(AdaptiveResNet, ResNet):
    """mmpretrain's ResNet with adaptive depth (paper, Section 3); in a config of mmdet, mmdet's ResNet.

    The norms of the stem and of the shortcuts serve both sub-paths. `avg_down=True` gives the
    published `vd` variant, which averages in the stride-2 shortcuts.

    Args:
        skip: The depth at the start, such as 'TTFF'.
        mandatory: How many blocks of each stage always run, by default (2, 2, 3, 2) of the
            (3, 4, 6, 3) blocks of ResNet50.
        skip_aware_norms: Whether the norms of mandatory blocks have two copies, see `AdaptiveDepth`.
        fixed: Trains the depth `skip` alone, see `AdaptiveDepth`.
        *args, **kwargs: What mmpretrain's ResNet takes; the paper has the depths 50 and 101.

    Example:
        >>> backbone = ADNResNet(50)
        >>> backbone.set_skip('TTFF')
        >>> backbone(torch.rand(1, 3, 224, 224))[0].shape
        torch.Size([1, 2048, 7, 7])
    """
