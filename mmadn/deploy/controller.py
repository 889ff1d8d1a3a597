"""A depth for each image of a stream: the latency keeps a deadline while the machine's speed changes."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..evaluation.table import quality_of, read_table
from ..evaluation.timing import timed
from ..utils.report import pareto_front
from .policy import DeadlinePolicy, MeanPolicy, Slowdown

if TYPE_CHECKING:
    from torch import nn

MODES = ('deadline', 'target')


class DepthController:
    """Says which depth to use before each image, and learns the latency after it.

    `Slowdown` estimates the machine's present speed, and from this a policy chooses a depth:
    `DeadlinePolicy`, or with `mode='target'` `MeanPolicy`. Only Pareto-optimal depths are used, of accuracy
    over latency if the table has accuracies.

    Args:
        table: Rows with `skip`, `latency_p50_ms`, `latency_p95_ms` and a metric or `gflops`; or the path of
            a `profile.json`.
        deadline_ms: What no latency should exceed, or the mean latency to hold, in ms.
        mode: 'deadline' or 'target'.
        metric: The column that says which depths are better. By default it is the table's first metric, and
            `gflops` if there is none.
        patience: How many images the machine has to stay faster before a climb, and how many a climb has to
            last.
        headroom: The part of the deadline that a climb has to leave free.
        misses: The part of the images that may miss the deadline.
        window: On how many images the scatter of latencies is measured, and for how many a depth that is
            slower than its profile says is given up at first.
        clock: Returns seconds.

    Attributes:
        rows (list[dict]): The rows of the depths that it chooses from, fastest first.
        frames, missed, overloaded_frames (int): How many images there were; how many missed the deadline; and
            for how many no depth was expected to keep it, so that they got the fastest.

    Raises:
        OSError: The table cannot be read.
        ValueError: It lacks a column, or another argument is out of range.
    """

    def __init__(
        self,
        table: Sequence[dict] | str | Path,
        deadline_ms: float,
        mode: str = 'deadline',
        metric: str | None = None,
        patience: int = 15,
        headroom: float = 0.03,
        misses: float = 0.02,
        window: int = 100,
        clock: Callable[[], float] = time.perf_counter,
    ):
        rows = read_table(table)
        for name in ('latency_p50_ms', 'latency_p95_ms'):
            if not all(isinstance(row.get(name), Real) and row[name] > 0 for row in rows):
                raise InputError(
                    f'the table has no {name} in every row; tools/profile_subnets.py measures it'
                )
        if mode not in MODES:
            raise InputError(f'mode={mode!r}: give one of {", ".join(MODES)}')
        _check_above_0('deadline_ms', deadline_ms)
        for name, value in dict(patience=patience, window=window).items():
            if type(value) is not int or value < 1:
                raise InputError(f'{name}={value!r}: give a whole number from 1 on')
        for name, value in dict(headroom=headroom, misses=misses).items():
            if not 0 <= value < 1:
                raise InputError(f'{name}={value!r}: give a number from 0 to below 1')
        self.rows = pareto_front(rows, 'latency_p50_ms', quality_of(rows, metric))
        self.deadline_ms, self.mode = deadline_ms, mode
        self.frames = self.missed = self.overloaded_frames = 0
        self._clock, self._sum_ms = clock, 0.0
        self._medians_ms = [row['latency_p50_ms'] for row in self.rows]
        jitter = max(row['latency_p95_ms'] / row['latency_p50_ms'] for row in self.rows)
        # What not even the fastest depth would have held does not say which depth to choose.
        self._machine = Slowdown(patience, misses, window, jitter, limit=deadline_ms / self._medians_ms[0])
        if mode == 'deadline':
            self._policy = DeadlinePolicy(self._medians_ms, deadline_ms, patience, headroom, window)
            self._index = self._policy.choose(self._machine.level, self._machine.scatter)
        else:
            self._policy = MeanPolicy(self._medians_ms, deadline_ms, patience)
            self._index = self._policy.choose(self._machine.now)

    @property
    def skip(self) -> str:
        """The depth that the next image gets."""
        return self.rows[self._index]['skip']

    @property
    def overloaded(self) -> bool:
        """Whether no depth is expected to keep the deadline for the next image. It gets the fastest then."""
        return self._policy.overloaded

    @property
    def slowdown(self) -> float:
        """By which factor the machine is slower than when the table was measured, as far as is known."""
        return self._machine.level

    @property
    def predicted_ms(self) -> float:
        """What the next latency is not expected to exceed."""
        return self._medians_ms[self._index] * self._machine.level * self._machine.scatter

    @property
    def mean_error_ms(self) -> float:
        """How far the mean latency so far is from `deadline_ms`, which `mode='target'` holds."""
        return abs(self._sum_ms / self.frames - self.deadline_ms) if self.frames else math.nan

    def next(self) -> str:
        """The depth for the next image, as `skip`."""
        return self.skip

    def learn(self, latency_ms: float) -> None:
        """Takes the latency of the image that got the depth of `next`; raises ValueError if it is none."""
        _check_above_0('latency_ms', latency_ms)
        self.frames += 1
        self.missed += latency_ms > self.deadline_ms
        self.overloaded_frames += self.overloaded
        self._sum_ms += latency_ms
        machine = self._machine
        surprise = machine.add(latency_ms / self._medians_ms[self._index])
        if self.mode == 'deadline':
            self._index = self._policy.choose(machine.level, machine.scatter, surprise)
            if self._policy.wrong_profile:
                machine.discount()
        else:
            self._index = self._policy.choose(machine.now, latency_ms - self.deadline_ms)

    @contextmanager
    def frame(self, model: 'nn.Module | None' = None) -> Iterator[str]:
        """Runs one image: sets the depth, times the block and learns its latency.

        The depth stays when the block ends. Nothing is learnt from a block that raises.

        Args:
            model: A classifier or detector, or a backbone. Without one the caller sets the depth:
                `with controller.frame() as skip: session(image, skip)`.

        Yields:
            The depth.

        Raises:
            TypeError: The model has no adaptive depth.
            ValueError: The table is of a network with another number of stages.
        """
        skip, device = self.next(), 'cpu'
        if model is not None:
            from ..depth import depth_of  # here, because files run without torch

            depth = depth_of(model)
            if len(skip) != depth.num_skippable_stages:
                raise InputError(
                    f'the table is of a network with {len(skip)} skippable stages, and this one has '
                    f'{depth.num_skippable_stages}: profile this one'
                )
            depth.set_skip(skip)
            device = next(depth.parameters()).device
        with timed(device, self._clock) as took:
            yield skip
        self.learn(took())


def _check_above_0(name: str, value: float) -> None:
    if not isinstance(value, Real) or not math.isfinite(value) or value <= 0:
        raise InputError(f'{name}={value!r}: give a number above 0')
