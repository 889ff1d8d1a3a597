from .convnext import ADNConvNeXt
from .mobilenet_v2 import ADNMobileNetV2
from .resnet import ADNResNet
from .swin_transformer import ADNSwinTransformer
from .vision_transformer import ADNVisionTransformer

__all__ = ['ADNConvNeXt', 'ADNMobileNetV2', 'ADNResNet', 'ADNSwinTransformer', 'ADNVisionTransformer']
