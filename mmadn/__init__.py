"""Adaptive Depth Networks with Skippable Sub-Paths (NeurIPS 2024) for OpenMMLab."""

from importlib.util import find_spec
from typing import NoReturn

from .version import __version__

# Without OpenMMLab there is what runs exported files, in `mmadn.deploy`.
if find_spec('mmengine'):
    from .utils import torchvision_shim  # noqa: F401, I001  before anything imports torchvision
    from .utils import quiet_imports  # noqa: F401
    from .models.backbones import (
        ADNConvNeXt,
        ADNMobileNetV2,
        ADNResNet,
        ADNSwinTransformer,
        ADNVisionTransformer,
        AdaptiveBackbone,
        AdaptiveModel,
        adaptive,
    )
    from .checkpoint import hub  # noqa: F401  so that weights and models are found by their names
    from .datasets import ImageFolder, use_data
    from .depth import AdaptiveDepth, adaptive_backbone, depth_of, split
    from .models.heads import DropoutLinearClsHead
    from .engine.self_distillation import SelfDistillationHook
    from .engine.teacher import DistillationHook
    from .models.backbones.short import ShortMobileNetV2, ShortResNet
    from .engine.calibration import CalibrationHook, calibrate
    from .engine.loops import SubnetTestLoop, SubnetValLoop
    from .models.necks import SimpleFPN
    from .utils.packaged import resolve_packaged_bases
    from .registry import MODELS

    resolve_packaged_bases()
else:

    def __getattr__(name: str) -> NoReturn:
        if name in __all__:
            from .errors import MissingPackageError

            raise MissingPackageError(
                f'mmadn.{name} needs PyTorch and OpenMMLab, which are not installed; AdaptiveSession and '
                'DepthController of mmadn.deploy do without them'
            )
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


__all__ = [
    'ADNConvNeXt',
    'ADNMobileNetV2',
    'ADNResNet',
    'ADNSwinTransformer',
    'ADNVisionTransformer',
    'AdaptiveBackbone',
    'AdaptiveDepth',
    'AdaptiveModel',
    'CalibrationHook',
    'DistillationHook',
    'DropoutLinearClsHead',
    'ImageFolder',
    'MODELS',
    'SelfDistillationHook',
    'ShortMobileNetV2',
    'ShortResNet',
    'SimpleFPN',
    'SubnetTestLoop',
    'SubnetValLoop',
    'adaptive',
    'adaptive_backbone',
    'calibrate',
    'depth_of',
    'split',
    'use_data',
    '__version__',
]
