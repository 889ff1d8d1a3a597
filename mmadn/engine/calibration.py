"""Statistics of batch norms by the path that leads to them, estimated from images."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from ..depth import AdaptiveDepth, PathNorm, adaptive_backbone, unwrap
from ..errors import InputError
from ..registry import HOOKS

FEWEST = 32  # images, of which batch statistics say anything


@HOOKS.register_module()
class CalibrationHook(Hook):
    """Calibrates the norms of an adaptive-depth backbone for every depth, see `calibrate`.

    It does so before each validation, and before the checkpoint of the same epoch or iteration is saved;
    and at the end of training. The weights are those that are trained: with mmengine's EMAHook, calibrate
    the averaged ones afterwards, by `tools/calibrate_norms.py`.

    Args:
        num_images: How many training images are used, by all processes together, if there are so many.

    Raises:
        ValueError: `num_images` is too small.
        TypeError: The model has no adaptive depth.
    """

    def __init__(self, num_images: int = 1024) -> None:
        check_number(num_images)
        self.num_images = num_images

    def before_train(self, runner: Runner) -> None:
        adaptive_backbone(runner.model)

    def after_train_epoch(self, runner: Runner) -> None:
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._calibrate_if_due(runner, runner.epoch + 1, runner.max_epochs)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            self._calibrate_if_due(runner, runner.iter + 1, runner.max_iters)

    def _calibrate_if_due(self, runner: Runner, done: int, last: int) -> None:
        loop = runner.train_loop
        validates = runner.val_loop is not None and done >= loop.val_begin and done % loop.val_interval == 0
        if validates or done == last:
            images = calibrate(runner.model, calibration_loader(loop.dataloader, self.num_images))
            runner.logger.info(
                f'Norms calibrated for all depths with {images} images'
                if images
                else 'The backbone has no batch norms, or frozen ones: there is nothing to calibrate'
            )


def check_number(images: int) -> None:
    """Raises ValueError where so many images are too few."""
    if type(images) is not int or images < FEWEST:
        raise InputError(f'{images!r} images are too few to calibrate norms with: give {FEWEST} or more')


def calibration_loader(loader: DataLoader, images: int) -> DataLoader:
    """A loader of so many images of another loader's data, drawn once and for all; of a process, its part.

    The other loader's own iteration, which a training is in the midst of, goes on undisturbed.
    """
    order = torch.randperm(len(loader.dataset), generator=torch.Generator().manual_seed(0))[:images]
    part = order[get_rank() :: get_world_size()].tolist()
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=part,
        drop_last=len(part) > loader.batch_size,  # of one image alone a norm can have no statistics
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


def training_images(cfg: Config, images: int) -> DataLoader:
    """A `calibration_loader` of so many images of a config's training data."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        return calibration_loader(Runner.build_dataloader(cfg.train_dataloader, seed=0), images)


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable) -> int:
    """Estimates the statistics of a backbone's batch norms anew, so that every depth is usable.

    Those of the first block of each stage after the first depend on the stage before too, see `PathNorm`, and
    are estimated for all pairs of switches; the others at the super-net and the base-net. Each image is run
    at four depths at most, which show each stage all pairs, while norms normalise by their batch, as in
    training. Weights do not change, and neither do frozen norms, which keep the statistics of their
    checkpoint: `norm_eval=True`, or a scale that is not trained. Of several processes each gives its own
    images, and all get the statistics of all.

    Args:
        model: Any model with an adaptive-depth backbone, wrapped for training or not; it is left in its
            own mode and at its own depth.
        batches: Batches as a data loader gives them, of training images, together at least two.

    Returns:
        How many images there were in this process; 0 if there is nothing to estimate, as in a transformer or
        where all norms are frozen, and nothing was run.

    Raises:
        TypeError: The model has no adaptive depth.
        ValueError: There are no batches, or the images give statistics that are not finite.
    """
    model = unwrap(model)
    backbone = adaptive_backbone(model)
    norms = _norms(backbone)
    if not norms:
        return 0
    images, seen = 0, {}
    with _noting(backbone, norms, seen):
        for data in batches:
            for inputs in _images(model.data_preprocessor(data, False)['inputs']):
                images += len(inputs)
                for skip in calibration_depths(backbone):
                    with backbone.skipping(skip):
                        backbone(inputs)
    if not images:
        raise InputError('there are no images to calibrate the norms with: give batches of a data loader')
    found = [(norm, pair, *sums.mean_and_variance()) for (norm, pair), sums in seen.items()]
    if not all(mean.isfinite().all() and variance.isfinite().all() for _, _, mean, variance in found):
        raise InputError(
            f'{images} images give statistics that are not finite: give more of them, and check that '
            'the weights are finite'
        )
    for norm, pair, mean, variance in found:
        if pair is None:
            kept = norm.running_mean, norm.running_var
        else:
            kept, norm.calibrated = norm.statistics(*pair), True
        kept[0].copy_(mean)
        kept[1].copy_(variance)
    return images


