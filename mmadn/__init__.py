"""Adaptive Depth Networks with Skippable Sub-Paths (NeurIPS 2024) for OpenMMLab."""

from . import torchvision_shim  # noqa: F401, I001  before anything imports torchvision
from .backbones import (
    ADNConvNeXt,
    ADNMobileNetV2,
    ADNResNet,
    ADNSwinTransformer,
    ADNVisionTransformer,
)
from .datasets import ImageFolder
from .depth import AdaptiveDepth, adaptive_backbone
from .heads import DropoutLinearClsHead
from .hooks import DistillationHook, SelfDistillationHook
from .individual import ShortMobileNetV2, ShortResNet
from .loops import SubnetTestLoop, SubnetValLoop
from .necks import SimpleFPN
from .version import __version__

__all__ = [
    'ADNConvNeXt',
    'ADNMobileNetV2',
    'ADNResNet',
    'ADNSwinTransformer',
    'ADNVisionTransformer',
    'AdaptiveDepth',
    'DistillationHook',
    'DropoutLinearClsHead',
    'ImageFolder',
    'SelfDistillationHook',
    'ShortMobileNetV2',
    'ShortResNet',
    'SimpleFPN',
    'SubnetTestLoop',
    'SubnetValLoop',
    'adaptive_backbone',
    '__version__',
]
