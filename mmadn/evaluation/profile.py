"""What each sub-network costs on this machine: latency, GFLOPs, parameters, memory and energy."""

import math
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.config import DictAction
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample

from ..depth import adaptive_backbone
from ..errors import InputError
from ..utils.report import (
    BLUE,
    GREY,
    draw_front,
    drawing,
    flops_unit,
    machine,
    markdown_table,
    pareto_front,
    replacing,
    write_json,
)
from .flops import complexity
from .memory import peak_memory
from .select import metrics_of
from .timing import CLOCKS, read_clock, summary, timed

DTYPES = ('float32', 'bfloat16', 'float16')
MIB = 2**20
RAPL = '/sys/class/powercap'


def add_arguments(parser) -> None:
    """Adds what every command takes that runs a model by its depths."""
    option = parser.add_argument
    option('config', help='path of the config of a classifier or a detector with adaptive depth')
    option('checkpoint', nargs='?', help='path of the checkpoint; without one the weights are untrained')
    option('--device', default='cpu', help='cpu, cuda or cuda:N')
    option(
        '--shape', type=int, nargs=3, metavar=('C', 'H', 'W'), help='by default what the config tests with'
    )
    option('--dtype', choices=DTYPES, default='float32', help='the others by autocast')
    option('--clock', choices=CLOCKS, default='wall', help='cpu: processor time')
    option('--threads', type=int, default=torch.get_num_threads(), help='of the operators')
    option('--out', help='folder of the results; by default work_dirs/<name of the config>')
    option('--cfg-options', nargs='+', action=DictAction, default={}, help='settings that replace others')


def prepare(model, images: torch.Tensor) -> dict:
    """What the preprocessor makes of images, for `predict`.

    Args:
        images (Tensor): Bytes of shape (N, 3, H, W), in the order of channels that the config expects.
    """
    if isinstance(model, ImageClassifier):
        samples = [DataSample() for _ in images]
    else:
        from mmdet.structures import DetDataSample  # takes seconds, and classifiers need none

        size = tuple(images.shape[2:])
        about = dict(img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0), img_id=0)
        samples = [DetDataSample(metainfo=about) for _ in images]
    with torch.no_grad():
        return model.data_preprocessor(dict(inputs=list(images), data_samples=samples), False)


def predict(model, data: dict):
    """What is timed: a classifier's logits; of a detector everything up to boxes in the image."""
    if isinstance(model, ImageClassifier):
        return model(data['inputs'], mode='tensor')
    return model(**data, mode='predict')


def rehearse(model, data: dict, dtype: str) -> None:
    """One `predict` that is not timed; raises ValueError if the model has an operator without this dtype."""
    try:
        predict(model, data)
    except RuntimeError as error:
        if dtype == 'float32':
            raise
        raise InputError(f'{type(model).__name__} does not run in {dtype} here: {error}') from error


