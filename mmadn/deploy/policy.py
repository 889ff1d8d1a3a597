"""How slow the machine is, and which depth that asks for."""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np


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

    def __init__(
        self,
        patience: int = 15,
        misses: float = 0.02,
        window: int = 100,
        prior: float = 1.0,
        limit: float = math.inf,
    ):
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
        # This many ratios may be larger than the scatter, so that the next one is with probability `misses`.
        # It is one even where few are known, or a single outlier would count for the whole window.
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

    def __init__(
        self,
        medians_ms: Sequence[float],
        deadline_ms: float,
        patience: int = 15,
        headroom: float = 0.03,
        window: int = 100,
    ):
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
        self.overloaded = bool(self.medians_ms[0] * level * scatter > self.deadline_ms)
        self._fitted = np.where(roomy, self._fitted + 1, 0)
        self._since_climb += 1
        # The image before was at another depth and no surprise, but that before it was one at this depth.
        self.wrong_profile = surprise > 0 and self._since_dip == 1
        if self.wrong_profile:
            self._distrust(self.home - 1, self.window)
            self.home -= 1
        if fitting < self.home:
            if self._since_climb <= 2 * self.patience:
                self._distrust(fitting)
            self.home, self._since_dip = fitting, math.inf
        elif self._since_climb == 2 * self.patience:
            self._needed[: self.home + 1] //= 2
        ready = int(np.flatnonzero(self._fitted > self._needed).max(initial=0))
        if ready > self.home and not surprise:
            self.home, self._since_climb = ready, 0
        depth = min(self.home, self._deepest(max(surprise, level) * scatter))
        self._since_dip = 0 if depth < self.home else self._since_dip + 1
        return depth

    def _deepest(self, slowdown: float) -> int:
        return int(np.flatnonzero(self.medians_ms * slowdown <= self.deadline_ms).max(initial=0))

    def _distrust(self, home: int, images: int = 1) -> None:
        given_up = slice(home + 1, self.home + 1)
        self._fitted[given_up] = 0
        self._needed[given_up] = np.maximum(2 * self._needed[given_up], images)


class MeanPolicy:
    """Chooses depths so that the sum of all latencies comes closest to that many times a target.

    What the sum exceeds or lacks is carried on, but never more than `patience` images can settle at the
    profile's speed. So a time when no depth could hold the target is paid back only in part.
    """

    def __init__(self, medians_ms: Sequence[float], target_ms: float, patience: int = 15):
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
