"""A stopwatch for what runs on a device, and what many timings say."""

import math
import time
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch

from ..errors import InputError

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


def read_clock(name: str, device) -> Callable[[], float]:
    """The clock of that name, in seconds; raises ValueError if there is none or not for this device."""
    if name not in CLOCKS:
        raise InputError(f'clock={name!r}: give one of {", ".join(CLOCKS)}')
    if name == 'cpu' and torch.device(device).type != 'cpu':
        raise InputError(f"clock='cpu' does not see what {device} does; give 'wall'")
    return CLOCKS[name]


@contextmanager
def timed(device='cpu', clock=time.perf_counter):
    """Times a block with all that it starts on the device; yields a function that returns the ms after it."""
    took = []
    _synchronize(device)
    start = clock()
    yield lambda: took[0]
    _synchronize(device)
    took.append((clock() - start) * 1000)


def _synchronize(device):
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


def summary(values) -> dict:
    """Median, quartiles, and the interval that holds the true median 19 times out of 20."""
    values = np.sort(np.asarray(values, dtype=float))
    n, half = len(values), 0.98 * math.sqrt(len(values))  # ranks of a binomial, p = 1/2
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
    low = values[max(math.floor(n / 2 - half), 1) - 1]
    high = values[min(math.ceil(n / 2 + 1 + half), n) - 1]
    numbers = dict(median=median, q1=q1, q3=q3, low=low, high=high)
    return {name: float(value) for name, value in numbers.items()}
