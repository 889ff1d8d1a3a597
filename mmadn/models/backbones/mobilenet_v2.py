from mmpretrain.models import MobileNetV2

from ...depth import AdaptiveDepth, split
from ...registry import MODELS


@MODELS.register_module()
class ADNMobileNetV2(AdaptiveDepth, MobileNetV2):
    """MobileNetV2 with adaptive depth: mmpretrain's MobileNetV2 and two arguments more.

    Five of the seven stages have a flag; the first and the last are a single block and always run.
    The norms of the stem and of the first stage go with the first flag, those of the last stage and
    of the last convolution with the last flag.

    Args:
        skip (str | Sequence[bool] | bool): The depth at the start, see `set_skip`.
        mandatory (Sequence[int], optional): How many blocks of each of the seven stages always run.
            By default the first half, rounded up: (1, 1, 2, 2, 2, 2, 1) of (1, 2, 3, 4, 3, 3, 1).
        **kwargs: What mmpretrain's MobileNetV2 takes.
    """

    def sub_paths(self, mandatory):
        (first, _), *paths, (last, _) = split([getattr(self, f'layer{i}') for i in range(1, 8)], mandatory)
        paths[0][0].extend([self.conv1, *first])
        paths[-1][0].extend([*last, self.conv2])
        return paths
