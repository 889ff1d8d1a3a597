"""What each sub-network costs on this machine: latency, GFLOPs, parameters, memory and energy."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from ..depth import depth_of
from ..errors import InputError
from ..utils.report import (
    BLUE,
    GREY,
    draw_front,
    drawing,
    flops_unit,
    legend_above,
    machine,
    markdown_table,
    replacing,
    write_json,
)
from .columns import COLUMNS
from .energy import Energy, energy_meter
from .flops import complexity
from .memory import peak_memory
from .prediction import check_dtype, precision, predict, prepare, rehearse
from .table import as_text, axis_label, metrics_of
from .timing import interleaved, read_clock

MIB = 2**20


@dataclass
class Depth:
    """One sub-network whose latencies are known, for the columns of a profile; the model is set to it.

    Args:
        run: Predicts one batch.
        complexity: See `flops.complexity`.
        weights: The bytes of all parameters and buffers, of all depths.
        memory: Whether to measure memory and energy, which takes a second or two.
        meter: Of the energy, where there is one.
    """

    run: Callable[[], object]
    device: torch.device
    complexity: dict
    times_ms: list[float]
    weights: int
    memory: bool
    meter: Energy | None

    def peak_memory_mib(self) -> float | None:
        return (self.weights + peak_memory(self.run, self.device)) / MIB if self.memory else None

    def energy_j(self) -> float | None:
        return self.meter.per_run(self.run, median(self.times_ms) / 1000) if self.meter else None


def profile_subnets(
    model,
    shape=(3, 224, 224),
    batch: int = 1,
    dtype: str = 'float32',
    skips='all',
    spread: float = 0.02,
    min_rounds: int = 50,
    max_seconds: float = 300,
    memory: bool = True,
    clock: str = 'wall',
    progress: Callable[[str], object] = print,
) -> dict:
    """Measures the sub-networks of a model on the device that it is on.

    All depths are timed in turn until their medians are known, see `interleaved`. What is timed is
    `predict`, without preprocessing. What else is measured is listed in `table.COLUMNS`.

    Args:
        model (nn.Module): A classifier or detector with adaptive depth, in eval mode.
        shape (Sequence[int]): Channels, height and width of an image; the channels are 3.
        batch (int): Images in a batch; their pixels are random.
        dtype (str): 'float32', or 'bfloat16' or 'float16' for autocast.
        skips (Sequence[str] | str): Which depths, see `set_skip`; 'all' for all 2^n.
        spread (float): How well all medians have to be known, as a part of each.
        min_rounds (int): How often each depth is timed at least.
        max_seconds (float): Of the latencies; memory and energy come on top.
        memory (bool): Whether to measure memory and energy too.
        clock (str): 'wall', or 'cpu' for the processor time of the process: with one thread the steadier
            one where other processes use the cores.
        progress (Callable): Takes a line on the progress now and then.

    Returns:
        dict: `settings`; `ended`, `rounds` and `widest`, see `interleaved`; `energy`, what measured it or
        'not available'; `follows`, see `follows_flops`; and `subnets`, for each depth `skip`, `gflops` of an
        image, `params` in use in 1e6, `latency_p50_ms` and `latency_p95_ms` of a batch, `peak_memory_mib` of
        all weights and what a batch allocates, and `energy_j` of a batch; the last two are None if they were
        not measured.

    Raises:
        ValueError: A setting is out of range, or a skip does not fit the backbone.
    """
    device = next(model.parameters()).device
    limits = dict(spread=spread, min_rounds=min_rounds, max_seconds=max_seconds)
    settings = dict(device=str(device), shape=list(shape), batch=batch, dtype=dtype, clock=clock, **limits)
    _check(settings)
    adaptive = depth_of(model)
    names = adaptive.subnets() if skips == 'all' else dict.fromkeys(map(adaptive.parse_skip, skips))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, *shape), dtype=torch.uint8, generator=generator)
    data = prepare(model, images.to(device))
    run = partial(predict, model, data)
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    meter = energy_meter(device) if memory else None
    meter_name = meter.name if meter else 'not available'
    counted, rows = {}, []
    with adaptive.skipping(adaptive.skip):  # which puts the depth back in the end
        progress(f'counting the GFLOPs of {len(names)} depths')
        for skip in names:
            adaptive.set_skip(skip)
            counted[skip] = complexity(model, data['inputs'][:1])
        with precision(device, dtype):
            rehearse(model, data, dtype)
            steps = {skip: (partial(adaptive.set_skip, skip), run) for skip in names}
            times, ended = interleaved(steps, device, **limits, clock=clock, progress=progress)
            if memory:
                progress(f'memory and energy ({meter_name}) of {len(names)} depths')
            for skip in names:
                adaptive.set_skip(skip)
                depth = Depth(run, device, counted[skip], times[skip], weights, memory, meter)
                measured = {name: column.measure(depth) for name, column in COLUMNS.items() if column.measure}
                rows.append({'skip': skip, **measured})
    report = {'settings': settings, **ended, 'energy': meter_name}
    if len(rows) > 1:
        report['follows'] = follows_flops(rows)
    return {**report, 'subnets': rows}


def _check(settings: dict) -> None:
    """Refuses settings that are out of range before the work, and not in its midst."""
    shape = settings['shape']
    if len(shape) != 3 or shape[0] != 3 or min(shape) < 1:
        raise InputError(f'shape={tuple(shape)}: give 3 channels, height and width')
    for name in ('batch', 'spread', 'min_rounds', 'max_seconds'):
        if settings[name] <= 0:
            raise InputError(f'{name}={settings[name]}: give a number above 0')
    check_dtype(settings['dtype'])
    read_clock(settings['clock'], settings['device'])


def follows_flops(rows: list[dict]) -> dict:
    """Whether the median latency follows the GFLOPs.

    Returns:
        dict: `latency`, of the depth of fewest GFLOPs over that of most; `gflops`, the same of these;
        `excess`, the first over the second; and `inversion`, by which part a depth is slower at worst
        than one with more GFLOPs, with the two as `pair` (None and 0 if there is no such depth).
    """
    rows = sorted(rows, key=lambda row: row['gflops'])
    low, high = rows[0], rows[-1]
    latency, gflops = (low[name] / high[name] for name in ('latency_p50_ms', 'gflops'))
    worst, pair = 0.0, None
    for i, less in enumerate(rows):
        for more in rows[i + 1 :]:
            slower = less['latency_p50_ms'] / more['latency_p50_ms'] - 1
            if slower > worst and less['gflops'] < more['gflops']:
                worst, pair = slower, [less['skip'], more['skip']]
    return dict(latency=latency, gflops=gflops, excess=latency / gflops, inversion=worst, pair=pair)


def profile_table(rows: list[dict]) -> list[dict]:
    """The rows as text, with a mark on the Pareto front of the first metric over the median latency."""
    return as_text(rows, 'latency_p50_ms')


def remarks(report: dict) -> list[str]:
    """What to know beside the table: settings, machine, how the rounds ended, how latency follows."""
    s, m = report['settings'], report['machine']
    size = 'x'.join(map(str, s['shape']))
    where = m['gpu'] if s['device'].startswith('cuda') else f'{m["cpu"]}, threads: {m["threads"]}'
    clock = ', processor time' if s['clock'] == 'cpu' else ''
    ended = {
        'spread': f'until all were within ±{s["spread"]:.1%}',
        'time': f'until {s["max_seconds"]:g} s were over, before all were within ±{s["spread"]:.1%}',
    }[report['ended']]
    lines = [
        f'Batch {s["batch"]} of {size}, {s["dtype"]}, on {s["device"]} ({where}), torch {m["torch"]}{clock}.',
        f'{report["rounds"]} rounds, {ended}; medians are known within ±{report["widest"]:.1%}.'
        if report['widest'] is not None
        else f'{report["rounds"]} rounds, {ended}: too few to say how well the medians are known.',
        f'Energy: {report["energy"]}.',
    ]
    tested = report.get('tested_gflops_ratio', 1.0)
    if not 0.8 < tested < 1.25:
        lines.append(
            f'The accuracies are of images that cost {tested:.3g} times the GFLOPs of these: of another size.'
        )
    if 'follows' in report:
        f = report['follows']
        pair = f' ({f["pair"][0]} slower than {f["pair"][1]})' if f['pair'] else ''
        lines.append(
            f'Smallest over largest: {f["latency"]:.3f} of the latency, {f["gflops"]:.3f} of the GFLOPs, '
            f'{f["excess"]:.2f} times that; fewer GFLOPs and yet slower: {f["inversion"]:.1%} at worst{pair}.'
        )
    return lines


def write_profile(report: dict, out: str | Path, **about) -> dict:
    """Writes `profile.json`, `profile.md` and `profile.png` into the folder `out`, each whole or not at all.

    Args:
        report: From `profile_subnets`.
        **about: What else the JSON file records, such as the config and the checkpoint.

    Returns:
        What `profile.json` holds: `about`, the machine and the report.
    """
    out, report = Path(out), {**about, 'machine': machine(report['settings']['device']), **report}
    write_json(out / 'profile.json', report)
    lines = [markdown_table(profile_table(report['subnets'])), '', *remarks(report)]
    with replacing(out / 'profile.md') as path:
        path.write_text('\n'.join(lines) + '\n')
    picture(report, out / 'profile.png')
    return report


def picture(report: dict, path: str | Path) -> None:
    """Draws the latency over the GFLOPs, and the accuracy over the latency where it is known, as a PNG."""
    rows = report['subnets']
    metrics = metrics_of(rows)
    size, panels = ((11, 4.5), 2) if metrics else ((6.5, 4.5), 1)
    with drawing(path, size, columns=panels) as (figure, axes):
        _draw_latencies(axes[0, 0], rows)
        if metrics:
            draw_front(axes[0, 1], rows, 'latency_p50_ms', metrics[0])
            axes[0, 1].set(xlabel='median latency of a batch (ms)', ylabel=axis_label(metrics[0]))
        for each in axes.flat:
            legend_above(each)
        figure.suptitle(remarks(report)[0].rstrip('.'), fontsize=10)


def _draw_latencies(axes, rows):
    scale, unit = flops_unit(row['gflops'] for row in rows)
    gflops, p50, p95 = (
        np.array([row[key] for row in rows]) for key in ('gflops', 'latency_p50_ms', 'latency_p95_ms')
    )
    style = dict(fmt='o', color=BLUE, ecolor=GREY, capsize=3, label='median, up to p95')
    axes.errorbar(gflops * scale, p50, [0 * p50, p95 - p50], **style)
    for i in {gflops.argmin(), gflops.argmax()}:
        place = gflops[i] * scale, p50[i]
        axes.annotate(rows[i]['skip'], place, (0, -14), textcoords='offset points', ha='center', fontsize=9)
    axes.set(xlabel=f'{unit} of an image (multiply-adds)', ylabel='latency of a batch (ms)')
    axes.set_ylim(bottom=0)
    axes.margins(x=0.1)