def _images(inputs: Tensor | dict[str, Tensor]) -> list[Tensor]:
    """Images of shape (N, 3, H, W); a tracker gets clips of them, semi-supervised training several kinds."""
    several = inputs.values() if isinstance(inputs, dict) else [inputs]
    return [each.flatten(0, -4) for each in several]


def _norms(backbone: AdaptiveDepth) -> list[nn.Module]:
    """What is calibrated: norms that depend on two stages, and the other batch norms, unless frozen."""
    by_path = [m for m in backbone.modules() if isinstance(m, PathNorm) and m.before is not None]
    inside = {norm for each in by_path for norm in each.children()}
    others = [m for m in backbone.modules() if isinstance(m, _BatchNorm) and m not in inside]
    frozen = getattr(backbone, 'norm_eval', False)
    return [norm for norm in by_path + others if not frozen and _is_trained(norm)]


def _is_trained(norm: nn.Module) -> bool:
    copy = norm.full if isinstance(norm, PathNorm) else norm
    return copy.track_running_stats and (copy.weight is None or copy.weight.requires_grad)


def calibration_depths(backbone: AdaptiveDepth) -> list[str]:
    """At most four depths that show every stage all pairs of its own switch and that of the stage before."""
    n = backbone.num_skippable_stages
    return list(dict.fromkeys(('F' * n, 'T' * n, ('TF' * n)[:n], ('FT' * n)[:n])))


class _Sums:
    """What the mean and the variance of the channels of maps of shape (N, C, H, W) are made of."""

    def __init__(self) -> None:
        self.count = self.total = self.squares = 0.0

    def add(self, x: Tensor) -> None:
        x = x.transpose(0, 1).flatten(1).double()
        self.count += x.shape[1]
        self.total += x.sum(1)
        self.squares += x.square().sum(1)

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        sums = torch.cat([self.total, self.squares, self.total.new_tensor([self.count])])
        all_reduce(sums)  # of all processes
        total, squares = sums[:-1].chunk(2)
        count = sums[-1]
        return total / count, (squares - total.square() / count) / (count - 1)


@contextmanager
def _noting(backbone: AdaptiveDepth, norms: list[nn.Module], seen: dict) -> Iterator[None]:
    """Lets batch norms normalise by their batch, without learning, and notes in `seen` what norms get.

    The keys are a norm and its pair of switches, or None for one that does not depend on two.
    """

    def note(norm, args):
        if isinstance(norm, PathNorm):
            seen.setdefault((norm, (norm.switch.on, norm.before.on)), _Sums()).add(args[0])
        elif len(set(backbone.skip)) == 1:
            seen.setdefault((norm, None), _Sums()).add(args[0])

    modes = {module: module.training for module in backbone.modules()}
    tracking = {m: m.track_running_stats for m in backbone.modules() if isinstance(m, _BatchNorm)}
    calibrated = {norm: norm.calibrated for norm in norms if isinstance(norm, PathNorm)}
    with ExitStack() as stack:
        for norm in norms:
            stack.callback(norm.register_forward_pre_hook(note).remove)
        try:
            for module in modes:
                module.training = isinstance(module, _BatchNorm)
            for norm in tracking:
                norm.track_running_stats = False
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            for norm, value in tracking.items():
                norm.track_running_stats = value
            for norm, value in calibrated.items():
                norm.calibrated = value
