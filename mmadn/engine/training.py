"""A training with its checks before it and few words on the screen."""

import os

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner, find_latest_checkpoint
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..datasets.checks import check_data, check_loops, check_weights, innermost, some
from ..depth import AdaptiveDepth, unwrap
from ..errors import InputError
from ..utils.cores import available_cores
from .quiet import CarefulRunner, QuietRunner


def train(cfg: Config, verbose: bool = False) -> Runner:
    """Trains by a config, and says before what is wrong with it.

    Args:
        cfg: Its `work_dir` is set; it may be changed.
        verbose: Whether the screen shows all that the log file has.

    Returns:
        The Runner after the training.

    Raises:
        OSError: Data or weights are missing.
        ValueError: Settings do not fit each other, the data or this machine.
    """
    check_data(cfg, ('train', 'val'))
    check_weights(cfg)
    if str(cfg.optim_wrapper.get('type')) == 'AmpOptimWrapper' and get_device() == 'cpu':
        raise InputError(
            'this config trains in mixed precision, which needs a GPU; give --cfg-options '
            'optim_wrapper.type=OptimWrapper'
        )
    runner = (CarefulRunner if verbose else QuietRunner).from_cfg(cfg)
    check_loops(runner, ('train', 'val'))
    runner.register_hook(FrozenNormsCheck())
    say(about(runner))
    runner.train()
    return runner


class FrozenNormsCheck(Hook):
    """Stops a training of frozen batch norms into which no weights were loaded."""

    def before_train(self, runner: Runner) -> None:
        backbone = _backbone(unwrap(runner.model))
        backbone.train()
        norms = [norm for norm in backbone.modules() if isinstance(norm, _BatchNorm) and not norm.training]
        if any(not norm.running_mean.any() and (norm.running_var == 1).all() for norm in norms):
            raise InputError(
                'the norms of the backbone are frozen with the statistics of an untrained network; start '
                'from weights by --load-from or model.backbone.init_cfg, or train the norms by --cfg-options '
                'model.backbone.norm_eval=False model.backbone.norm_cfg.requires_grad=True '
                'model.backbone.frozen_stages=-1'
            )


def _backbone(model: nn.Module) -> nn.Module:
    """The adaptive backbone of a model, or what else it has; without any, the model."""
    adaptive = (module for module in model.modules() if isinstance(module, AdaptiveDepth))
    return next(adaptive, getattr(model, 'backbone', model))


def resume(cfg: Config, checkpoint: str) -> None:
    """Lets a config go on from a checkpoint, or with 'auto' from the last one in its work dir.

    Where there is none yet it stays as it is, and a line says so.
    """
    found = last_checkpoint(cfg.work_dir) if checkpoint == 'auto' else checkpoint
    if found:
        cfg.load_from, cfg.resume = found, True
    else:
        say([f'Nothing to resume in {cfg.work_dir}, which has no checkpoint: the training begins anew'])


def last_checkpoint(work_dir: str) -> str | None:
    """The last checkpoint of a work dir, if it has one."""
    there = os.path.exists(os.path.join(work_dir, 'last_checkpoint'))
    return find_latest_checkpoint(work_dir) if there else None


def say(lines: list[str]) -> None:
    """Prints lines at once, in the first of several processes."""
    if is_main_process():
        print('\n'.join(lines), flush=True)


def about(runner: Runner) -> list[str]:
    """What is trained on what."""
    model, loop = unwrap(runner.model), runner.train_loop
    backbone, loader = _backbone(model), loop.dataloader
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    network = f'{type(model).__name__} on {type(backbone).__name__}, {parameters:.3g} M parameters'
    if isinstance(backbone, AdaptiveDepth):
        network += f', {2**backbone.num_skippable_stages} depths'
    classes = innermost(loader.dataset).metainfo.get('classes')
    data = [f'{len(loader.dataset)} images to train on']
    if runner.val_loop is not None:
        data.append(f'{len(runner.val_loop.dataloader.dataset)} to validate with')
    if classes:
        data.append(f'{len(classes)} classes: {some(classes)}')
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    length = f'{loop.max_epochs} epochs of {len(loader)} batches' if by_epoch else f'{loop.max_iters} batches'
    batch = getattr(loader.batch_sampler, 'batch_size', loader.batch_size)
    if by_epoch and runner.val_loop is not None:
        length += f', validated every {loop.val_interval}'
    lines = [
        f'Network: {network}',
        f'Data: {", ".join(data)}',
        f'Length: {length}, of {batch} images, on {get_device()}',
        f'Work dir: {runner.cfg.work_dir}, with the log in {runner.timestamp}/',
    ]
    load, threads = os.getloadavg()[0], torch.get_num_threads()
    if get_device() == 'cpu' and threads > 1 and load + threads > available_cores() + 1:
        lines.append(
            f'Other programs are using this machine (load {load:.1f}), and threads that wait for each other '
            'are slow: OMP_NUM_THREADS=1 before the command may be several times as fast'
        )
    return lines
