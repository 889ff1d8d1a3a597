"""A stream of images under a deadline: its images, loads, simulated and real runs, and their picture."""

import itertools
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import cv2
import matplotlib
import mmcv
import numpy as np
import torch

from ..depth import adaptive_backbone
from ..errors import InputError
from ..evaluation.profile import precision, predict, prepare, rehearse
from ..evaluation.select import read_table
from ..evaluation.timing import timed
from ..utils.report import BLUE, GREY, VERMILION, machine, replacing, write_json
from .controller import DepthController

matplotlib.use('Agg')
from matplotlib import pyplot  # noqa: E402

PATTERNS = ('none', 'steps', 'saw', 'noise', 'spikes')
SETTLING = 3  # images after a rise of the load that no controller can foresee or has had time for
MISSES = 0.02  # in steady state, of whatever is said to keep the deadline
CONTROLLER = 'controller'
IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def load_pattern(name: str, frames: int, high: float = 1.5, period: int = 100, seed: int = 0) -> np.ndarray:
    """By which factor the machine is slower at each image.

    Args:
        name (str): 'none'; 'steps', half a period of 1 and then of `high`; 'saw', a rise from 1 to
            `high` over each period; 'noise', a random walk between them; 'spikes', `high` at 1 % of
            the images, each alone.
        high (float): At least 1.

    Returns:
        np.ndarray: (frames,), each from 1 to `high`.

    Raises:
        ValueError: An unknown name, or a number out of range.
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


def simulate(table, deadline_ms: float, load, jitter=0.03, seed: int = 0, **kwargs) -> list[dict]:
    """Runs a DepthController, and each of its depths alone, without a network or a clock.

    A latency is the median of the depth times the load times a random factor, which at each image is
    the same for all.

    Args:
        table, deadline_ms: See DepthController.
        load (Sequence[float]): See `load_pattern`.
        jitter (float): Standard deviation of the logarithm of the random factor.
        **kwargs: Of the DepthController.

    Returns:
        list[dict]: As from `run`.
    """
    rows = {row['skip']: row for row in read_table(table)}
    load = np.asarray(load, dtype=float)
    factors = load * np.exp(np.random.default_rng(seed).normal(0, jitter, len(load)))
    controller = DepthController(table, deadline_ms, **kwargs)
    fixed = [row['skip'] for row in controller.rows]
    frames = []
    for i, factor in enumerate(map(float, factors)):
        skip = controller.next()
        controller.learn(rows[skip]['latency_p50_ms'] * factor)
        frames += [_record(i, load[i], CONTROLLER, skip, rows[skip]['latency_p50_ms'] * factor)]
        frames += [_record(i, load[i], name, name, rows[name]['latency_p50_ms'] * factor) for name in fixed]
    return frames


def run(
    model,
    images: Iterator[np.ndarray],
    controller: DepthController,
    load,
    slower,
    fixed=(),
    dtype: str = 'float32',
    clock: Callable[[], float] = time.perf_counter,
    say: Callable[[str], object] = print,
) -> list[dict]:
    """Runs a stream by a real clock: the controller, and fixed depths to compare with, on the same images.

    At each image the controller and the fixed depths take their turns in random order, all under the
    same load. What is timed is `mmadn.evaluation.profile.predict`, without reading and preprocessing.

    Args:
        model (nn.Module): A classifier or detector with adaptive depth, in eval mode.
        images (Iterator[np.ndarray]): From `read_images`.
        load (Sequence[float]): For each image the factor, see `load_pattern`.
        slower (Spin | Burners): What makes the machine slower.
        fixed (Sequence[str]): Depths.
        dtype, say: See `profile_subnets`.
        clock (Callable): Returns seconds.

    Returns:
        list[dict]: `frame`, `load`, `policy` ('controller' or a fixed depth), `skip` and `latency_ms`.
    """
    backbone = adaptive_backbone(model)
    device = next(model.parameters()).device
    order, told, records = random.Random(0), time.monotonic(), []
    with precision(device, dtype):
        for i, (image, factor) in enumerate(zip(images, map(float, load), strict=False)):
            data = prepare(model, torch.from_numpy(image).to(device)[None])
            for skip in [row['skip'] for row in controller.rows] if i == 0 else ():
                backbone.set_skip(skip)
                rehearse(model, data, dtype)
            slower.at(factor)
            for policy in order.sample([CONTROLLER, *fixed], 1 + len(fixed)):
                skip = controller.next() if policy == CONTROLLER else policy
                backbone.set_skip(skip)
                with timed(device, clock) as took, slower.image(device):
                    predict(model, data)
                if policy == CONTROLLER:
                    controller.learn(took())
                records.append(_record(i, factor, policy, skip, took()))
            if time.monotonic() - told > 10:
                told = time.monotonic()
                say(f'image {i + 1} of {len(load)}, {controller.missed} over {controller.deadline_ms:.4g} ms')
    slower.at(1.0)
    return records


def _record(frame, load, policy, skip, latency_ms):
    return dict(frame=frame, load=float(load), policy=policy, skip=skip, latency_ms=float(latency_ms))


class Spin:
    """A simulated slow-down: after an image, spins until it has taken `factor` times what it did.

    Args:
        clock (Callable): Returns seconds, by which images are timed.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock, self.factor = clock, 1.0

    def at(self, factor: float) -> None:
        self.factor = factor

    @contextmanager
    def image(self, device):
        start = self.clock()
        with timed(device, self.clock) as took:
            yield
        end = start + self.factor * took() / 1000
        while self.clock() < end:
            pass

    def close(self) -> None:
        pass


