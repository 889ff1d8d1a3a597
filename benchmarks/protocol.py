"""How contestants are measured: side by side, and compared by ratios within a round."""

import inspect
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import wraps

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from mmadn.errors import InputError
from mmadn.evaluation.prediction import check_dtype, precision
from mmadn.evaluation.timing import read_clock, summary, timed
from mmadn.utils.report import machine


@dataclass
class Settings:
    """How to measure.

    Args:
        shape: Channels, height and width of an image; the channels are 3.
        warmup: Rounds that are run first and not counted.
        clock: 'wall', or 'cpu' for the processor time of the process. That is steadier on a busy machine, and
            the same as the wall clock's where one thread has a core to itself.
        max_seconds: Ends the rounds before there are as many as `rounds`, but not before the first.
        dtype: 'float32', or 'bfloat16' or 'float16' for autocast.
        channels_last: Whether images and the weights of convolutions are laid out with their channels last.
        provider: What onnxruntime computes with; by default the device's own.

    Raises:
        ValueError: The channels are not 3, there is no such dtype, or the clock does not fit the device.
    """

    arch: str = 'resnet50'
    rounds: int = 100
    warmup: int = 3
    batch: int = 1
    shape: Sequence[int] = (3, 224, 224)
    device: str = 'cpu'
    clock: str = 'wall'
    max_seconds: float = math.inf
    dtype: str = 'float32'
    channels_last: bool = False
    provider: str | None = None

    def __post_init__(self):
        if self.shape[0] != 3:
            raise InputError(f'shape={tuple(self.shape)}: give 3 channels, height and width')
        read_clock(self.clock, self.device)
        check_dtype(self.dtype)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.preserve_format

    def images(self) -> torch.Tensor:
        """A batch of random images on the device."""
        images = torch.randn(self.batch, *self.shape, device=self.device)
        return images.to(memory_format=self.memory_format)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Runs a block without gradients, in the dtype."""
        # Under inference_mode autocast would convert all weights in each run anew.
        with torch.inference_mode(self.dtype == 'float32'), precision(self.device, self.dtype):
            yield


@dataclass
class Contestant:
    """One bar of the picture: `run` is timed; `prepare` comes before it and is not timed.

    Contestants of one `kind` have one colour, which the legend explains.
    """

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    kind: str = 'adaptive depth'


@dataclass
class Ratio:
    """The time of one contestant over the sum of the times of others, with an upper bound as its target."""

    of: str
    to: tuple[str, ...]
    target: float
    at_least = False

    @property
    def name(self) -> str:
        to = ' + '.join(self.to)
        return f'{self.of} / ({to})' if len(self.to) > 1 else f'{self.of} / {to}'

    def rounds(self, times: dict[str, list[float]]) -> np.ndarray:
        return np.asarray(times[self.of]) / np.sum([times[name] for name in self.to], axis=0)


@dataclass
class Gain:
    """The speed-up from the first to the second of one pair over that of another, with a lower bound."""

    of: tuple[str, str]
    to: tuple[str, str]
    target: float
    at_least = True

    @property
    def name(self) -> str:
        return f'speed-up of {self.of[1]} / the speed-up of {self.to[1]}'

    def rounds(self, times: dict[str, list[float]]) -> np.ndarray:
        slow, fast, other_slow, other_fast = (np.asarray(times[name]) for name in (*self.of, *self.to))
        return slow / fast / (other_slow / other_fast)


@dataclass
class Contest:
    """What `tools/benchmark.py` offers: a function of Settings, and defaults that suit it.

    `what` is measured, in a few words for a title.
    """

    run: Callable[[Settings], dict]
    what: str
    rounds: int
    batch: int
    takes: Sequence[str] = ()

    @property
    def help(self) -> str:
        return inspect.getdoc(self.run).splitlines()[0].rstrip('.')


CONTESTS: dict[str, Contest] = {}


def contest(what: str, rounds: int, batch: int, takes: Sequence[str] = ()) -> Callable:
    """Registers the decorated function of Settings as a contest under its name.

    Args:
        takes: Which of the settings `dtype`, `channels_last` and `provider` it can use. The contest raises
            ValueError if another one of them is not as by default.
    """
    refused = {'dtype', 'channels_last', 'provider'} - {*takes}

    def register(function: Callable[[Settings], dict]) -> Callable[[Settings], dict]:
        @wraps(function)
        def run(settings: Settings) -> dict:
            for name in sorted(refused):
                if (value := getattr(settings, name)) != getattr(Settings, name):
                    others = [other for other in CONTESTS if name in CONTESTS[other].takes]
                    raise InputError(
                        f'{name}={value!r}: the contest {function.__name__} cannot use it; leave it out, or '
                        f'take one of {", ".join(others)}'
                    )
            return function(settings)

        CONTESTS[function.__name__] = Contest(run, what, rounds, batch, takes)
        return run

    return register


def compete(
    name: str,
    settings: Settings,
    contestants: list[Contestant],
    ratios: list[Ratio | Gain] | Callable[[dict], list[Ratio | Gain]],
) -> dict:
    """Measures the contestants of the contest `name`.

    Args:
        ratios: What is compared with a target; or a function of the times of all rounds that gives it.

    Returns:
        Everything that `save` and `show` need, ready for JSON; times are in milliseconds.
    """
    times = measure(contestants, settings)
    ratios = ratios(times) if callable(ratios) else ratios
    limit = settings.max_seconds if math.isfinite(settings.max_seconds) else None  # JSON has no infinity
    return {
        'benchmark': name,
        'settings': {**asdict(settings), 'rounds': len(times[contestants[0].name]), 'max_seconds': limit},
        'machine': machine(settings.device),
        'kinds': {c.name: c.kind for c in contestants},
        'medians_ms': {name: summary(values) for name, values in times.items()},
        'ratios': {r.name: with_target(r.rounds(times), r.target, r.at_least) for r in ratios},
        'times_ms': times,
    }


def measure(contestants: list[Contestant], settings: Settings) -> dict[str, list[float]]:
    """Runs every contestant once a round, in random order, and shows the progress.

    Returns:
        For each contestant the milliseconds of all rounds but the warm-up ones.
    """
    times = {c.name: [] for c in contestants}
    order, total = random.Random(0), settings.warmup + settings.rounds
    clock, end = read_clock(settings.clock, settings.device), math.inf
    # Without auto_refresh, as the thread that draws would take its time from the contestant that runs.
    with Progress(console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task('benchmark', total=total)
        for index in range(total):
            if index == settings.warmup:
                end = time.monotonic() + settings.max_seconds
            elif time.monotonic() > end:
                break
            for contestant in order.sample(contestants, len(contestants)):
                contestant.prepare()
                with timed(settings.device, clock) as took:
                    contestant.run()
                if index >= settings.warmup:
                    times[contestant.name].append(took())
            progress.update(task, advance=1, refresh=True)
    return times


def with_target(values: Sequence[float], target: float, at_least: bool = False) -> dict:
    """A summary with its target, and whether the median is at most (or `at_least`) that."""
    numbers = summary(values)
    met = numbers['median'] >= target if at_least else numbers['median'] <= target
    return {**numbers, 'target': target, 'at_least': at_least, 'met': met}
