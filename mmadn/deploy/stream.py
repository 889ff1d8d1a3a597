"""A stream of images under a deadline: run it or simulate it, summarise what became of it, and draw it."""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from ..depth import depth_of
from ..evaluation.prediction import first_sample, precision, predict, prepare, rehearse
from ..evaluation.select import read_table
from ..evaluation.timing import timed
from ..utils.report import BLUE, GREY, VERMILION, cells, drawing, legend_above, machine, write_json
from .controller import DepthController

CONTROLLER = 'controller'


def simulate(
    table: Sequence[dict] | str | Path,
    deadline_ms: float,
    load: Sequence[float],
    jitter: float = 0.03,
    seed: int = 0,
    **settings,
) -> list[dict]:
    """Runs a DepthController, and each of its depths alone, without a network or a clock.

    A latency is the median of the depth times the load times a random factor, which is the same for all
    depths at each image.

    Args:
        table, deadline_ms: See `DepthController`.
        load: For each image by which factor the machine is slower than when the table was measured.
        jitter: The standard deviation of the logarithm of the random factor.
        **settings: Further arguments of the DepthController.

    Returns:
        Records as from `run`.
    """
    medians = {row['skip']: row['latency_p50_ms'] for row in read_table(table)}
    load = np.asarray(load, dtype=float)
    factors = load * np.exp(np.random.default_rng(seed).normal(0, jitter, len(load)))
    controller = DepthController(table, deadline_ms, **settings)
    fixed = [row['skip'] for row in controller.rows]
    records = []
    for i, factor in enumerate(factors.tolist()):
        chosen = controller.next()
        controller.learn(medians[chosen] * factor)
        for policy, skip in [(CONTROLLER, chosen), *zip(fixed, fixed, strict=True)]:
            records.append(_record(i, load[i], policy, skip, medians[skip] * factor))
    return records


def run(
    model: nn.Module,
    images: Iterator[np.ndarray],
    controller: DepthController,
    load: Sequence[float],
    slower=None,
    fixed: Sequence[str] = (),
    dtype: str = 'float32',
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[str], object] = print,
    watch: Callable[[dict, BaseDataElement], object] | None = None,
) -> list[dict]:
    """Runs a stream by a real clock: the controller, and fixed depths to compare with, on the same images.

    At each image the controller and the fixed depths take their turns in random order, all under the
    same load. What is timed is `mmadn.evaluation.profile.predict`, without reading and preprocessing.

    Args:
        model: A classifier or detector with adaptive depth, in eval mode.
        images: From `read_images`.
        load: For each image the factor that `slower` makes the machine slower by; ones without `slower`.
        slower: What makes the machine slower, if anything does. Its `at(factor)` is called before each image,
            and its `image(device)` is a context around what is timed.
        fixed: Depths to compare with.
        dtype: See `profile_subnets`.
        clock: Returns seconds.
        progress: Takes a line now and then.
        watch: Takes each record of the controller, with what was found.

    Returns:
        `frame`, `load`, `policy` ('controller' or a fixed depth), `skip` and `latency_ms` of each prediction.
    """
    depth = depth_of(model)
    device = next(model.parameters()).device
    order, reported, records = random.Random(0), time.monotonic(), []
    with precision(device, dtype):
        for i, (image, factor) in enumerate(zip(images, map(float, load), strict=False)):
            data = prepare(model, torch.from_numpy(image).to(device)[None])
            for row in controller.rows if i == 0 else ():
                depth.set_skip(row['skip'])
                rehearse(model, data, dtype)
            if slower is not None:
                slower.at(factor)
            for policy in order.sample([CONTROLLER, *fixed], 1 + len(fixed)):
                skip = controller.next() if policy == CONTROLLER else policy
                depth.set_skip(skip)
                with timed(device, clock) as took, slower.image(device) if slower else nullcontext():
                    output = predict(model, data)
                records.append(_record(i, factor, policy, skip, took()))
                if policy == CONTROLLER:
                    controller.learn(took())
                    if watch:
                        watch(records[-1], first_sample(output))
            if time.monotonic() - reported > 10:
                reported = time.monotonic()
                progress(
                    f'image {i + 1} of {len(load)}, {controller.missed} over {controller.deadline_ms:.4g} ms'
                )
    if slower is not None:
        slower.at(1.0)
    return records


def _record(frame: int, load: float, policy: str, skip: str, latency_ms: float) -> dict:
    return dict(frame=frame, load=float(load), policy=policy, skip=skip, latency_ms=float(latency_ms))


