"""What an epoch of self-distillation costs beside separate trainings of two networks (paper, Table 2)."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from benchmarks import Contestant, Ratio, Settings, measure
from mmadn.errors import InputError
from mmadn.evaluation.timing import read_clock, summary
from mmadn.utils.report import machine

from .timed_step import TrainStep

NAMES = {
    'adaptive': 'adaptive, self-distilled',
    'full': 'individual, full',
    'base': 'individual, -base',
}
TIME = Ratio('adaptive', ('full', 'base'), target=1.0)


def epoch_cost(
    configs: dict[str, Config],
    rounds: int = 10,
    warmup: int = 2,
    batch: int | None = None,
    shape: Sequence[int] | None = None,
    images: int | None = None,
    device: str = 'cpu',
    clock: str = 'wall',
) -> dict:
    """Measures a training step of three classifiers side by side, and what an epoch of each takes.

    A step is what a Runner does with a batch: preprocessing with mixup or cutmix, forward, backward and the
    optimizer by the config's wrapper, and in the adaptive network what SelfDistillationHook makes of it. The
    images and labels are random, and there is one process. Loading of data, other hooks and validation are
    left out. The weights are untrained and stay as they are.

    Args:
        configs: Of the networks `adaptive`, `full` and `base`.
        rounds, warmup, device, clock: See `benchmarks.Settings`.
        batch: Images in a batch; by default as many as the configs train with.
        shape: Channels, height and width of an image; by default what the training pipeline makes of one.
        images: In an epoch; by default as many as ImageNet has for a dataset of `num_classes=1000`, otherwise
            as the training data have.

    Returns:
        `settings`, `machine`, `config_batch`; `images` and `iterations` of an epoch; `networks`, for
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
        step_ms = summary(times[role])
        epoch_s = step_ms['median'] / 1000 * iterations
        networks[role] = {'step_ms': step_ms, 'epoch_s': epoch_s, 'memory_mib': step.memory()}
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


def _agreed(values: dict[str, Any], what: str, advice: str) -> Any:
    """The value that all networks have; raises ValueError if they differ."""
    if len(set(values.values())) > 1:
        listed = ', '.join(f'{role} {value}' for role, value in values.items())
        raise InputError(f'the configs differ in {what}: {listed}; {advice}')
    return values['adaptive']