class Burners:
    """A real load: one process a core that computes, and rests in between, while this one works too.

    How much slower images get is up to the machine's scheduler and not `factor`, which says only for
    which part of the time the processes compute: none at 1, all of it at `high`.

    Args:
        high (float): The largest factor.
        processes (int, optional): As many as there are cores.
    """

    # By itself and without imports that take long; ends when its input does, whatever becomes of us.
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

    def image(self, device):
        return nullcontext()

    def close(self) -> None:
        for process in self.processes:
            process.stdin.close()
            process.wait()


@contextmanager
def slow_down(by: str, high: float, clock: Callable[[], float] = time.perf_counter):
    """What `run` needs: if 'simulated' a Spin, by 'processes' the Burners, which end with the block."""
    slower = Burners(high) if by == 'processes' else Spin(clock)
    try:
        yield slower
    finally:
        slower.close()


def default_deadline(rows: list[dict], high: float) -> float:
    """What the fastest depth keeps under full load by its p95 with 10 % to spare, in ms."""
    return 1.1 * high * min(row['latency_p95_ms'] for row in rows)


def fixed_depths(rows: list[dict], controller: DepthController, which: str = 'all') -> list[str]:
    """The fixed depths to compare a controller with.

    Args:
        which (str): 'ends' for the depths of most and fewest GFLOPs, 'all' for those and all that the
            controller chooses from, 'none'.
    """
    if which == 'none':
        return []
    ends = [f(rows, key=lambda row: row['gflops'])['skip'] for f in (max, min)]
    others = [row['skip'] for row in controller.rows] if which == 'all' else []
    return list(dict.fromkeys([*ends, *others]))


def read_images(source=None, shape=(3, 224, 224)) -> Iterator[np.ndarray]:
    """Images without end: a video or a folder starts again after its last.

    Args:
        source (str | int, optional): A video file, a folder of images, the number of a camera, or None
            for generated ones.
        shape (Sequence[int]): Channels, height and width that they are resized to; the channels are 3.

    Yields:
        np.ndarray: Bytes of this shape, channels in mmcv's order, BGR.

    Raises:
        OSError: There is no such source, at once and not with the first image.
        ValueError: It has no images.
    """
    if source is None:
        frames = _generated(shape)
    elif str(source).isdecimal():
        frames = _camera(int(source))
    elif Path(source).is_dir():
        paths = sorted(p for p in Path(source).rglob('*') if p.suffix.lower() in IMAGES)
        if not paths:
            raise InputError(f'{source} has no images ({", ".join(IMAGES)}) in it')
        frames = (_image(path) for path in itertools.cycle(paths))
    elif Path(source).is_file():
        video = mmcv.VideoReader(str(source))
        if video.frame_cnt < 1 or video.read() is None:
            raise InputError(f'{source} is no video that OpenCV reads')
        frames = _video(video)
    else:
        raise FileNotFoundError(f'no video, folder or camera number: {source}')
    return (_resized(frame, shape) for frame in frames)