def fixed_depths(rows: list[dict], controller: DepthController, which: str = 'all') -> list[str]:
    """The fixed depths to compare a controller with.

    Args:
        which: 'ends' for the depths of most and fewest GFLOPs, 'all' for these and all that the controller
            chooses from, or 'none'.
    """
    if which == 'none':
        return []
    ends = [choose(rows, key=lambda row: row['gflops'])['skip'] for choose in (max, min)]
    others = [row['skip'] for row in controller.rows] if which == 'all' else []
    return list(dict.fromkeys([*ends, *others]))


def steady(load: Sequence[float], settling: int = 3) -> np.ndarray:
    """Which images count as steady state: all but the first `settling` ones after the load rose by a tenth.

    No controller can foresee a rise, and it takes an image or two to learn of one.
    """
    load = np.asarray(load)
    mask = np.ones(len(load), dtype=bool)
    for i in np.flatnonzero(load[1:] > 1.1 * load[:-1]) + 1:
        mask[i : i + settling] = False
    return mask


def summarise(
    records: list[dict], table: Sequence[dict] | str | Path, deadline_ms: float, misses: float = 0.02
) -> dict:
    """What became of a stream, for each policy.

    Args:
        records: From `run` or `simulate`.
        table: See `read_table`. Its `gflops` are averaged.
        misses: What part of the images in steady state may miss the deadline at a fixed depth that is said
            to keep it.

    Returns:
        `policies`, for each its `p50_ms`, `p95_ms`, `mean_ms`, `misses` and `steady_misses` (parts of the
        images, see `steady`), mean `gflops`, mean `depth` (the stages that run whole) and `shares` of the
        depths; `best_fixed`, the fixed depth of most GFLOPs that keeps the deadline by its 95th percentile
        and up to `misses` in steady state, or None.
    """
    gflops = {row['skip']: row.get('gflops', math.nan) for row in read_table(table)}
    policies = {}
    for name in dict.fromkeys(record['policy'] for record in records):
        frames = [record for record in records if record['policy'] == name]
        latency = np.array([record['latency_ms'] for record in frames])
        late, settled = latency > deadline_ms, steady([record['load'] for record in frames])
        policies[name] = dict(
            p50_ms=float(np.percentile(latency, 50)),
            p95_ms=float(np.percentile(latency, 95)),
            mean_ms=float(latency.mean()),
            misses=float(late.mean()),
            steady_misses=float(late[settled].mean()),
            gflops=float(np.mean([gflops[record['skip']] for record in frames])),
            depth=float(np.mean([record['skip'].count('F') for record in frames])),
            shares={k: n / len(frames) for k, n in Counter(r['skip'] for r in frames).most_common()},
        )
    holding = [
        name
        for name, policy in policies.items()
        if name != CONTROLLER and policy['p95_ms'] <= deadline_ms and policy['steady_misses'] <= misses
    ]
    best = max(holding, key=lambda n: (policies[n]['gflops'], -policies[n]['p50_ms']), default=None)
    return dict(policies=policies, best_fixed=best)


def stream_table(summary: dict) -> list[dict]:
    """The summary as text: the controller, the best fixed depth, and those of most and fewest GFLOPs.

    `steady` are misses in steady state, and `stages` is the mean number of those that run whole.
    """
    policies, best = summary['policies'], summary['best_fixed']
    fixed = [name for name in policies if name != CONTROLLER]
    ends = [choose(fixed, key=lambda n: policies[n]['gflops']) for choose in (max, min)] if fixed else []
    rows = [
        {
            **policies[name],
            'name': name + (' (best)' if name == best else ''),
            'misses': 100 * policies[name]['misses'],
            'steady_misses': 100 * policies[name]['steady_misses'],
        }
        for name in dict.fromkeys([CONTROLLER, *([best] if best else []), *ends])
    ]
    columns = {
        'name': ('depth', ''),
        'p50_ms': ('p50 ms', '#.4g'),
        'p95_ms': ('p95 ms', '#.4g'),
        'misses': ('misses %', '.1f'),
        'steady_misses': ('steady %', '.1f'),
        'gflops': ('GFLOPs', '#.3g'),
        'depth': ('stages', '.2f'),
    }
    return cells(rows, columns)


