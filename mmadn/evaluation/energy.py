"""The energy of a run, by the counters of the processor or the GPU."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

RAPL = '/sys/class/powercap'


class Energy:
    """Joules by a counter that only grows until it wraps.

    Args:
        name (str): What measures.
        read (Callable): Returns the counters in joules, one a device.
        wraps (Sequence[float]): Where each starts again at zero; infinity if it never does.
    """

    SECONDS = 1.0  # the counters move every 1 to 100 ms

    def __init__(self, name: str, read: Callable[[], list[float]], wraps: Sequence[float]):
        self.name, self.read, self.wraps = name, read, wraps

    def per_run(self, run: Callable[[], object], seconds: float) -> float:
        """The joules of one run, as the mean over as many as last a second, with what idling takes in it.

        Args:
            seconds: How long one run takes.
        """
        n = max(3, math.ceil(self.SECONDS / seconds))
        before = self.read()
        for _ in range(n):
            run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        after = self.read()
        used = (b - a if b >= a else b - a + w for a, b, w in zip(before, after, self.wraps, strict=True))
        return sum(used) / n


def energy_meter(device: str | torch.device = 'cpu', rapl: str | Path = RAPL) -> Energy | None:
    """What counts the energy of a device: NVML for a GPU, RAPL for the processors, or None without either."""
    return _nvml(torch.device(device)) if torch.device(device).type == 'cuda' else _rapl(Path(rapl))


def _rapl(folder: Path) -> Energy | None:
    # intel-rapl:0 is a whole processor; intel-rapl:0:1 is a part of it, and AMD's are named so too.
    zones = sorted(zone for zone in folder.glob('intel-rapl:*') if zone.name.count(':') == 1)
    try:
        wraps = [int((zone / 'max_energy_range_uj').read_text()) / 1e6 for zone in zones]

        def read():
            return [int((zone / 'energy_uj').read_text()) / 1e6 for zone in zones]

        read()
    except (OSError, ValueError):  # there, but only for root
        return None
    return Energy('RAPL', read, wraps) if zones else None


def _nvml(device: torch.device) -> Energy | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(f'GPU-{uuid}'.encode())

        def read():
            return [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3]

        read()
    except Exception:  # not installed, no driver, or a GPU older than Volta: each has its own error
        return None
    return Energy('NVML', read, [math.inf])