def precision(device, dtype: str) -> ExitStack:
    """The context of inference in `dtype`: autocast unless that is float32, and no gradients.

    One such context around everything that is timed: it keeps the weights that it has converted.

    Raises:
        ValueError: An unknown dtype.
    """
    if dtype not in DTYPES:
        raise InputError(f'dtype={dtype!r}: give one of {", ".join(DTYPES)}')
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())  # autocast keeps no weights under inference_mode
        if dtype != 'float32':
            stack.enter_context(torch.autocast(torch.device(device).type, getattr(torch, dtype)))
        return stack.pop_all()


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
    say: Callable[[str], object] = print,
) -> dict:
    """Measures the sub-networks of a model on the device that it is on.

    Every depth runs once a round, in a new random order each time, after two rounds of warm-up. The
    rounds end when the 95 % interval of every median lies within `spread` of it, but not before
    `min_rounds`; or after `max_seconds`. What is timed is `predict`, without preprocessing.

    Args:
        model (nn.Module): A classifier or detector with adaptive depth, in eval mode.
        shape (Sequence[int]): Channels, height and width of an image; the channels are 3.
        batch (int): Images in a batch; their pixels are random.
        dtype (str): 'float32', or 'bfloat16' or 'float16' for autocast.
        skips (Sequence[str] | str): Which depths, see `set_skip`; 'all' for all 2^n.
        spread (float): Of the median, on either side of it.
        max_seconds (float): Of the latencies; memory and energy come on top.
        memory (bool): Whether to measure memory and energy too.
        clock (str): 'wall', or 'cpu' for the processor time of the process: with one thread the steadier
            one where other processes use the cores.
        say (Callable): Takes a line on the progress now and then.

    Returns:
        dict: `settings`; `ended`, which is 'spread' or 'time', with `rounds` and the `widest` interval
        as a part of its median; `energy`, what measured it or 'not available'; `follows`, see
        `follows_flops`; and `subnets`, for each depth `skip`, `gflops` of an image, `params` in use in
        1e6, `latency_p50_ms` and `latency_p95_ms` of a batch, `peak_memory_mib` of all weights and what a
        batch allocates, and `energy_j` of a batch or None.

    Raises:
        ValueError: A setting is out of range, or a skip does not fit the backbone.
    """
    device = next(model.parameters()).device
    settings = dict(device=str(device), shape=list(shape), batch=batch, dtype=dtype, clock=clock)
    settings |= dict(spread=spread, min_rounds=min_rounds, max_seconds=max_seconds)
    if len(shape) != 3 or shape[0] != 3 or min(shape) < 1:
        raise InputError(f'shape={tuple(shape)}: give 3 channels, height and width')
    for name, value in dict(
        batch=batch, spread=spread, min_rounds=min_rounds, max_seconds=max_seconds
    ).items():
        if value <= 0:
            raise InputError(f'{name}={value}: give a number above 0')
    read_clock(clock, device)  # before the work and not in its midst, as the dtype
    precision(device, dtype).close()
    backbone = adaptive_backbone(model)
    names = backbone.subnets() if skips == 'all' else [backbone.parse_skip(skip) for skip in skips]
    names = list(dict.fromkeys(names))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, *shape), dtype=torch.uint8, generator=generator)
    data = prepare(model, images.to(device))
    before = backbone.skip
    run = partial(predict, model, data)
    rows = {skip: {'skip': skip} for skip in names}
    try:
        say(f'counting the GFLOPs of {len(names)} depths')
        for skip, row in rows.items():
            backbone.set_skip(skip)
            row |= complexity(model, data['inputs'][:1])
        with precision(device, dtype):
            rehearse(model, data, dtype)
            steps = {skip: (partial(backbone.set_skip, skip), run) for skip in names}
            times, ended = latencies(steps, device, spread, min_rounds, max_seconds, clock, say)
            for skip, row in rows.items():
                row['latency_p50_ms'], row['latency_p95_ms'] = map(
                    float, np.percentile(times[skip], (50, 95))
                )
            energy = None
            if memory:
                energy = energy_meter(device)
                say(
                    f'memory and energy ({energy.name if energy else "not available"}) of {len(names)} depths'
                )
                held = sum(x.nbytes for x in (*model.parameters(), *model.buffers()))
                for skip, row in rows.items():
                    backbone.set_skip(skip)
                    row['peak_memory_mib'] = (held + peak_memory(run, device)) / MIB
                    row['energy_j'] = energy and energy.per_run(run, row['latency_p50_ms'] / 1000)
    finally:
        backbone.set_skip(before)
    rows = list(rows.values())
    return {
        'settings': settings,
        **ended,
        'energy': energy.name if energy else 'not available',
        **({'follows': follows_flops(rows)} if len(rows) > 1 else {}),
        'subnets': rows,
    }


def latencies(
    steps: dict, device, spread=0.02, min_rounds=50, max_seconds=300, clock='wall', say=print
) -> tuple[dict, dict]:
    """Times anything that has depths, in interleaved random order, until the medians are known.

    Args:
        steps (dict[str, tuple[Callable, Callable]]): For each depth what prepares it, not timed, and
            what is timed.
        spread, min_rounds, max_seconds, clock, say: See `profile_subnets`.

    Returns:
        tuple[dict[str, list[float]], dict]: The milliseconds of all rounds; and `ended`, `rounds` and
        `widest`, as from `profile_subnets`.
    """
    times = {name: [] for name in steps}
    order, clock = random.Random(0), read_clock(clock, device)
    start = told = time.monotonic()
    widest = math.inf

    def once():
        for name in order.sample(list(steps), len(steps)):
            prepare, run = steps[name]
            prepare()
            with timed(device, clock) as took:
                run()
            times[name].append(took())

    for _ in range(2):
        once()
    for values in times.values():
        values.clear()
    warm = time.monotonic()
    while True:
        once()
        now, n = time.monotonic(), len(next(iter(times.values())))
        widest = max(map(_spread, times.values())) if n % 10 == 0 or n < 10 else widest
        if n >= min_rounds and widest <= spread:
            return times, dict(ended='spread', rounds=n, widest=widest)
        if now - start + (now - warm) / n > max_seconds:
            return times, dict(ended='time', rounds=n, widest=max(map(_spread, times.values())))
        if now - told > 10:
            told = now
            say(
                f'round {n} of at least {min_rounds}, medians within ±{widest:.1%} (±{spread:.1%} ends it), '
                f'{now - start:.0f} s of at most {max_seconds:g} s'
            )


def _spread(values):
    if len(values) < 6:  # of fewer, no two hold the median 19 times out of 20
        return math.inf
    numbers = summary(values)
    low, median, high = (numbers[name] for name in ('low', 'median', 'high'))
    return max(high - median, median - low) / median


