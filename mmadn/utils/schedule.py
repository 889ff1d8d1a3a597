"""A config's schedule for another number of epochs, or for a small data set."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from ..errors import InputError

PARTS = 4  # after which, at least, a training on own data is validated and saved
WARM_UP = 0.1  # of a training, at most, where the config counts the warm-up in iterations


def set_epochs(cfg: Config, epochs: int) -> None:
    """Changes a config in place so that it trains for so many epochs.

    Warm-up, decay, validation, checkpoints and hooks that wait for an epoch keep their share of the training.

    Raises:
        ValueError: The config counts iterations, or `epochs` is no number from 1 on.
    """
    old = cfg.train_cfg.get('max_epochs')
    if not old:
        raise InputError('this config counts iterations; give --cfg-options train_cfg.max_iters=N')
    if epochs < 1:
        raise InputError(f'epochs={epochs}: give a number from 1 on')
    share = epochs / old
    cfg.train_cfg.max_epochs = epochs
    _set_val_interval(cfg, _scaled(cfg.train_cfg.get('val_interval', 1), share))
    if 'val_begin' in cfg.train_cfg:
        cfg.train_cfg.val_begin = min(_scaled(cfg.train_cfg.val_begin, share), epochs)
    for scheduler in _schedulers(cfg):
        if scheduler.get('by_epoch', True):
            _scale(scheduler, share)
    for hook in [*(cfg.get('custom_hooks') or ()), *(cfg.get('default_hooks') or {}).values()]:
        for name in ('begin_epoch', 'switch_epoch'):
            if name in (hook or {}):
                hook[name] = round(hook[name] * share)
    if checkpoint := _saving(cfg):
        checkpoint['interval'] = _scaled(checkpoint['interval'], share)


def _set_val_interval(cfg: Config, interval: int) -> None:
    """Takes the largest one up to this that divides the epochs, so that the last epoch is validated."""
    epochs = cfg.train_cfg.max_epochs
    cfg.train_cfg.val_interval = max(k for k in range(1, interval + 1) if epochs % k == 0)


def _saving(cfg: Config) -> dict | None:
    """The settings of the hook that saves checkpoints, if it does so by epochs."""
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    return checkpoint if checkpoint.get('interval', 0) > 0 and checkpoint.get('by_epoch', True) else None


def fit_schedule(cfg: Config, epoch_length: int) -> None:
    """Makes warm-ups fit a training that has few iterations, and validates and saves during it.

    Args:
        epoch_length: How many iterations an epoch has.
    """
    epochs = cfg.train_cfg.get('max_epochs')
    if not epochs:
        return
    _set_val_interval(cfg, min(cfg.train_cfg.get('val_interval', 1), max(1, epochs // PARTS)))
    if checkpoint := _saving(cfg):
        checkpoint['interval'] = min(checkpoint['interval'], cfg.train_cfg.val_interval)
    if 'param_scheduler' not in cfg:
        return
    last = epochs * epoch_length
    kept = []
    for scheduler in _schedulers(cfg):
        if not scheduler.get('by_epoch', True) and 'end' in scheduler:
            scheduler['end'] = min(scheduler['end'], max(1, int(WARM_UP * last)))
        if scheduler.get('convert_to_iter_based') and 'end' in scheduler:
            begin, end = (int(scheduler.get(name, 0) * epoch_length) for name in ('begin', 'end'))
            if begin >= end:  # not one iteration is left of it
                continue
        kept.append(scheduler)
    cfg.param_scheduler = kept


def _schedulers(cfg: Config) -> Iterator[Any]:
    found = cfg.get('param_scheduler') or []
    yield from [found] if isinstance(found, dict) else found


def _scale(scheduler: Any, share: float) -> None:
    """Stretches a schedule in epochs. What moves smoothly may begin and end within an epoch."""
    if 'milestones' in scheduler:
        scheduler['milestones'] = sorted({_scaled(each, share) for each in scheduler['milestones']})
    if 'step_size' in scheduler:
        scheduler['step_size'] = _scaled(scheduler['step_size'], share)
    smooth = not {'milestones', 'step_size'} & scheduler.keys()
    for name in ('begin', 'end', 'T_max'):
        if name in scheduler:
            value = scheduler[name] * share
            scheduler[name] = value if smooth else round(value)
    if smooth and {'end', 'T_max'} & scheduler.keys():
        scheduler['convert_to_iter_based'] = True


def _scaled(epochs: int, share: float) -> int:
    return max(1, round(epochs * share))
