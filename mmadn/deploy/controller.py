"""A depth for each image of a stream: the latency keeps a deadline while the machine's speed changes."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path

import numpy as np
from torch import nn

from ..depth import AdaptiveDepth, adaptive_backbone
from ..errors import InputError
from ..evaluation.select import quality_of, read_table
from ..evaluation.timing import timed
from ..utils.report import pareto_front

MODES = ('deadline', 'target')


class Slowdown:
    """Estimates how slow the machine is now, and how much single images scatter about that.

    It takes a factor for each image: the latency over the profile's median of the depth that the image got.
    One slow image says little about the machine but two in a row do, so the lesser factor of each two counts.

    Args:
        patience: A slow machine is remembered for this many images.
        misses: The part of all images that may scatter further than `scatter`.
        window: The scatter is measured on this many images.
        prior: The scatter is taken to be no smaller than this until half a window is measured.
        limit: A factor above this one is not counted as scatter.

    Attributes:
        now (float): The mean factor of the last two images.
        level (float): The largest of the lesser factors in memory: 1 at the profile's speed, 2 at half of it.
        scatter (float): All images but `misses` of them stay below `level` times this. It is at least 1.
    """

    def __init__(self, patience=15, misses=0.02, window=100, prior=1.0, limit=math.inf):
        self.now, self.level, self.scatter = 1.0, 1.0, max(1.0, prior)
        self._misses, self._prior, self._limit = misses, prior, limit
        self._last, self._level_before = 1.0, 1.0  # the last factor, and the level before it
        self._lesser = deque([1.0], maxlen=patience)
        self._ratios = deque(maxlen=window)  # of a factor to the level before it

    def add(self, factor: float) -> float:
        """Takes the factor of the next image. Returns it if it is beyond what was expected, and else 0."""
        surprise = factor if factor > self.level * self.scatter else 0.0
        lesser = min(self._last, factor)
        # If both are beyond what was expected, the machine has become slower, which is no scatter.
        if lesser <= self._level_before * self.scatter and self._last <= self._limit:
            self._ratios.append(self._last / self._level_before)
            self.scatter = self._quantile()
        self.now = (self._last + factor) / 2
        self._last, self._level_before = factor, self.level
        self._lesser.append(lesser)
        self.level = max(self._lesser)
        return surprise

    def discount(self) -> None:
        """Takes the last factor back: it says something about that depth, and nothing about the machine."""
        self._last = self._level_before

    def _quantile(self) -> float:
        count = len(self._ratios)
        # So many may be larger that the next one is with probability `misses`; and one may be in any case,
        # because a single outlier among few would count for the whole window otherwise.
        larger = max(math.floor(self._misses * (count + 1)) - 1, 1 if self._misses else 0)
        measured = sorted(self._ratios)[max(count - 1 - larger, 0)]
        return max(1.0, measured, self._prior if 2 * count < self._ratios.maxlen else 1.0)


class DeadlinePolicy:
    """Chooses the deepest depth that keeps a deadline under an estimated slowdown.

    It goes down at once, and up as soon as a deeper depth fits with headroom. After a surprise it dips for
    one image, to a depth that would have kept the deadline even then.

    A climb that does not last was a mistake. The depths that are given up then have to fit for more images in
    a row before the next climb to them: for two, after the next mistake for three, then for five, nine and so
    on. A climb that lasts halves this again. A depth that surprises both before and after a dip is slower
    than its profile says and is given up too.

    Args:
        medians_ms: The latency of each depth at the profile's speed, in ascending order.
        patience: A climb lasts if it is not taken back within twice as many images.
        headroom: The part of the deadline that a climb has to leave free.
        window: A depth that is slower than its profile says has to fit for more than this many images.

    Attributes:
        home (int): The depth that a dip returns to.
        wrong_profile (bool): Whether the last image was at a depth that is slower than its profile says.
        overloaded (bool): Whether not even the fastest depth is expected to keep the deadline.
    """

    def __init__(self, medians_ms: Sequence[float], deadline_ms: float, patience=15, headroom=0.03, window=100):
        self.medians_ms, self.deadline_ms = np.asarray(medians_ms), deadline_ms
        self.patience, self.headroom, self.window = patience, headroom, window
        self.home, self.overloaded, self.wrong_profile = 0, False, False
        self._fitted = np.zeros(len(medians_ms), int)  # for how many images in a row each depth has fitted
        self._needed = np.zeros(len(medians_ms), int)  # what this has to exceed before a climb
        self._since_climb = self._since_dip = math.inf  # in images

    def choose(self, level: float, scatter: float, surprise: float = 0.0) -> int:
        """The depth for the next image, as an index of `medians_ms`.

        Args:
            level, scatter, surprise: From the `Slowdown`.
        """
        fitting = self._deepest(level * scatter)
        roomy = self.medians_ms * level * scatter <= self.deadline_ms * (1 - self.headroom)
        self.overloaded = self.medians_ms[0] * level * scatter > self.deadline_ms
        self._fitted = np.where(roomy, self._fitted + 1, 0)
        self._since_climb += 1
        # The image before was at another depth and no surprise, but that before it was one at this depth.
        self.wrong_profile = surprise > 0 and self._since_dip == 1
        if self.wrong_profile:
            self._give_up(self.home - 1, self.window)
        if fitting < self.home and self._since_climb <= 2 * self.patience:
            self._give_up(fitting)
        elif self._since_climb == 2 * self.patience:
            self._needed[: self.home + 1] //= 2
        ready = np.flatnonzero(self._fitted > self._needed).max(initial=0)
        if ready > self.home and not surprise:
            self.home, self._since_climb = ready, 0
        self.home = min(self.home, fitting)
        depth = min(self.home, self._deepest(max(surprise, level) * scatter))
        self._since_dip = 0 if depth < self.home else self._since_dip + 1
        return int(depth)

    def _deepest(self, slowdown: float) -> int:
        return np.flatnonzero(self.medians_ms * slowdown <= self.deadline_ms).max(initial=0)

    def _give_up(self, home: int, images: int = 1) -> None:
        given_up = slice(home + 1, self.home + 1)
        self._fitted[given_up] = 0
        self._needed[given_up] = np.maximum(2 * self._needed[given_up], images)
        self.home = home


class MeanPolicy:
    """Chooses depths so that the sum of all latencies comes closest to that many times a target.

    What the sum exceeds or lacks is carried on, but never more than `patience` images can settle at the
    profile's speed. A time when no depth could hold the target is so paid back only in part.
    """

    def __init__(self, medians_ms: Sequence[float], target_ms: float, patience=15):
        self.medians_ms, self.target_ms, self.overloaded = medians_ms, target_ms, False
        self._most = patience * max(target_ms - medians_ms[0], 0.0)
        self._least = patience * min(target_ms - medians_ms[-1], 0.0)
        self._excess_ms = 0.0

    def choose(self, now: float, excess_ms: float = 0.0) -> int:
        """The depth for the next image, as an index of `medians_ms`.

        Args:
            now: Of the `Slowdown`.
            excess_ms: By how much the last latency was above the target.
        """
        self._excess_ms = min(max(self._excess_ms + excess_ms, self._least), self._most)
        self.overloaded = self.medians_ms[0] * now > self.target_ms
        off = [abs(self._excess_ms + median * now - self.target_ms) for median in self.medians_ms]
        return off.index(min(off))


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
    def frame(self, model: nn.Module | None = None) -> Iterator[str]:
        """Runs one image: sets the depth, times the block and learns its latency.

        The depth stays when the block ends. Nothing is learnt from a block that raises.

        Args:
            model: A classifier or detector, or a backbone. Without one the caller sets the depth:
                `with controller.frame() as skip: session.run(image, skip)`.

        Yields:
            The depth.

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


def _check_above_0(name: str, value: float) -> None:
    if not isinstance(value, Real) or not math.isfinite(value) or value <= 0:
        raise InputError(f'{name}={value!r}: give a number above 0')
