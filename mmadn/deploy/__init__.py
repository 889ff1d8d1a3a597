"""Adaptive networks in use: what of them runs where, and how fast."""

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


def __getattr__(name):  # of packages that mmadn does without
    if name in ('AdaptiveSession', 'export_onnx'):
        from . import onnx

        return getattr(onnx, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
