from collections.abc import Sequence

from mmpretrain.models import MobileNetV2

from ...depth import AdaptiveDepth, split
from ...registry import MODELS


@MODELS.register_module()
class ADNMobileNetV2(AdaptiveDepth, MobileNetV2):
    """mmpretrain's MobileNetV2 with adaptive depth.

    Five of the seven stages have a switch; the first and the last are a single block and always run. The
    norms of the stem and of the first stage follow the first switch, those of the last stage and of the
    last convolution follow the last one.

    Args:
        skip: The depth at the start, such as 'TTFF'.
        mandatory: How many blocks of each stage always run, by default (1, 1, 2, 2, 2, 2, 1)
            of the (1, 2, 3, 4, 3, 3, 1) blocks.
        skip_aware_norms: Whether the norms of mandatory blocks have two copies, see `AdaptiveDepth`.
        fixed: Trains the depth `skip` alone, see `AdaptiveDepth`.
        *args, **kwargs: What mmpretrain's MobileNetV2 takes.
    """

    def sub_paths(self, mandatory: Sequence[int] | None) -> list[tuple[list, list]]:
        (first, _), *paths, (last, _) = split([getattr(self, f'layer{i}') for i in range(1, 8)], mandatory)
        paths[0][0].extend([self.conv1, *first])
        paths[-1][0].extend([*last, self.conv2])
        return paths
