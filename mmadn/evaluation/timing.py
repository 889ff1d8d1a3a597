"""A stopwatch for what runs on a device, rounds of timings until they are steady, and what they say.

Torch is imported only to wait for a GPU, because what runs exported files is timed without it.
"""

import math
import random
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import torch

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


def read_clock(name: str, device) -> Callable[[], float]:
    """The clock of that name, in seconds; raises ValueError if there is none or not for this device."""
    if name not in CLOCKS:
        raise InputError(f'clock={name!r}: give one of {", ".join(CLOCKS)}')
    if name == 'cpu' and not str(device).startswith('cpu'):
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
    if str(device).startswith('cuda'):
        import torch

        torch.cuda.synchronize(device)


def interleaved(
    steps: dict[str, tuple[Callable, Callable]],
    device: 'str | torch.device',
    spread: float = 0.02,
    min_rounds: int = 50,
    max_seconds: float = 300,
    clock: str = 'wall',
    progress: Callable[[str], object] = print,
) -> tuple[dict[str, list[float]], dict]:
    """Times several things in turn, until the median of each is known.

    Everything runs once a round, in a new random order each time, so that a disturbance of the machine
    meets all alike. After two rounds of warm-up the rounds go on until the 95 % interval of every median
    lies within `spread` of it, but for at least `min_rounds` and at most `max_seconds`.

    Args:
        steps: For each name what prepares it, which is not timed, and what is timed.
        spread: As a part of the median, on either side of it.
        clock: One of CLOCKS.
        progress: Takes a line on the progress every ten seconds.

    Returns:
        The milliseconds of all rounds by name; and how they ended: `ended`, which is 'spread' or 'time',
        `rounds`, and the `widest` interval as a part of its median, None after too few rounds to tell.
    """
    order, read = random.Random(0), read_clock(clock, device)
    times = {name: [] for name in steps}

    def one_round() -> None:
        for name in order.sample(list(steps), len(steps)):
            prepare, run = steps[name]
            prepare()
            with timed(device, read) as took:
                run()
            times[name].append(took())

    start = told = time.monotonic()
    for _ in range(2):
        one_round()
    for values in times.values():
        values.clear()
    warm = time.monotonic()
    rounds, widest, ended = 0, math.inf, None
    while ended is None:
        one_round()
        rounds, now = rounds + 1, time.monotonic()
        if rounds % 10 == 0 or rounds < 10:  # not in every round, for it sorts all times
            widest = max(map(_spread, times.values()))
        if rounds >= min_rounds and widest <= spread:
            ended = 'spread'
        elif now - start + (now - warm) / rounds > max_seconds:  # the next round would end too late
            ended = 'time'
        elif now - told > 10:
            told = now
            progress(
                f'round {rounds} of at least {min_rounds}, medians within ±{widest:.1%} (±{spread:.1%} ends '
                f'it), {now - start:.0f} s of at most {max_seconds:g} s'
            )
    widest = max(map(_spread, times.values()))
    return times, dict(ended=ended, rounds=rounds, widest=widest if math.isfinite(widest) else None)


def _spread(values: list[float]) -> float:
    if len(values) < 6:  # of fewer, no two hold the median 19 times out of 20
        return math.inf
    numbers = summary(values)
    low, median, high = (numbers[name] for name in ('low', 'median', 'high'))
    return max(high - median, median - low) / median


def summary(values) -> dict:
    """Median, quartiles, and the interval that holds the true median 19 times out of 20."""
    values = np.sort(np.asarray(values, dtype=float))
    n, half = len(values), 0.98 * math.sqrt(len(values))  # ranks of a binomial, p = 1/2
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
    low = values[max(math.floor(n / 2 - half), 1) - 1]
    high = values[min(math.ceil(n / 2 + 1 + half), n) - 1]
    numbers = dict(median=median, q1=q1, q3=q3, low=low, high=high)
    return {name: float(value) for name, value in numbers.items()}
