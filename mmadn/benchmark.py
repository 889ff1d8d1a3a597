"""Adaptive-depth networks against their stock counterparts, measured side by side.

All contestants run in one process, once in every round and in a new random order each time, so that
a disturbance of the machine meets all of them alike. What counts are therefore the ratios within a
round, and of these the median over the rounds.
"""

import logging
import math
import random
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.progress import Progress
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from .depth import SkipAwareNorm
from .hooks import SelfDistillationHook
from .report import machine, print_table, replacing, write_json

CLASSES = 1000
MIB = 2**20


GAP = dict(type='GlobalAveragePooling')


def _resnet(depth, blocks):
    return dict(
        full=dict(type='ResNet', depth=depth),
        short=dict(type='mmadn.ShortResNet', depth=depth, blocks=blocks),
        adn=dict(type='mmadn.ADNResNet', depth=depth),
        neck=GAP,
        head=dict(type='LinearClsHead', in_channels=2048),
    )


# Per architecture the backbones of `stock`, of `stock-base` (stock as well, but built from the
# mandatory blocks only) and of ADN, and the rest of a classifier for any of them.
ARCHS = {
    'resnet50': _resnet(50, (2, 2, 3, 2)),
    'resnet101': _resnet(101, (2, 2, 12, 2)),
    'mobilenet_v2': dict(
        full=dict(type='MobileNetV2'),
        short=dict(type='mmadn.ShortMobileNetV2', blocks=(1, 1, 2, 2, 2, 2, 1)),
        adn=dict(type='mmadn.ADNMobileNetV2'),
        neck=GAP,
        head=dict(type='LinearClsHead', in_channels=1280),
    ),
    'vit_b_16': dict(
        full=dict(type='VisionTransformer', arch='base'),
        short=dict(
            type='VisionTransformer',
            arch=dict(embed_dims=768, num_layers=8, num_heads=12, feedforward_channels=3072),
        ),
        adn=dict(type='mmadn.ADNVisionTransformer', arch='base'),
        neck=None,
        head=dict(type='VisionTransformerClsHead', in_channels=768),
    ),
    'swin_t': dict(
        full=dict(type='SwinTransformer', arch='tiny'),
        short=dict(
            type='SwinTransformer',
            arch=dict(embed_dims=96, depths=[1, 1, 3, 1], num_heads=[3, 6, 12, 24]),
        ),
        adn=dict(type='mmadn.ADNSwinTransformer', arch='tiny'),
        neck=GAP,
        head=dict(type='LinearClsHead', in_channels=768),
    ),
    'convnext_t': dict(
        full=dict(type='ConvNeXt', arch='tiny'),
        short=dict(type='ConvNeXt', arch=dict(depths=[2, 2, 5, 2], channels=[96, 192, 384, 768])),
        adn=dict(type='mmadn.ADNConvNeXt', arch='tiny'),
        neck=None,
        head=dict(type='LinearClsHead', in_channels=768),
    ),
}


CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


@dataclass
class Settings:
    """How to measure.

    Args:
        shape (Sequence[int]): Channels, height and width of an image; the channels are 3.
        warmup (int): Rounds that are run first and not counted.
        clock (str): 'wall', or 'cpu' for the processor time of the process: on a busy machine the
            steadier one, and the same as the wall's where one thread has a core to itself.

    Raises:
        ValueError: The channels are not 3, or the clock does not fit the device.
    """

    arch: str = 'resnet50'
    rounds: int = 100
    warmup: int = 3
    batch: int = 1
    shape: Sequence[int] = (3, 224, 224)
    device: str = 'cpu'
    clock: str = 'wall'

    def __post_init__(self):
        if self.shape[0] != 3:
            raise ValueError(f'shape={tuple(self.shape)}: give 3 channels, height and width')
        if self.clock == 'cpu' and self.device != 'cpu':
            raise ValueError(f"clock='cpu' does not see what {self.device} does; give 'wall'")


@dataclass
class Contestant:
    """One bar of the picture: `run` is timed, `prepare` comes before it and is not."""

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


@dataclass
class Ratio:
    """The time of one contestant over the sum of the times of others, and what is hoped for."""

    of: str
    to: tuple[str, ...]
    target: float

    @property
    def name(self):
        to = ' + '.join(self.to)
        return f'{self.of} / ({to})' if len(self.to) > 1 else f'{self.of} / {to}'

    def rounds(self, times):
        return np.asarray(times[self.of]) / np.sum([times[name] for name in self.to], axis=0)


