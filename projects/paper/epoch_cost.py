"""What an epoch of self-distillation costs beside separate trainings of two networks (paper, Table 2)."""

import copy
import math
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from matplotlib.axes import Axes
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS, OPTIM_WRAPPERS, DefaultScope
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample

from benchmarks import Contestant, Ratio, Settings, measure
from benchmarks.contests.train import MIB, bytes_held
from mmadn.checkpoint.files import load_model
from mmadn.engine.self_distillation import DistillationHook, SelfDistillationHook
from mmadn.errors import InputError
from mmadn.evaluation.memory import peak_memory
from mmadn.evaluation.timing import read_clock, summary
from mmadn.utils.report import BLUE, ORANGE, VERMILION, cells, drawing, machine, write_json

from .results import write_markdown

IMAGENET = 1281167  # training images of ImageNet-1k
NAMES = {
    'adaptive': 'adaptive, self-distilled',
    'full': 'individual, full',
    'base': 'individual, -base',
}
COLOURS = {'adaptive': BLUE, 'full': VERMILION, 'base': ORANGE}
TIME = Ratio('adaptive', ('full', 'base'), target=1.0)


def epoch_cost(
    configs: dict,
    rounds: int = 10,
    warmup: int = 2,
    batch: int | None = None,
    shape=None,
    images: int | None = None,
    device: str = 'cpu',
    clock: str = 'wall',
) -> dict:
    """Measures a training step of three classifiers side by side, and says what an epoch of them takes.

    A step is what a Runner does with a batch: preprocessing with mixup or cutmix, forward, backward and the
    optimizer by the config's wrapper, and in the adaptive network what SelfDistillationHook makes of it. The
    batch is one of random bytes and labels, in one process. Loading of data, other hooks and validation are
    left out. The weights are untrained and stay as they are.

    Args:
        configs (dict[str, Config]): Of the networks `adaptive`, `full` and `base`.
        rounds, warmup, device, clock: See `benchmarks.Settings`.
        batch (int, optional): Images in a batch; by default as many as the configs train with.
        shape (Sequence[int], optional): Channels, height and width of an image; by default what the
            training pipeline makes of one.
        images (int, optional): In an epoch; by default ImageNet's for a dataset of `num_classes=1000`,
            otherwise those of the training data.

    Returns:
        dict: `settings`, `machine`, `config_batch`; `images` and `iterations` of an epoch; `networks`, for
        each of the three `step_ms` (see `summary`), `epoch_s`, the median step times the iterations, and
        `memory_mib`, the peak of a step with weights and optimizer state; `ratios` of the time, within a
        round, and of the memory; and `times_ms` of all rounds.

    Raises:
        OSError: The training data are needed and cannot be read.
        ValueError: A setting is out of range, a config is not of its kind, or they differ in the batch.
    """
    for name, value in dict(rounds=rounds, warmup=warmup, batch=batch, images=images).items():
        if value is not None and value < 1:
            raise InputError(f'{name}={value}: give a whole number from 1 on')
    try:
        torch.device(device)
    except RuntimeError:
        raise InputError(f'device={device!r}: give cpu, cuda or cuda:N') from None
    read_clock(clock, device)
    steps = {role: TrainStep(role, configs[role], device) for role in NAMES}
    size = {role: sum(p.numel() for p in steps[role].model.parameters()) / 1e6 for role in ('full', 'base')}
    if size['base'] >= size['full']:
        raise InputError(
            f'the base network has {size["base"]:.2f} M parameters and the full one {size["full"]:.2f} M; '
            'give the smaller one as --base'
        )
    config_batch = {role: step.loader.batch_size for role, step in steps.items()}
    batch = batch or _agreed(config_batch, 'the batch size', 'give --batch')
    if shape is None:
        shapes = {role: step.image_shape() for role, step in steps.items()}
        shape = _agreed(shapes, 'the shape of an image', 'give --shape')
    heads = {role: step.model.head.num_classes for role, step in steps.items()}
    classes = _agreed(heads, 'the number of classes', 'give configs of one task')
    images = images or steps['adaptive'].count_images()
    arch = Path(configs['adaptive'].filename or '').stem
    settings = Settings(arch, rounds, warmup, batch, list(shape), device, clock)
    for step in steps.values():
        step.draw(batch, shape, classes)
        step.rehearse()
    times = measure([Contestant(role, step.run, step.prepare) for role, step in steps.items()], settings)
    iterations = steps['adaptive'].iterations(images)
    networks = {}
    for role, step in steps.items():
        took = summary(times[role])
        epoch = took['median'] / 1000 * iterations
        networks[role] = {'step_ms': took, 'epoch_s': epoch, 'memory_mib': step.memory()}
    memory = networks['adaptive']['memory_mib'] / networks['full']['memory_mib']
    return {
        'settings': asdict(settings),
        'machine': machine(),
        'config_batch': config_batch['adaptive'],
        'images': images,
        'iterations': iterations,
        'networks': networks,
        'ratios': {
            f'time, {TIME.name}': summary(TIME.rounds(times)),
            'memory, adaptive / full': summary([memory]),
        },
        'times_ms': times,
    }


