"""Adaptive-depth networks against their stock counterparts, measured side by side; see README.md."""

from . import contests  # noqa: F401  registers them
from .networks import NETWORKS
from .protocol import CONTESTS, Contestant, Ratio, Settings, measure
from .tables import save, show

__all__ = ['CONTESTS', 'NETWORKS', 'Contestant', 'Ratio', 'Settings', 'measure', 'save', 'show']
