"""Backbones with adaptive depth. To add a sixth family:

1. Write `class ADNNet(AdaptiveDepth, Net)` over the stock class, with `sub_paths` and nothing else. In a
   package of your own, `from mmadn import MODELS, AdaptiveDepth, split` is all that it needs.
2. Import it here and in `mmadn/__init__.py`, so that configs find `type='mmadn.ADNNet'`.
3. For `extract`, tell `mmadn/deploy/stock.py` how `Net` takes the numbers of its blocks.
4. Add a row to `tests/backbones.py`: the contract in `tests/test_depth.py` then runs over it.
"""

from .convnext import ADNConvNeXt
from .mobilenet_v2 import ADNMobileNetV2
from .resnet import ADNResNet
from .swin_transformer import ADNSwinTransformer
from .vision_transformer import ADNVisionTransformer

__all__ = ['ADNConvNeXt', 'ADNMobileNetV2', 'ADNResNet', 'ADNSwinTransformer', 'ADNVisionTransformer']
