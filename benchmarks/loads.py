"""Invented loads for streams: how slow the machine is at each image, and two ways to make it so slow."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np

from mmadn.errors import InputError
from mmadn.evaluation.timing import timed

PATTERNS = ('none', 'steps', 'saw', 'noise', 'spikes')


def load_pattern(name: str, frames: int, high: float = 1.5, period: int = 100, seed: int = 0) -> np.ndarray:
    """By which factor the machine is slower at each image.

    Args:
        name: 'none'; 'steps', half a period of 1 and then of `high`; 'saw', a rise from 1 to `high` over each
            period; 'noise', a random walk between them; 'spikes', `high` at 1 % of the images, each alone.
        high: The largest factor, at least 1.
        period: In images.

    Returns:
        Of shape (frames,), each from 1 to `high`.

    Raises:
        ValueError: The name is unknown, or a number is out of range.
    """
    if name not in PATTERNS:
        raise InputError(f'load={name!r}: give one of {", ".join(PATTERNS)}')
    if high < 1 or frames < 1 or period < 2:
        raise InputError(
            f'frames={frames}, high={high}, period={period}: give at least 1 frame, a factor of at least 1 '
            'and a period of at least 2 frames'
        )
    generator, phase = np.random.default_rng(seed), np.arange(frames) % period / period
    if name == 'steps':
        part = (phase >= 0.5).astype(float)
    elif name == 'saw':
        part = phase
    elif name == 'noise':
        walk = np.cumsum(generator.normal(0, 1 / np.sqrt(period), frames))
        part = np.abs((walk + 1) % 2 - 1)  # reflected at 0 and 1
    elif name == 'spikes':
        part = (generator.random(frames) < 0.01).astype(float)
    else:
        part = np.zeros(frames)
    return 1 + (high - 1) * part


def default_deadline(rows: list[dict], high: float) -> float:
    """What the fastest depth keeps by its 95th percentile under the load `high`, and 10 % more, in ms."""
    return 1.1 * high * min(row['latency_p95_ms'] for row in rows)


class Spin:
    """A simulated load: after each image it spins until the image has taken `factor` times as long.

    Args:
        clock: Returns seconds. The images are timed by it.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock, self.factor = clock, 1.0

    def at(self, factor: float) -> None:
        self.factor = factor

    @contextmanager
    def image(self, device) -> Iterator[None]:
        start = self.clock()
        with timed(device, self.clock) as took:
            yield
        end = start + self.factor * took() / 1000
        while self.clock() < end:
            pass

    def close(self) -> None:
        pass


class Burners:
    """A real load: processes that compute for a part of the time and sleep for the rest.

    The factor only says how large this part is: 0 for a factor of 1, and 1 for a factor of `high`. How much
    longer images take is up to the machine's scheduler.

    Args:
        high: The largest factor.
        processes: How many; by default one for each core.
    """

    # Run by itself, it imports little so as to start at once. It ends when its input is closed, and so also
    # when this process is killed.
    CODE = """
import os, select, time
part = 0.0
while True:
    end = time.perf_counter() + 0.01 * part
    while time.perf_counter() < end:
        pass
    if select.select([0], [], [], 0.01 * (1 - part))[0]:
        text = os.read(0, 65536)
        if not text:
            break
        part = float(text.split()[-1])
"""

    def __init__(self, high: float, processes: int | None = None):
        self.high, self.part = high, 0.0
        self.processes = [
            subprocess.Popen([sys.executable, '-c', self.CODE], stdin=subprocess.PIPE)
            for _ in range(processes or os.cpu_count())
        ]

    def at(self, factor: float) -> None:
        part = min(1.0, (factor - 1) / (self.high - 1)) if self.high > 1 else 0.0
        if part != self.part:
            self.part = part
            for process in self.processes:
                process.stdin.write(f'{part:.6f}\n'.encode())
                process.stdin.flush()

    def image(self, device) -> AbstractContextManager:
        return nullcontext()

    def close(self) -> None:
        for process in self.processes:
            process.stdin.close()
            process.wait()


@contextmanager
def slow_down(
    by: str, high: float, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Spin | Burners]:
    """What `mmadn.deploy.stream.run` takes as `slower`. It ends with the block.

    Args:
        by: 'simulated' for a `Spin`, or 'processes' for `Burners`.
    """
    slower = Burners(high) if by == 'processes' else Spin(clock)
    try:
        yield slower
    finally:
        slower.close()
