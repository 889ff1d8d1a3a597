"""Adaptive-depth networks against their stock counterparts, measured side by side.

All contestants run in one process, once in every round and in a new random order each time, so that
a disturbance of the machine meets all of them alike. What counts are therefore the ratios within a
round, and of these the median over the rounds.

A new contest is a module in `contests` and a line here, which also gives `tools/benchmark.py` its
subcommand.
"""

from .contests.compiled import compiled
from .contests.depths import depths
from .contests.inference import inference
from .contests.onnx import onnx
from .contests.prefixes import prefixes
from .contests.train import train
from .networks import ARCHS, CLASSES, classifiers, share_weights
from .protocol import (
    CONTESTS,
    Contestant,
    Gain,
    Ratio,
    Settings,
    compete,
    contest,
    judged,
    measure,
)
from .tables import picture, save, show

__all__ = [
    'ARCHS',
    'CLASSES',
    'CONTESTS',
    'Contestant',
    'Gain',
    'Ratio',
    'Settings',
    'classifiers',
    'compete',
    'compiled',
    'contest',
    'depths',
    'inference',
    'judged',
    'measure',
    'onnx',
    'picture',
    'prefixes',
    'save',
    'share_weights',
    'show',
    'train',
]