def inference(settings: Settings) -> dict:
    """Latency of a forward pass: stock networks, steady depths, first forward after `set_skip`.

    Every timed forward follows an untimed one of the same network. For a steady depth that ran at
    this depth, for a first forward at the other; the switch itself belongs to the time.

    Returns:
        dict: Settings, machine, times of all rounds, their summaries, ratios; see `result`.
    """
    nets = classifiers(settings.arch, settings.device)
    share_weights(nets)
    for net in nets.values():
        net.eval()
    full, short, adn = nets.values()
    x = torch.randn(settings.batch, *settings.shape, device=settings.device)
    backbone = adn.backbone

    def at(skip):
        backbone.set_skip(skip)
        return adn(x)

    deep, shallow = (backbone.parse_skip(skip) for skip in ('super', 'base'))
    contestants = [
        Contestant('stock', lambda: full(x), lambda: full(x)),
        Contestant(f'ADN {deep}', lambda: adn(x), lambda: at(deep)),
        Contestant(f'first {deep}', lambda: at(deep), lambda: at(shallow)),
        Contestant('stock-base', lambda: short(x), lambda: short(x)),
        Contestant(f'ADN {shallow}', lambda: adn(x), lambda: at(shallow)),
        Contestant(f'first {shallow}', lambda: at(shallow), lambda: at(deep)),
    ]
    ratios = [
        Ratio(f'ADN {deep}', ('stock',), 1.02),
        Ratio(f'ADN {shallow}', ('stock-base',), 1.02),
        Ratio(f'first {deep}', (f'ADN {deep}',), 1.05),
        Ratio(f'first {shallow}', (f'ADN {shallow}',), 1.05),
    ]
    with torch.inference_mode():
        times = measure(contestants, settings)
    return result('inference', settings, times, ratios)


def train(settings: Settings) -> dict:
    """Time and peak memory of a training step: both stock networks and self-distillation.

    All take the same batch of bytes through mmpretrain's preprocessor and SGD with momentum in
    mmengine's OptimWrapper. The steps measured are steady ones, with the optimizer's state in
    place. Memory is that of weights, buffers and optimizer state plus `peak_memory` of a step.

    Returns:
        dict: As from `inference`, with `memory_mib` in addition.

    Raises:
        ValueError: A batch norm of the last stage would see a single value a channel.
    """
    batch, shape, device = settings.batch, settings.shape, settings.device
    if batch * math.prod(math.ceil(side / 32) for side in shape[1:]) < 2:
        raise ValueError(
            f'batch={batch} at shape={tuple(shape)}: the last norms would see one value a channel; '
            'give a larger batch, or more than 32 pixels a side'
        )
    images = torch.randint(256, (batch, *shape), dtype=torch.uint8, device=device)
    labels = torch.randint(CLASSES, (batch,)).tolist()
    data = dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in labels])
    hook = SelfDistillationHook()
    contestants, held = [], {}
    names = ('stock', 'stock-base', 'self-distilled')
    for name, net in zip(names, classifiers(settings.arch, device).values(), strict=True):
        net.train()
        sgd = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
        step = partial(hook.train_step, net) if name == 'self-distilled' else net.train_step
        contestants.append(Contestant(name, partial(step, data, OptimWrapper(sgd))))
        held[name] = partial(_held, net, sgd)
    times = measure(contestants, settings)
    memory = {c.name: (held[c.name]() + peak_memory(c.run, device)) / MIB for c in contestants}
    ratios = [Ratio('self-distilled', ('stock', 'stock-base'), 1.03)]
    out = result('train', settings, times, ratios)
    out['memory_mib'] = memory
    value = memory['self-distilled'] / memory['stock']
    out['ratios']['memory, self-distilled / stock'] = judged([value], 1.05)
    return out


