from collections.abc import Sequence

from mmpretrain.models import ConvNeXt

from ...depth import AdaptiveDepth, split
from ...registry import MODELS


@MODELS.register_module()
class ADNConvNeXt(AdaptiveDepth, ConvNeXt):
    """mmpretrain's ConvNeXt with adaptive depth, which the paper does not have.

    As in Swin, the norm of a downsampling layer follows the switch of the stage that it feeds.

    Args:
        skip: The depth at the start, such as 'TTFF'.
        mandatory: How many blocks of each stage always run, by default (2, 2, 5, 2) of the
            (3, 3, 9, 3) blocks of ConvNeXt-T.
        skip_aware_norms: Whether the norms of mandatory blocks have two copies, see `AdaptiveDepth`.
        fixed: Trains the depth `skip` alone, see `AdaptiveDepth`.
        *args, **kwargs: What mmpretrain's ConvNeXt takes.
    """

    def sub_paths(self, mandatory: Sequence[int] | None) -> list[tuple[list, list]]:
        paths = split(self.stages, mandatory)
        for downsample, (required, _) in zip(self.downsample_layers[1:], paths[1:], strict=True):
            required.append(downsample)
        return paths