def verdict(summary: dict, deadline_ms: float, mode: str = 'deadline', misses: float = 0.02) -> list[str]:
    """In words whether the controller held what it should, compared with the best fixed depth.

    Args:
        misses: What `summarise` was given.
    """
    policy, best = summary['policies'][CONTROLLER], summary['best_fixed']
    lines = [f'Controller: {", ".join(f"{skip} {share:.0%}" for skip, share in policy["shares"].items())}.']
    if mode == 'target':
        error = abs(policy['mean_ms'] - deadline_ms)
        held = f'{error:.3f} ms off the target of {deadline_ms:.4g} ms'
        return [*lines, f'Mean latency {policy["mean_ms"]:.4g} ms, {held}.']
    held = 'within' if policy['p95_ms'] <= deadline_ms else 'OVER'
    lines.append(
        f'p95 {policy["p95_ms"]:.4g} ms, {held} the deadline of {deadline_ms:.4g} ms; '
        f'{policy["misses"]:.1%} misses, {policy["steady_misses"]:.1%} in steady state.'
    )
    if best:
        gap = summary['policies'][best]['depth'] - policy['depth']
        lines.append(
            f'Best fixed depth that keeps it, with at most {misses:.0%} misses: {best}. The controller runs '
            f'{abs(gap):.2f} stages {"fewer" if gap > 0 else "more"} whole on average.'
        )
    elif len(summary['policies']) > 1:
        lines.append(f'No fixed depth keeps the deadline by its p95 and with at most {misses:.0%} misses.')
    return lines


def write_stream(
    records: list[dict], summary: dict, table: Sequence[dict] | str | Path, out: str | Path, **about
) -> None:
    """Writes `stream.json` and `stream.png` into the folder `out`, each whole or not at all.

    Args:
        records, summary: From `run` and `summarise`.
        table: The profile that the controller used.
        **about: What else the JSON file records. `deadline_ms` is needed. `title` stands over the picture.
    """
    out = Path(out)
    report = {**about, 'machine': machine(), **summary, 'subnets': read_table(table), 'frames': records}
    write_json(out / 'stream.json', report)
    drawn = {name: about[name] for name in ('title', 'mode') if name in about}
    picture(records, table, about['deadline_ms'], out / 'stream.png', **drawn)


def picture(
    records: list[dict],
    table: Sequence[dict] | str | Path,
    deadline_ms: float,
    path: str | Path,
    title: str | None = None,
    mode: str = 'deadline',
) -> None:
    """Draws latency and depth of the controller over the images, and the load if there is one, as a PNG."""
    frames = [record for record in records if record['policy'] == CONTROLLER]
    x = np.array([record['frame'] for record in frames])
    latency = np.array([record['latency_ms'] for record in frames])
    load = [record['load'] for record in frames]
    medians = {row['skip']: row['latency_p50_ms'] for row in read_table(table)}
    used = sorted({record['skip'] for record in frames}, key=medians.get)
    late = latency > deadline_ms
    # An outlier many times the deadline would flatten everything else, so it is drawn at the upper edge.
    highest = max(1.3 * deadline_ms, 1.1 * float(np.percentile(latency, 99.5)))
    beyond = latency > highest
    ratios = (3, 2, 1) if max(load) > 1 else (3, 2)
    size = 10, 1 + sum(ratios)
    with drawing(path, size, rows=len(ratios), sharex=True, height_ratios=ratios) as (figure, axes):
        top, middle, *rest = axes[:, 0]
        top.plot(x, latency, '-', color=BLUE, lw=0.8, label='latency')
        top.axhline(deadline_ms, color='black', ls='--', lw=1, label=f'{mode}, {deadline_ms:.4g} ms')
        label = f'{"missed" if mode == "deadline" else "over"}, {late.mean():.1%}'
        top.plot(x[late], latency[late], 'x', color=VERMILION, ms=6, label=label)
        if beyond.any():
            label = f'up to {latency.max():.3g} ms'
            edge = np.full(beyond.sum(), 0.98 * highest)
            top.plot(x[beyond], edge, '^', color=VERMILION, ms=6, label=label)
        top.set(ylabel='latency (ms)', ylim=(0, highest))
        legend_above(top, columns=4)
        middle.step(x, [used.index(record['skip']) for record in frames], where='mid', color=BLUE)
        middle.set_yticks(range(len(used)), used, family='monospace')
        middle.set(ylabel='depth, slower upwards', ylim=(-0.5, len(used) - 0.5))
        for bottom in rest:
            bottom.fill_between(x, 1, load, step='mid', color=GREY, alpha=0.6)
            bottom.set(ylabel='load (factor)', ylim=(1, max(1.1, 1.1 * max(load))))
        axes[-1, 0].set(xlabel='image', xlim=(x[0] - 0.5, x[-1] + 0.5))
        if title:
            figure.suptitle(title, x=0.01, ha='left', fontsize=11)
