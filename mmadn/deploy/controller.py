"""A depth for each image of a stream: the latency keeps a deadline while the machine's speed changes."""

import math
import time
from collections import deque
from contextlib import contextmanager
from numbers import Real

from ..depth import AdaptiveDepth, adaptive_backbone
from ..errors import InputError
from ..evaluation.table import quality_of, read_table
from ..evaluation.timing import timed
from ..utils.report import pareto_front

MODES = ('deadline', 'target')


class DepthController:
    """Says which depth to use before each image, and learns the latency after it.

    A latency over the profile's median of its depth says how much slower the machine is now. Of these
    factors the median of three counts, so that one outlier is none, and of those medians the largest of
    the last `patience` images: the level rises within two images and sinks after `patience`. On top
    comes a margin, that which all but `misses` of the last 100 factors kept to the level before them. The
    depth is the best one whose median latency times level and margin keeps the deadline.

    Down it goes at once. An image beyond the margin is an alarm: the next one gets a depth that would
    have kept the deadline even then, and if it is as slow the level has risen, or else the former depth
    returns. If it is beyond the margin again, it is that depth's profile which does not hold, and it gets
    no images for 100, the next time for 200 and so on. Up it goes only with `headroom` to spare, and where a
    climb has to be taken back soon, `patience` doubles, up to sixteen times what it was.

    With `mode='target'` the mean latency is held instead: each depth is chosen so that the sum of all
    latencies comes closest to that many times the target.

    Only Pareto-optimal depths are used, of accuracy over latency if the table has accuracies.

    Args:
        table (Sequence[dict] | str | Path): With `skip`, `latency_p50_ms`, `latency_p95_ms` and a metric
            or `gflops`; or the path of a `profile.json`.
        deadline_ms (float): What no latency should exceed, or the mean latency to hold, in ms.
        mode (str): 'deadline' or 'target'.
        metric (str, optional): By which depths are better; the first of the table, or else `gflops`.
        patience (int): How many images a climb waits for.
        headroom (float): What a climb must leave of the deadline, as a part of it.
        misses (float): Which part of the images may miss the deadline.
        clock (Callable): Returns seconds; for tests.

    Raises:
        OSError: The table cannot be read.
        ValueError: It lacks a column, or another argument is out of range.
    """

    WINDOW, GROWTH, AGAIN, MEMORY = 100, 16, 3, 5

    def __init__(
        self,
        table,
        deadline_ms: float,
        mode: str = 'deadline',
        metric: str | None = None,
        patience: int = 15,
        headroom: float = 0.03,
        misses: float = 0.02,
        clock=time.perf_counter,
    ):
        rows = read_table(table)
        for name in ('latency_p50_ms', 'latency_p95_ms'):
            if not all(isinstance(row.get(name), Real) and row[name] > 0 for row in rows):
                raise InputError(
                    f'the table has no {name} in every row; tools/profile_subnets.py measures it'
                )
        if mode not in MODES:
            raise InputError(f'mode={mode!r}: give one of {", ".join(MODES)}')
        if not isinstance(deadline_ms, Real) or not math.isfinite(deadline_ms) or deadline_ms <= 0:
            raise InputError(f'deadline_ms={deadline_ms!r}: give a number above 0')
        if type(patience) is not int or patience < 1:
            raise InputError(f'patience={patience!r}: give a whole number from 1 on')
        for name, value in dict(headroom=headroom, misses=misses).items():
            if not 0 <= value < 1:
                raise InputError(f'{name}={value!r}: give a number from 0 to below 1')
        self.rows = pareto_front(rows, 'latency_p50_ms', quality_of(rows, metric))
        self.deadline_ms, self.mode, self.headroom, self.allowed = deadline_ms, mode, headroom, misses
        self.frames = self.missed = self.overloaded_frames = 0
        self._clock, self._patience, self._least = clock, patience, patience
        self._medians_ms = [row['latency_p50_ms'] for row in self.rows]
        self._factors = deque([1.0, 1.0], maxlen=3)
        self._levels = deque([1.0], maxlen=patience * self.GROWTH)
        self._ratios = deque(maxlen=self.WINDOW)
        self._prior = max(row['latency_p95_ms'] / row['latency_p50_ms'] for row in self.rows)
        self._level, self._margin = 1.0, max(1.0, self._prior)
        self._alarm = None  # after a factor beyond the margin: the depth before it, and its ratio
        self._climbed = self._returned = -math.inf  # when it last did; a climb, until it has proved right
        # From which depth on none is used, until when, and for how long the next time.
        self._barred, self._until, self._term = len(self.rows), 0, self.WINDOW
        self._sum_ms = self._excess_ms = 0.0
        self._index, self.overloaded = 0, False
        self._choose(self._level, climb=True)

    @property
    def skip(self) -> str:
        """The depth that the next image gets."""
        return self.rows[self._index]['skip']

    @property
    def slowdown(self) -> float:
        """By which factor the machine is slower than when the table was measured, as far as is known."""
        return self._level

    @property
    def predicted_ms(self) -> float:
        """What the next latency should not exceed."""
        return self._medians_ms[self._index] * self._level * self._margin

    @property
    def mean_error_ms(self) -> float:
        """By how much the mean latency so far misses `deadline_ms`, which is what `mode='target'` holds."""
        return abs(self._sum_ms / self.frames - self.deadline_ms) if self.frames else math.nan

    def next(self) -> str:
        """The depth for the next image. Where none keeps the deadline, `overloaded` is true, and it is the
        fastest; `overloaded_frames` counts such images."""
        return self.skip

    def learn(self, latency_ms: float) -> None:
        """Takes the latency of the image that got the depth of `next`; raises ValueError if it is none."""
        if not isinstance(latency_ms, Real) or not math.isfinite(latency_ms) or latency_ms <= 0:
            raise InputError(f'latency_ms={latency_ms!r}: give a number above 0')
        self.frames += 1
        self.missed += latency_ms > self.deadline_ms
        self.overloaded_frames += self.overloaded
        self._sum_ms += latency_ms
        self._excess_ms += latency_ms - self.deadline_ms
        factor = latency_ms / self._medians_ms[self._index]
        if self.mode == 'target':
            self._see(factor)
            self._balance()
            return
        ratio, alarm = factor / self._level, self._alarm
        beyond = ratio > self._margin
        if alarm and not beyond:
            self._note(alarm[1])  # it was an outlier; otherwise the machine has changed, which is no jitter
        if not beyond:
            self._note(ratio)
        # What no depth would have held says nothing about which one to choose.
        hopeless = factor * self._medians_ms[0] > self.deadline_ms
        self._alarm = (self._index, None if hopeless else ratio) if beyond and not alarm else None
        self._see(factor)
        before = self._index
        self._choose(max(factor, self._level) if self._alarm else self._level, climb=not alarm)
        if alarm and not beyond:
            self._return_to(alarm[0])
        elif not alarm and not self._alarm:
            self._judge(before)

    @contextmanager
    def frame(self, model=None):
        """Runs one image: sets the depth, times the block and learns its latency.

        The depth stays when the block ends. Nothing is learnt from a block that raises.

        Args:
            model (nn.Module, optional): A classifier or detector, or a backbone; without one the caller
                sets the depth: `with controller.frame() as skip: session.run(image, skip)`.

        Yields:
            str: The depth.

        Raises:
            TypeError: The model has no adaptive depth.
            ValueError: The table is of a network with another number of stages.
        """
        skip, device = self.next(), 'cpu'
        if model is not None:
            backbone = model if isinstance(model, AdaptiveDepth) else adaptive_backbone(model)
            if len(skip) != backbone.num_skippable_stages:
                raise InputError(
                    f'the table is of a network with {len(skip)} skippable stages, and this backbone has '
                    f'{backbone.num_skippable_stages}: profile this one'
                )
            backbone.set_skip(skip)
            device = next(backbone.parameters()).device
        with timed(device, self._clock) as took:
            yield skip
        self.learn(took())

    def _see(self, factor):
        self._factors.append(factor)
        self._levels.append(sorted(self._factors)[1])
        self._level = max(list(self._levels)[-self._patience :])

    def _note(self, ratio):
        if ratio is None:
            return
        self._ratios.append(ratio)
        # As many larger ones that the next exceeds it with probability `misses`; but a single outlier among
        # few is one of these too.
        larger = math.floor(self.allowed * (len(self._ratios) + 1)) - 1
        larger = min(max(larger, 1 if self.allowed else 0), len(self._ratios) - 1)
        margin = sorted(self._ratios)[-1 - larger]
        # Until there are enough to tell, the profile's own jitter counts too.
        self._margin = max(1.0, margin, self._prior if 2 * len(self._ratios) < self.WINDOW else 1.0)

    def _fitting(self, level, part=1.0):
        """The best depth that keeps so much of the deadline, or None."""
        limit = self.deadline_ms * part / (level * self._margin)
        return max((i for i, median in enumerate(self._medians_ms) if median <= limit), default=None)

    def _choose(self, level, climb):
        best = self._fitting(level)
        self.overloaded = best is None
        if best is None or best < self._index:
            self._index = best or 0
        elif climb:
            best = self._fitting(level, 1 - self.headroom) or 0
            self._index = max(self._index, min(best, self._barred - 1) if self.frames < self._until else best)

    def _return_to(self, index):
        # Outliers at one depth alone are none: it is slower than its profile says.
        if self.frames - self._returned <= self.AGAIN:
            self._barred, self._until = index, self.frames + self._term
            self._term = min(2 * self._term, self.GROWTH * self.WINDOW)
            return
        best = self._fitting(self._level)
        self._index = max(self._index, min(index, best or 0))
        self._returned = self.frames

    def _judge(self, before):
        recent = self.frames - self._climbed <= self._patience
        if self._index > before:
            self._climbed = self.frames
        elif self._index < before and recent:
            self._patience = min(2 * self._patience, self.GROWTH * self._least)
            self._climbed = -math.inf
        elif not recent and self._climbed > -math.inf:  # it lasts
            self._patience = max(self._least, self._patience // 2)
            self._climbed = -math.inf
            self._term = self.WINDOW if self._index >= self._barred else self._term

    def _balance(self):
        # A debt or a surplus from a time when no depth could hold the target is not paid back for long.
        most = self.MEMORY * self.deadline_ms
        self._excess_ms = min(max(self._excess_ms, -most), most)
        level = self._levels[-1]
        after = [abs(self._excess_ms + median * level - self.deadline_ms) for median in self._medians_ms]
        self._index = after.index(min(after))
        self.overloaded = self._medians_ms[0] * level > self.deadline_ms