def classifiers(arch: str, device='cpu') -> dict[str, ImageClassifier]:
    """The contestants' networks `full`, `short` and `adn` with equal, untrained weights.

    Batch norms get varied statistics and scales: at their initial values, many residual branches
    would be zero.
    """
    spec = ARCHS[arch]
    nets = {}
    scope = DefaultScope.overwrite_default_scope('mmpretrain')
    with torch.random.fork_rng(devices=[]), _quiet(), scope:
        torch.manual_seed(0)
        for role in ('full', 'short', 'adn'):
            nets[role] = ImageClassifier(
                backbone=spec[role],
                neck=spec['neck'],
                head=dict(spec['head'], num_classes=CLASSES, loss=dict(type='CrossEntropyLoss')),
                data_preprocessor=dict(
                    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
                ),
            )
        nets['full'].init_weights()
        for module in nets['full'].modules():
            if isinstance(module, _BatchNorm):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    _load(nets)
    return {role: net.to(device) for role, net in nets.items()}


def share_weights(nets: dict[str, ImageClassifier]) -> None:
    """Gives all networks the same weight tensors, but keeps the second norms apart.

    Copies at other addresses alone would change the latency by a percent, either way.
    """
    _load(nets, assign=True)
    for module in nets['adn'].modules():
        if isinstance(module, SkipAwareNorm):
            module.skip = deepcopy(module.full)


def _load(nets, **kwargs):
    weights = nets['full'].state_dict()
    nets['adn'].load_state_dict(weights, **kwargs)
    nets['short'].load_state_dict({k: weights[k] for k in nets['short'].state_dict()}, **kwargs)


