"""Backbones with adaptive depth: those of the paper, ConvNeXt, and by `adaptive` any other residual one."""

from mmpretrain.models import ConvNeXt, MobileNetV2, ResNet, SwinTransformer, VisionTransformer

from .adaptive import AdaptiveBackbone, AdaptiveModel, adaptive

ADNConvNeXt = adaptive(ConvNeXt)
ADNMobileNetV2 = adaptive(MobileNetV2)
ADNResNet = adaptive(ResNet)
ADNSwinTransformer = adaptive(SwinTransformer)
ADNVisionTransformer = adaptive(VisionTransformer)

__all__ = [
    'ADNConvNeXt',
    'ADNMobileNetV2',
    'ADNResNet',
    'ADNSwinTransformer',
    'ADNVisionTransformer',
    'AdaptiveBackbone',
    'AdaptiveModel',
    'adaptive',
]
