"""What an epoch of self-distillation costs beside separate trainings of two networks (paper, Table 2)."""

import copy
import math
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS, OPTIM_WRAPPERS, DefaultScope
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample

from benchmarks import Contestant, Ratio, Settings, measure
from benchmarks.contests.train import MIB, bytes_held
from mmadn.checkpoint.files import load_model
from mmadn.engine.self_distillation import SelfDistillationHook
from mmadn.engine.teacher import DistillationHook
from mmadn.errors import InputError
from mmadn.evaluation.memory import peak_memory
from mmadn.evaluation.timing import read_clock, summary
from mmadn.utils.report import BLUE, ORANGE, VERMILION, machine, markdown_table, replacing, write_json

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
        # As much of a runner as the hooks ask for.
        self.runner = SimpleNamespace(model=self.model, iter=-1, cfg=cfg, seed=0)
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


def _unit(seconds):
    """The unit that suits, and its seconds."""
    return next(u for u in (('h', 3600), ('min', 60), ('s', 1)) if seconds >= u[1] or u[1] == 1)


def tables(report: dict) -> tuple[list[dict], list[dict]]:
    """The networks and the ratios of a report of `epoch_cost`, as text."""
    unit, seconds = _unit(max(n['epoch_s'] for n in report['networks'].values()))
    networks = [
        {
            'network': role,
            'step (ms)': f'{n["step_ms"]["median"]:.1f}',
            '95 % interval': f'{n["step_ms"]["low"]:.1f} - {n["step_ms"]["high"]:.1f}',
            f'extrapolated epoch ({unit})': f'{n["epoch_s"] / seconds:.2f}',
            'peak (MiB)': f'{n["memory_mib"]:.1f}',
        }
        for role, n in report['networks'].items()
    ]
    ratios = [
        {
            'ratio': name,
            'median': f'{r["median"]:.3f}',
            '95 % interval': f'{r["low"]:.3f} - {r["high"]:.3f}' if name.startswith('time') else '-',
        }
        for name, r in report['ratios'].items()
    ]
    return networks, ratios


def remarks(report: dict) -> list[str]:
    """What to know beside the tables: the batch, the machine, and what an epoch is here."""
    s, m = report['settings'], report['machine']
    theirs = report['config_batch']
    of = '' if s['batch'] == theirs else f'; the configs have {theirs} in each'
    return [
        f'Batch {s["batch"]} of {"x".join(map(str, s["shape"]))} in all, as this is one process{of}. '
        f'{_where(report)}, torch {m["torch"]}; {s["rounds"]} rounds, each with a step of all three.',
        f'The epoch is extrapolated: {report["iterations"]} median steps for {report["images"]} images. '
        'Loading of data, other hooks and validation are not in it.',
    ]


def _where(report):
    s, m = report['settings'], report['machine']
    where = m['gpu'] if s['device'].startswith('cuda') else f'{m["cpu"]}, threads: {m["threads"]}'
    return f'{where}, processor time' if s['clock'] == 'cpu' else where


def plot(report: dict, path) -> None:
    """Draws the epoch of one training beside those of two, and the peak memory of each, as a PNG."""
    networks = report['networks']
    epochs = {role: n['epoch_s'] for role, n in networks.items()}
    unit, seconds = _unit(max(epochs.values()))
    figure = Figure(figsize=(9, 4.6), layout='constrained')
    time, memory = figure.subplots(1, 2)
    below = dict(adaptive=0, base=0, full=epochs['base'])
    for role in ('adaptive', 'base', 'full'):
        place, height = int(role != 'adaptive'), epochs[role] / seconds
        bar = time.bar(place, height, 0.6, below[role] / seconds, color=COLOURS[role], label=NAMES[role])
        ink = 'black' if role == 'base' else 'white'  # what can be read on the bar
        time.bar_label(bar, [f'{height:.3g}'], label_type='center', color=ink)
    time.set_xticks([0, 1], ['one training,\nall depths', 'two trainings'])
    time.set_ylabel(f'an epoch, extrapolated ({unit})')
    ratio = report['ratios'][f'time, {TIME.name}']
    interval = f'{ratio["low"]:.3f} - {ratio["high"]:.3f}'
    time.set_title(f'one takes {ratio["median"]:.3f} of two ({interval})', fontsize=10)
    for place, role in enumerate(NAMES):
        mib = networks[role]['memory_mib']
        memory.bar_label(memory.bar(place, mib, 0.6, color=COLOURS[role]), [f'{mib:.3g}'], padding=2)
    memory.set_xticks(range(3), ['adaptive', 'full', '-base'])
    memory.set_ylabel('peak memory of a step (MiB)')
    ratio = report['ratios']['memory, adaptive / full']
    memory.set_title(f'adaptive takes {ratio["median"]:.3f} of full', fontsize=10)
    for axes in (time, memory):
        axes.margins(y=0.1)
        axes.spines[['top', 'right']].set_visible(False)
        axes.tick_params(axis='x', length=0)
    s = report['settings']
    size = 'x'.join(map(str, s['shape']))
    figure.suptitle(
        f'{s["arch"]}, batch {s["batch"]} of {size}, {_where(report)}, {s["rounds"]} rounds',
        x=0.01,
        ha='left',
        fontsize=10,
    )
    handles, labels = time.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=3, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def write_report(report: dict, out, **about) -> None:
    """Writes `epoch_cost.json`, `epoch_cost.md` and `epoch_cost.png` into the folder `out`.

    Args:
        report (dict): From `epoch_cost`.
        **about: What else the JSON file records, such as the configs.
    """
    out = Path(out)
    write_json(out / 'epoch_cost.json', {**about, **report})
    parts = [*map(markdown_table, tables(report)), '\n'.join(remarks(report))]
    with replacing(out / 'epoch_cost.md') as path:
        path.write_text('\n\n'.join(parts) + '\n')
    plot(report, out / 'epoch_cost.png')