def _agreed(values, what, advice):
    if len(set(values.values())) > 1:
        said = ', '.join(f'{role} {value}' for role, value in values.items())
        raise InputError(f'the configs differ in {what}: {said}; {advice}')
    return values['adaptive']


class TrainStep:
    """The training step of one config, as a Runner would do it, with a batch of random images.

    Args:
        role (str): 'adaptive', 'full' or 'base'.
        cfg (Config): Of a classifier, with what is needed to train it.

    Raises:
        ValueError: The config is not of this kind, or does not train on this device.
    """

    def __init__(self, role: str, cfg: Config, device):
        self.role, self.device = role, torch.device(device)
        lacking = [name for name in ('model', 'train_dataloader', 'optim_wrapper') if not cfg.get(name)]
        if lacking:
            raise InputError(f'the {role} config has no {", ".join(lacking)}: give one to train with')
        self.loader, self.scope = cfg.train_dataloader, cfg.get('default_scope') or 'mmpretrain'
        self.model = load_model(cfg, device=device).train()
        if not isinstance(self.model, ImageClassifier):
            raise InputError(
                f'the {role} config is of a {type(self.model).__name__}; give one of an ImageClassifier'
            )
        with self._scoped():
            self.wrapper = self._optim_wrapper(copy.deepcopy(cfg.optim_wrapper))
            self.hooks = self._hooks(cfg.get('custom_hooks') or ())
        self.runner = SimpleNamespace(model=self.model, iter=-1)  # as much as the hooks ask of one
        for hook in self.hooks:
            hook.before_train(self.runner)

    def _scoped(self):
        return DefaultScope.overwrite_default_scope(self.scope)

    def _optim_wrapper(self, cfg):
        kind = cfg.get('type', 'OptimWrapper')
        kind = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
        if self.device.type == 'cpu' and issubclass(kind, AmpOptimWrapper):
            raise InputError(
                f'the {self.role} config trains by {kind.__name__}, which needs a GPU; give --device cuda '
                'or --cfg-options optim_wrapper.type=OptimWrapper'
            )
        wrapper = build_optim_wrapper(self.model, cfg)
        for group in wrapper.param_groups:
            group['lr'] = 0.0  # costs the same, and no network diverges on labels that mean nothing
        return wrapper

    def _hooks(self, custom):
        """Those that stand in for `train_step`."""
        hooks = []
        with HOOKS.switch_scope_and_registry(None) as registry:
            for cfg in custom:
                kind = registry.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
                if kind in (SelfDistillationHook, DistillationHook):
                    hooks.append(registry.build(copy.deepcopy(cfg)))
        adaptive = any(isinstance(hook, SelfDistillationHook) for hook in hooks)
        if adaptive != (self.role == 'adaptive'):
            raise InputError(
                f'the {self.role} config trains {"by" if adaptive else "without"} SelfDistillationHook; give '
                'one with it as --adaptive, and those of individual networks as --full and --base'
            )
        return hooks

    @cached_property
    def dataset(self):
        """The training data; raises FileNotFoundError if they are not there."""
        try:
            with self._scoped():
                return DATASETS.build(copy.deepcopy(self.loader.dataset))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'the {self.role} config: {error}; without data, give --images and --shape'
            ) from None

    def image_shape(self) -> tuple:
        """Channels, height and width that the training pipeline makes of any image, or else of the first."""
        steps = self.loader.dataset.get('pipeline') or ()
        with self._scoped():
            pipeline = Compose(copy.deepcopy([s for s in steps if 'LoadImage' not in str(s['type'])]))
            shapes = set()
            for size in ((600, 800), (900, 700)):
                image = dict(img=np.zeros((*size, 3), np.uint8), img_shape=size, ori_shape=size, gt_label=0)
                shapes.add(tuple(getattr(pipeline(image).get('inputs'), 'shape', ())))
            found = shapes.pop()
            return tuple(self.dataset[0]['inputs'].shape) if shapes or not found else found

    def count_images(self) -> int:
        """How many an epoch has: ImageNet's for a dataset of `num_classes=1000`, else those of the data."""
        return IMAGENET if self.loader.dataset.get('num_classes') == 1000 else len(self.dataset)

    def iterations(self, images: int) -> int:
        """How many batches an epoch of so many images has in one process."""
        rest = math.floor if self.loader.get('drop_last') else math.ceil
        return max(rest(images / len(self.labels)), 1)

    def draw(self, batch: int, shape, classes: int) -> None:
        """Draws the batch, the same for all networks; its images move to the device in each step."""
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(256, (batch, *shape), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(classes, (batch,), generator=generator).tolist()

    def prepare(self) -> None:
        """What comes before a step and is not of it: the samples, which mixup changes, and the depths."""
        samples = [DataSample().set_gt_label(label) for label in self.labels]
        images = self.images if self.loader.get('collate_fn') else list(self.images)
        self.batch = dict(inputs=images, data_samples=samples)
        self.runner.iter += 1
        for hook in self.hooks:
            hook.before_train_iter(self.runner)

    def run(self) -> None:
        self.model.train_step(self.batch, self.wrapper)

    def rehearse(self) -> None:
        """A step that is not timed; raises ValueError if the network cannot learn from such a batch."""
        self.prepare()
        try:
            self.run()
        except (AssertionError, RuntimeError, ValueError) as error:
            size = 'x'.join(map(str, self.images.shape[1:]))
            raise InputError(
                f'a step of the {self.role} network fails with batch {len(self.labels)} of {size}: {error}; '
                'give another --batch or --shape'
            ) from error

    def memory(self) -> float:
        """MiB of weights, buffers and optimizer state, and of what a step takes beside them at its peak."""
        self.prepare()
        return (bytes_held(self.model, self.wrapper.optimizer) + peak_memory(self.run, self.device)) / MIB


def _unit(seconds: float) -> tuple[str, int]:
    """The unit that suits a time, and how many seconds it has."""
    return next(u for u in (('h', 3600), ('min', 60), ('s', 1)) if seconds >= u[1] or u[1] == 1)


def tables(report: dict) -> tuple[list[dict], list[dict]]:
    """The networks and the ratios of a report of `epoch_cost`, as text."""
    unit, seconds = _unit(max(n['epoch_s'] for n in report['networks'].values()))
    networks = [
        {**network, 'role': role, 'epoch': network['epoch_s'] / seconds, **_median(network['step_ms'], 1)}
        for role, network in report['networks'].items()
    ]
    ratios = [
        {'ratio': name, **_median(ratio, 3), **({} if name.startswith('time') else {'interval': '-'})}
        for name, ratio in report['ratios'].items()
    ]
    interval = ('95 % interval', '')
    return (
        cells(
            networks,
            {
                'role': ('network', ''),
                'median': ('step (ms)', '.1f'),
                'interval': interval,
                'epoch': (f'extrapolated epoch ({unit})', '.2f'),
                'memory_mib': ('peak (MiB)', '.1f'),
            },
        ),
        cells(ratios, {'ratio': ('ratio', ''), 'median': ('median', '.3f'), 'interval': interval}),
    )


def _median(numbers: dict, digits: int) -> dict:
    interval = f'{numbers["low"]:.{digits}f} - {numbers["high"]:.{digits}f}'
    return {'median': numbers['median'], 'interval': interval}


def remarks(report: dict) -> list[str]:
    """What to know beside the tables: the batch, the machine, and what an epoch is here."""
    settings, config_batch = report['settings'], report['config_batch']
    configs = '' if settings['batch'] == config_batch else f'; the configs have {config_batch} in each'
    return [
        f'Batch {settings["batch"]} of {_shape(report)} in all, as this is one process{configs}. '
        f'{_where(report)}, torch {report["machine"]["torch"]}; {settings["rounds"]} rounds, each with '
        'a step of all three.',
        f'The epoch is extrapolated: {report["iterations"]} median steps for {report["images"]} images. '
        'Loading of data, other hooks and validation are not in it.',
    ]


def _shape(report: dict) -> str:
    return 'x'.join(map(str, report['settings']['shape']))


def _where(report: dict) -> str:
    settings, computer = report['settings'], report['machine']
    processor = f'{computer["cpu"]}, threads: {computer["threads"]}'
    where = computer['gpu'] if settings['device'].startswith('cuda') else processor
    return f'{where}, processor time' if settings['clock'] == 'cpu' else where


def plot(report: dict, path: str | Path) -> None:
    """Draws the epoch of one training beside those of two, and the peak memory of each, as a PNG."""
    settings = report['settings']
    with drawing(path, (9, 4.6), columns=2) as (figure, panels):
        _draw_time(panels[0, 0], report)
        _draw_memory(panels[0, 1], report)
        for axes in panels.flat:
            axes.margins(y=0.1)
            axes.grid(visible=False)
            axes.spines[['top', 'right']].set_visible(False)
            axes.tick_params(axis='x', length=0)
        title = (
            f'{settings["arch"]}, batch {settings["batch"]} of {_shape(report)}, {_where(report)}, '
            f'{settings["rounds"]} rounds'
        )
        figure.suptitle(title, x=0.01, ha='left', fontsize=10)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside lower center', ncols=3, frameon=False)


def _draw_time(axes: Axes, report: dict) -> None:
    epochs = {role: network['epoch_s'] for role, network in report['networks'].items()}
    unit, seconds = _unit(max(epochs.values()))
    below = dict(adaptive=0, base=0, full=epochs['base'])
    for role in ('adaptive', 'base', 'full'):
        place, height = int(role != 'adaptive'), epochs[role] / seconds
        bar = axes.bar(place, height, 0.6, below[role] / seconds, color=COLOURS[role], label=NAMES[role])
        ink = 'black' if role == 'base' else 'white'  # what can be read on the bar
        axes.bar_label(bar, [f'{height:.3g}'], label_type='center', color=ink)
    axes.set_xticks([0, 1], ['one training,\nall depths', 'two trainings'])
    axes.set_ylabel(f'an epoch, extrapolated ({unit})')
    ratio = _median(report['ratios'][f'time, {TIME.name}'], 3)
    axes.set_title(f'one takes {ratio["median"]:.3f} of two ({ratio["interval"]})', fontsize=10)


def _draw_memory(axes: Axes, report: dict) -> None:
    for place, role in enumerate(NAMES):
        mib = report['networks'][role]['memory_mib']
        axes.bar_label(axes.bar(place, mib, 0.6, color=COLOURS[role]), [f'{mib:.3g}'], padding=2)
    axes.set_xticks(range(3), ['adaptive', 'full', '-base'])
    axes.set_ylabel('peak memory of a step (MiB)')
    ratio = report['ratios']['memory, adaptive / full']
    axes.set_title(f'adaptive takes {ratio["median"]:.3f} of full', fontsize=10)


def write_report(report: dict, out: str | Path, **about) -> None:
    """Writes `epoch_cost.json`, `epoch_cost.md` and `epoch_cost.png` into the folder `out`.

    Args:
        report: From `epoch_cost`.
        **about: What else the JSON file records, such as the configs.
    """
    out = Path(out)
    write_json(out / 'epoch_cost.json', {**about, **report})
    write_markdown(out / 'epoch_cost.md', *tables(report), '\n'.join(remarks(report)))
    plot(report, out / 'epoch_cost.png')
