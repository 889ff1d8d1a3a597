from mmpretrain.models import ConvNeXt

from ...depth import AdaptiveDepth, split
from ...registry import MODELS


@MODELS.register_module()
class ADNConvNeXt(AdaptiveDepth, ConvNeXt):
    """ConvNeXt with adaptive depth, not in the paper: mmpretrain's ConvNeXt and two arguments more.

    As in Swin, the norm of a downsampling layer goes with the flag of the stage that it feeds.

    Args:
        skip (str | Sequence[bool] | bool): The depth at the start, see `set_skip`.
        mandatory (Sequence[int], optional): How many blocks of each stage always run. By default
            the first half, rounded up: (2, 2, 5, 2) of ConvNeXt-T's (3, 3, 9, 3).
        **kwargs: What mmpretrain's ConvNeXt takes.
    """

    def sub_paths(self, mandatory):
        paths = split(self.stages, mandatory)
        for downsample, (required, _) in zip(self.downsample_layers[1:], paths[1:], strict=True):
            required.append(downsample)
        return paths