def measure(contestants: list[Contestant], settings: Settings) -> dict[str, list[float]]:
    """Runs every contestant once a round, in random order, and shows the progress.

    Returns:
        dict: For each contestant the milliseconds of all rounds but the warm-up ones.
    """
    times = {c.name: [] for c in contestants}
    order, total = random.Random(0), settings.warmup + settings.rounds
    # Without auto_refresh: the thread that draws would take its time from whoever runs.
    with Progress(console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task('benchmark', total=total)
        for index in range(total):
            for contestant in order.sample(contestants, len(contestants)):
                milliseconds = _timed(contestant, settings)
                if index >= settings.warmup:
                    times[contestant.name].append(milliseconds)
            progress.update(task, advance=1, refresh=True)
    return times


def _timed(contestant, settings):
    clock = CLOCKS[settings.clock]
    contestant.prepare()
    _synchronize(settings.device)
    start = clock()
    contestant.run()
    _synchronize(settings.device)
    return (clock() - start) * 1000


def _synchronize(device):
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


def peak_memory(run: Callable[[], object], device='cpu') -> int:
    """By how many bytes of tensors `run()` exceeds, at its peak, what was there before.

    On CUDA these are the bytes of torch's allocator. On a CPU they are the storages that operators
    return, each from then on until it is freed, whoever holds it (autograd too); what a kernel
    takes and gives back within one operator is not in it. Either is exact and repeatable, which
    the resident memory of a process is not.
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveStorages() as live:
        run()
    return live.peak


class _LiveStorages(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.sizes, self.total, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        older = {s.data_ptr() for s in _storages((args, kwargs))}  # of views and in-place operators
        for storage in _storages(result):
            address = storage.data_ptr()
            if address not in older and address not in self.sizes:
                self.sizes[address] = storage.nbytes()
                self.total += storage.nbytes()
                self.peak = max(self.peak, self.total)
                weakref.finalize(storage, self._freed, address)
        return result

    def _freed(self, address):
        self.total -= self.sizes.pop(address)


def _storages(tree):
    return [x.untyped_storage() for x in tree_iter(tree) if isinstance(x, torch.Tensor)]


def _held(net, optimizer):
    """Bytes of parameters, buffers and optimizer state: what a step finds and leaves."""
    state = [x for x in tree_iter(optimizer.state_dict()['state']) if isinstance(x, torch.Tensor)]
    return sum(x.nbytes for x in (*net.parameters(), *net.buffers(), *state))


def summary(values) -> dict:
    """Median, quartiles, and the interval that holds the true median 19 times out of 20."""
    values = np.sort(np.asarray(values, dtype=float))
    n, half = len(values), 0.98 * math.sqrt(len(values))  # ranks of a binomial, p = 1/2
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
    low = values[max(math.floor(n / 2 - half), 1) - 1]
    high = values[min(math.ceil(n / 2 + 1 + half), n) - 1]
    numbers = dict(median=median, q1=q1, q3=q3, low=low, high=high)
    return {name: float(value) for name, value in numbers.items()}


def judged(values, target: float) -> dict:
    """A summary with its target, and whether the median is at most that."""
    numbers = summary(values)
    return {**numbers, 'target': target, 'met': numbers['median'] <= target}


def result(kind, settings, times, ratios) -> dict:
    """Everything that `save` and `show` need, ready for JSON; times are in milliseconds."""
    return {
        'benchmark': kind,
        'settings': asdict(settings),
        'machine': machine(),
        'medians_ms': {name: summary(values) for name, values in times.items()},
        'ratios': {r.name: judged(r.rounds(times), r.target) for r in ratios},
        'times_ms': times,
    }


def show(out: dict) -> None:
    """Prints the times and the ratios as two tables."""
    times, memory = [], out.get('memory_mib', {})
    for name, t in out['medians_ms'].items():
        spread = f'{t["q1"]:.2f} - {t["q3"]:.2f}'
        times.append({'': name, 'median, ms': f'{t["median"]:.2f}', 'quartiles': spread})
        if memory:
            times[-1]['peak, MiB'] = f'{memory[name]:.1f}'
    print_table(times, _title(out))
    ratios = []
    for name, r in out['ratios'].items():
        unsure = ' (noise)' if r['low'] <= r['target'] < r['high'] else ''
        ratios.append(
            {
                'within a round': name,
                'median': f'{r["median"]:.3f}',
                '95 % interval': f'{r["low"]:.3f} - {r["high"]:.3f}',
                'at most': f'{r["target"]:.2f}',
                'met': ('yes' if r['met'] else 'NO') + unsure,
            }
        )
    print_table(ratios)


def _title(out):
    s, m = out['settings'], out['machine']
    what = {'inference': 'forward pass', 'train': 'training step'}[out['benchmark']]
    size = 'x'.join(map(str, s['shape']))
    where = m['gpu'] if s['device'].startswith('cuda') else f'{m["cpu"]}, threads: {m["threads"]}'
    clock = '' if s['clock'] == 'wall' else ', processor time'
    return f'{s["arch"]} {what}, batch {s["batch"]} of {size}, {where}{clock}, {s["rounds"]} rounds'


def save(out: dict, folder) -> None:
    """Writes `inference.json` and `inference.png` (or `train`), each whole or not at all."""
    write_json(f'{folder}/{out["benchmark"]}.json', out)
    picture(out, f'{folder}/{out["benchmark"]}.png')


def picture(out: dict, path) -> None:
    """Draws the medians as bars, their quartiles as whiskers, and the ratios beside the bars."""
    medians = out['medians_ms']
    kinds = {  # two hues of Okabe and Ito that colour-blind readers tell apart
        'stock network (-base: of the mandatory blocks only)': dict(facecolor='#56B4E9', edgecolor='#333333'),
        'adaptive depth': dict(facecolor='#E69F00', edgecolor='#333333'),
        'first forward after a switch': dict(facecolor='#F7DDA3', edgecolor='#333333', hatch='///'),
    }
    figure = Figure(figsize=(10, 1.7 + 0.5 * len(medians)), layout='constrained')
    axes = figure.add_subplot()
    handles = {}
    for name, t in medians.items():
        kind = list(kinds)[0 if name.startswith('stock') else 2 if name.startswith('first') else 1]
        handles[kind] = axes.barh(name, t['median'], 0.7, **kinds[kind])
        whisker = [[t['median'] - t['q1']], [t['q3'] - t['median']]]
        axes.errorbar(t['median'], name, xerr=whisker, color='#333333', capsize=3)
        ratios = [
            f'{r["median"]:.3f} of {label.split(" / ")[1]}'
            for label, r in out['ratios'].items()
            if label.split(' / ')[0] == name
        ]
        note = ',  '.join([f'{t["median"]:.1f} ms', *ratios])
        if 'memory_mib' in out:
            note += f'\npeak memory {out["memory_mib"][name]:.0f} MiB'
        axes.annotate(note, (t['q3'], name), (8, 0), textcoords='offset points', va='center')
    axes.invert_yaxis()
    axes.set_xlim(0, 1.65 * max(t['q3'] for t in medians.values()))
    axes.set_xlabel('ms: median and quartiles over the rounds; ratios: median within a round')
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(axis='y', length=0)
    figure.suptitle(_title(out), x=0.01, ha='left', fontsize=11)
    figure.legend(handles.values(), handles, loc='outside lower center', ncols=3, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


@contextmanager
def _quiet():
    """Without mmengine's line for every parameter that `init_weights` fills."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
