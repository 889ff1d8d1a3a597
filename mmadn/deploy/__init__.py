"""Adaptive networks in use: what of them runs where, and how fast.

A name is imported when it is asked for: what runs exported files needs neither torch nor OpenMMLab, and mmadn
does without onnx and onnxruntime.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import MissingPackageError

HOMES = {
    'AdaptiveSession': '.onnx.session',
    'DepthController': '.controller',
    'compile': '.compiling',
    'export_onnx': '.onnx.export',
    'extract': '.extraction',
    'extract_file': '.extraction',
    'fuse': '.fusing',
    'profile_subnets': '..evaluation.profile',
    'select': '..evaluation.select',
    'simulate': '.stream',
    'stock_config': '.stock',
}
__all__ = [name for name in HOMES if name not in ('AdaptiveSession', 'export_onnx')]  # what always works


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    try:
        return getattr(import_module(HOMES[name], __name__), name)
    except ModuleNotFoundError as error:
        if find_spec('mmengine'):
            raise
        raise MissingPackageError(
            f'mmadn.deploy.{name} needs PyTorch and OpenMMLab ({error}); AdaptiveSession and DepthController '
            'do without them'
        ) from error
