"""Adaptive Depth Networks with Skippable Sub-Paths (NeurIPS 2024) for OpenMMLab."""

from .utils import torchvision_shim  # noqa: F401, I001  before anything imports torchvision
from .models.backbones import (
    ADNConvNeXt,
    ADNMobileNetV2,
    ADNResNet,
    ADNSwinTransformer,
    ADNVisionTransformer,
)
from .checkpoint import hub  # noqa: F401  so that weights and models are found by their names
from .datasets.image_folder import ImageFolder
from .depth import AdaptiveDepth, adaptive_backbone
from .models.heads import DropoutLinearClsHead
from .engine.self_distillation import SelfDistillationHook
from .engine.teacher import DistillationHook
from .models.backbones.short import ShortMobileNetV2, ShortResNet
from .engine.calibration import CalibrationHook, calibrate
from .engine.loops import SubnetTestLoop, SubnetValLoop
from .models.necks import SimpleFPN
from .utils.packaged import resolve_packaged_bases
from .version import __version__

resolve_packaged_bases()

__all__ = [
    'ADNConvNeXt',
    'ADNMobileNetV2',
    'ADNResNet',
    'ADNSwinTransformer',
    'ADNVisionTransformer',
    'AdaptiveDepth',
    'CalibrationHook',
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
    'calibrate',
    '__version__',
]
