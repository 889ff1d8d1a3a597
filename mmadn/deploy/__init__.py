"""Adaptive networks in use: what of them runs where, and how fast."""

from collections.abc import Callable

from ..evaluation.profile import profile_subnets
from ..evaluation.select import select
from .compiling import compile
from .controller import DepthController
from .extraction import extract, extract_file
from .fusing import fuse
from .stock import stock_config
from .stream import simulate

__all__ = [
    'DepthController',
    'compile',
    'profile_subnets',
    'select',
    'simulate',
    'extract',
    'extract_file',
    'stock_config',
    'fuse',
]


def __getattr__(name: str) -> type | Callable:
    """Imports what needs onnx or onnxruntime only when it is asked for, because mmadn does without them."""
    if name == 'AdaptiveSession':
        from .onnx.session import AdaptiveSession

        return AdaptiveSession
    if name == 'export_onnx':
        from .onnx.export import export_onnx

        return export_onnx
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