def _generated(shape):
    # A disc that wanders over noise: something to look at, and never twice the same.
    generator = np.random.default_rng(0)
    _, height, width = shape
    radius = max(2, min(height, width) // 5)
    for i in itertools.count():
        image = generator.integers(0, 80, (height, width, 3), dtype=np.uint8)
        centre = round(width * (0.5 + 0.4 * math.sin(i / 20))), round(height * (0.5 + 0.4 * math.cos(i / 27)))
        yield cv2.circle(image, centre, radius, (40, 160, 230), -1)


def _camera(index):
    camera = cv2.VideoCapture(index)
    if not camera.isOpened():
        raise OSError(f'no camera {index}, or no right to use it')

    def frames():
        try:
            while True:
                there, frame = camera.read()
                if not there:
                    raise OSError(f'camera {index} gives no more images')
                yield frame
        finally:
            camera.release()

    return frames()


def _video(video):
    while True:
        yield from video  # which starts at its first frame


def _image(path):
    image = mmcv.imread(str(path))
    if image is None:
        raise InputError(f'{path} is no image that OpenCV reads')
    return image


def _resized(frame, shape):
    return np.ascontiguousarray(mmcv.imresize(frame, (shape[2], shape[1])).transpose(2, 0, 1))


def steady(load) -> np.ndarray:
    """Which images count as steady state: all but the first ones after the load rose by a tenth."""
    load = np.asarray(load)
    rose = np.flatnonzero(load[1:] > 1.1 * load[:-1]) + 1
    mask = np.ones(len(load), dtype=bool)
    for i in rose:
        mask[i : i + SETTLING] = False
    return mask


def summarise(records: list[dict], table, deadline_ms: float) -> dict:
    """What became of a stream, by policy.

    Args:
        records (list[dict]): From `run` or `simulate`.
        table: See `read_table`; its `gflops` are averaged.

    Returns:
        dict: `policies`, for each its `p50_ms`, `p95_ms`, `mean_ms`, `misses` and `steady_misses` (parts
        of the images, see `steady`), mean `gflops`, mean `depth` (stages that run whole) and `shares` of
        the depths; and `best_fixed`, the fixed depth of most GFLOPs that keeps the deadline by its p95 and
        with at most 2 % misses in steady state, or None.
    """
    gflops = {row['skip']: row.get('gflops', math.nan) for row in read_table(table)}
    policies = {}
    for name in dict.fromkeys(record['policy'] for record in records):
        mine = [record for record in records if record['policy'] == name]
        latency = np.array([record['latency_ms'] for record in mine])
        late, settled = latency > deadline_ms, steady([record['load'] for record in mine])
        policies[name] = dict(
            p50_ms=float(np.percentile(latency, 50)),
            p95_ms=float(np.percentile(latency, 95)),
            mean_ms=float(latency.mean()),
            misses=float(late.mean()),
            steady_misses=float(late[settled].mean()),
            gflops=float(np.mean([gflops[record['skip']] for record in mine])),
            depth=float(np.mean([record['skip'].count('F') for record in mine])),
            shares={k: n / len(mine) for k, n in Counter(r['skip'] for r in mine).most_common()},
        )
    holding = [
        name
        for name, p in policies.items()
        if name != CONTROLLER and p['p95_ms'] <= deadline_ms and p['steady_misses'] <= MISSES
    ]
    best = max(holding, key=lambda n: (policies[n]['gflops'], -policies[n]['p50_ms']), default=None)
    return dict(policies=policies, best_fixed=best)


def stream_table(summary: dict) -> list[dict]:
    """The summary as text: the controller, the best fixed depth, and those of most and fewest GFLOPs.

    `steady` are misses in steady state, and `stages` is the mean number of those that run whole.
    """
    policies, best = summary['policies'], summary['best_fixed']
    fixed = [name for name in policies if name != CONTROLLER]
    ends = [f(fixed, key=lambda n: policies[n]['gflops']) for f in (max, min)] if fixed else []
    return [
        {
            'depth': name + (' (best)' if name == best else ''),
            'p50 ms': f'{p["p50_ms"]:#.4g}',
            'p95 ms': f'{p["p95_ms"]:#.4g}',
            'misses %': f'{100 * p["misses"]:.1f}',
            'steady %': f'{100 * p["steady_misses"]:.1f}',
            'GFLOPs': f'{p["gflops"]:#.3g}',
            'stages': f'{p["depth"]:.2f}',
        }
        for name in dict.fromkeys([CONTROLLER, *([best] if best else []), *ends])
        for p in [policies[name]]
    ]


def verdict(summary: dict, deadline_ms: float, mode: str = 'deadline') -> list[str]:
    """In words whether the controller held what it should, measured against the best fixed depth."""
    mine, best = summary['policies'][CONTROLLER], summary['best_fixed']
    lines = [f'Controller: {", ".join(f"{skip} {share:.0%}" for skip, share in mine["shares"].items())}.']
    if mode == 'target':
        error = abs(mine['mean_ms'] - deadline_ms)
        held = f'{error:.3f} ms off the target of {deadline_ms:.4g} ms'
        return [*lines, f'Mean latency {mine["mean_ms"]:.4g} ms, {held}.']
    held = 'within' if mine['p95_ms'] <= deadline_ms else 'OVER'
    lines.append(
        f'p95 {mine["p95_ms"]:.4g} ms, {held} the deadline of {deadline_ms:.4g} ms; '
        f'{mine["misses"]:.1%} misses, {mine["steady_misses"]:.1%} in steady state.'
    )
    if best:
        gap = summary['policies'][best]['depth'] - mine['depth']
        lines.append(
            f'Best fixed depth that keeps it, with at most {MISSES:.0%} misses: {best}. The controller runs '
            f'{abs(gap):.2f} stages {"fewer" if gap > 0 else "more"} whole on average.'
        )
    elif len(summary['policies']) > 1:
        lines.append(f'No fixed depth keeps the deadline by its p95 and with at most {MISSES:.0%} misses.')
    return lines


def write_stream(records: list[dict], summary: dict, table, out, **about) -> None:
    """Writes `stream.json` and `stream.png` into the folder `out`, each whole or not at all.

    Args:
        records, summary: From `run` and `summarise`.
        table: The profile that the controller used.
        **about: What else the JSON file records; `deadline_ms` is needed, `title` stands over the picture.
    """
    out = Path(out)
    report = {**about, 'machine': machine(), **summary, 'subnets': read_table(table), 'frames': records}
    write_json(out / 'stream.json', report)
    picture(
        records,
        table,
        about['deadline_ms'],
        out / 'stream.png',
        about.get('title'),
        about.get('mode', 'deadline'),
    )


def picture(
    records: list[dict], table, deadline_ms: float, path, title: str | None = None, mode: str = 'deadline'
) -> None:
    """Draws latency, depth and load of the controller over the images, as a PNG."""
    mine = [record for record in records if record['policy'] == CONTROLLER]
    x = np.array([record['frame'] for record in mine])
    latency = np.array([record['latency_ms'] for record in mine])
    medians = {row['skip']: row['latency_p50_ms'] for row in read_table(table)}
    used = sorted({record['skip'] for record in mine}, key=medians.get)
    late = latency > deadline_ms
    figure, (top, middle, bottom) = pyplot.subplots(
        3, 1, figsize=(10, 7), sharex=True, layout='constrained', height_ratios=(3, 2, 1)
    )
    top.plot(x, latency, '-', color=BLUE, lw=0.8, label='latency')
    top.axhline(deadline_ms, color='black', ls='--', lw=1, label=f'{mode}, {deadline_ms:.4g} ms')
    top.plot(
        x[late],
        latency[late],
        'x',
        color=VERMILION,
        ms=6,
        label=f'{"missed" if mode == "deadline" else "over"}, {late.mean():.1%}',
    )
    # An outlier many times the deadline would flatten everything else.
    highest = max(1.3 * deadline_ms, 1.1 * float(np.percentile(latency, 99.5)))
    beyond = latency > highest
    if beyond.any():
        label = f'up to {latency.max():.3g} ms'
        top.plot(x[beyond], np.full(beyond.sum(), 0.98 * highest), '^', color=VERMILION, ms=6, label=label)
    top.set(ylabel='latency (ms)', ylim=(0, highest))
    top.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=4, frameon=False)
    middle.step(x, [used.index(record['skip']) for record in mine], where='mid', color=BLUE)
    middle.set_yticks(range(len(used)), used, family='monospace')
    middle.set(ylabel='depth, slower upwards', ylim=(-0.5, len(used) - 0.5))
    bottom.fill_between(x, 1, [record['load'] for record in mine], step='mid', color=GREY, alpha=0.6)
    bottom.set(ylabel='load (factor)', xlabel='image', xlim=(x[0] - 0.5, x[-1] + 0.5))
    bottom.set_ylim(1, max(1.1, 1.1 * max(record['load'] for record in mine)))
    for axes in (top, middle, bottom):
        axes.grid(alpha=0.3)
    figure.suptitle(title, x=0.01, ha='left', fontsize=11) if title else None
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format='png')
    pyplot.close(figure)