class Energy:
    """Joules by a counter that only grows until it wraps.

    Args:
        name (str): What measures.
        read (Callable): Returns the counters in joules, one a device.
        wraps (Sequence[float]): Where each starts again at zero; infinity if it never does.
    """

    SECONDS = 1.0  # the counters move every 1 to 100 ms

    def __init__(self, name, read, wraps):
        self.name, self.read, self.wraps = name, read, wraps

    def per_run(self, run, seconds: float) -> float:
        """The joules of one run that takes so long, over as many as last a second; idling included."""
        n = max(3, math.ceil(self.SECONDS / seconds))
        before = self.read()
        for _ in range(n):
            run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        after = self.read()
        used = (b - a if b >= a else b - a + w for a, b, w in zip(before, after, self.wraps, strict=True))
        return sum(used) / n


def energy_meter(device='cpu', rapl=RAPL) -> Energy | None:
    """What counts the energy of a device: NVML for a GPU, RAPL for the processors, or nothing."""
    return _nvml(torch.device(device)) if torch.device(device).type == 'cuda' else _rapl(Path(rapl))


def _rapl(folder):
    # intel-rapl:0 is a whole processor; intel-rapl:0:1 is a part of it, and AMD's are named so too.
    zones = sorted(zone for zone in folder.glob('intel-rapl:*') if zone.name.count(':') == 1)
    try:
        wraps = [int((zone / 'max_energy_range_uj').read_text()) / 1e6 for zone in zones]

        def read():
            return [int((zone / 'energy_uj').read_text()) / 1e6 for zone in zones]

        read()
    except (OSError, ValueError):  # there, but only for root
        return None
    return Energy('RAPL', read, wraps) if zones else None


def _nvml(device):
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(f'GPU-{uuid}'.encode())

        def read():
            return [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3]

        read()
    except Exception:  # not installed, no driver, or a GPU older than Volta: each has its own error
        return None
    return Energy('NVML', read, [math.inf])


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
    """The rows as text, most GFLOPs first, with a mark on the Pareto front of accuracy over latency."""
    metrics = metrics_of(rows)
    best = [r['skip'] for r in pareto_front(rows, 'latency_p50_ms', metrics[0])] if metrics else []
    joules = any(row.get('energy_j') is not None for row in rows)
    return [
        {
            'skip': row['skip'],
            'p50 ms': f'{row["latency_p50_ms"]:#.4g}',
            'p95 ms': f'{row["latency_p95_ms"]:#.4g}',
            'GFLOPs': f'{row["gflops"]:#.3g}',
            'params in use (M)': f'{row["params"]:.2f}',
            'peak MiB': f'{row["peak_memory_mib"]:.1f}',
            **({'J': f'{row["energy_j"]:#.3g}'} if joules else {}),
            **{name: f'{row[name]:.2f}' for name in metrics},
            **({'Pareto': '*' if row['skip'] in best else ''} if metrics else {}),
        }
        for row in sorted(rows, key=lambda row: -row['gflops'])
    ]


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
        if math.isfinite(report['widest'])
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


def write_profile(report: dict, out, **about) -> dict:
    """Writes `profile.json`, `profile.md` and `profile.png` into the folder `out`, each whole or not at all.

    Args:
        report (dict): From `profile_subnets`.
        **about: What else the JSON file records, such as the config and the checkpoint.

    Returns:
        dict: What `profile.json` holds: `about`, the machine and the report.
    """
    out, report = Path(out), {**about, 'machine': machine(), **report}
    if not math.isfinite(report['widest']):
        report['widest'] = None  # JSON has no infinity
    write_json(out / 'profile.json', report)
    report = {**report, 'widest': math.inf if report['widest'] is None else report['widest']}
    lines = [markdown_table(profile_table(report['subnets'])), '', *remarks(report)]
    with replacing(out / 'profile.md') as path:
        Path(path).write_text('\n'.join(lines) + '\n')
    picture(report, out / 'profile.png')
    return report


def picture(report: dict, path) -> None:
    """Draws the latency over the GFLOPs, and the accuracy over the latency where it is known, as a PNG."""
    rows = report['subnets']
    metrics = metrics_of(rows)
    size, panels = ((11, 4.5), 2) if metrics else ((6.5, 4.5), 1)
    with drawing(path, size, columns=panels) as (figure, axes):
        _draw_latencies(axes[0, 0], rows)
        if metrics:
            draw_front(axes[0, 1], rows, 'latency_p50_ms', metrics[0])
            percent = ' (%)' if metrics[0].startswith('accuracy') else ''
            axes[0, 1].set(xlabel='median latency of a batch (ms)', ylabel=f'{metrics[0]}{percent}')
        for each in axes.flat:
            each.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=2, frameon=False)
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
