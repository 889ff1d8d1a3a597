"""What each residual block adds to its input: how much, and whether along -dL/dh (paper, Fig. 3, 3.3)."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn

from mmadn.checkpoint.files import fill, load_model, read_checkpoint
from mmadn.depth import Skippable, adaptive_backbone, is_skipped, unwrap
from mmadn.errors import InputError, NotAdaptiveError

from .blocks import Block, evaluating, residual_blocks


def measure_residuals(
    model: nn.Module, batches: Iterable[dict], skips: Sequence[str] | str = ('super', 'base')
) -> list[dict]:
    """Measures what every residual block adds, F(h), against its input h and the gradient of the loss.

    In a block with a `drop_path`, the output of that is what is added, so it is F(h): the block's own output
    may have gone through a ReLU after the sum. In any other block F(h) is the output less the input. Where
    the shortcut has a `downsample`, h is what comes out of it. Blocks without a shortcut are left out.

    A block that is skipped at a depth passes h on. What it would add to that h is measured beside the
    network, whose outputs and gradients do not change.

    L is the cross entropy of an image's logits with its label, without the augmentations and the label
    smoothing of a training. A direction drawn at random has an alignment of 0 +- 1/sqrt(elements of h)
    with the gradient of one image.

    Args:
        model: A classifier with adaptive depth. Its weights, modes, depth, hooks and gradients are left as
            they were.
        batches: Of labelled images, as a data loader gives them.
        skips: The depths, see `set_skip`; 'all' for all 2^n.

    Returns:
        For each depth and block `block` (its name in the backbone), `stage` (of its flag, from 1 on),
        `sub_path` ('mandatory' or 'skippable'), `skip`, `skipped` (at this depth), `magnitude`, the mean over
        the images of ‖F(h)‖ / ‖h‖ with norms over all elements, `alignment`, the mean of the cosine between
        F(h) and -dL/dh, `magnitude_std` and `alignment_std`, their standard deviation over the images (0 for
        a single one), and `images`. An image for which a quantity is undefined, because h, F(h) or the
        gradient is zero, does not enter its mean; the mean is None if that is so for all images.

    Raises:
        TypeError: The model is no classifier, or has no adaptive depth.
        ValueError: A skip does not fit the backbone, or there are no images, labels or residual blocks.
    """
    model = unwrap(model)
    if not isinstance(model, ImageClassifier):
        raise NotAdaptiveError(f'{type(model).__name__} is no ImageClassifier; give a classifier')
    backbone = adaptive_backbone(model)
    skips = [skips] if isinstance(skips, str) and skips != 'all' else skips
    skips = backbone.subnets() if skips == 'all' else list(dict.fromkeys(map(backbone.parse_skip, skips)))
    blocks = residual_blocks(backbone)
    values = {key: ([], []) for key in product(skips, [block.name for block in blocks])}
    with (
        evaluating(model),
        _without_checkpoints(model),
        _watching(blocks) as seen,
        torch.enable_grad(),
    ):
        for batch in batches:
            data = model.data_preprocessor(batch, False)
            inputs, labels = data['inputs'].detach().requires_grad_(), _labels(data)
            for skip in skips:
                seen.clear()
                with backbone.skipping(skip):
                    margins = _margins(model, inputs, labels)
                gradients = torch.autograd.grad(
                    margins.sum(), [h for h, _, _ in seen.values()], materialize_grads=True
                )
                for (name, (_, added, magnitude)), gradient in zip(seen.items(), gradients, strict=True):
                    magnitudes, alignments = values[skip, name]
                    magnitudes += magnitude.tolist()
                    alignments += (-_cosine(added, gradient)).tolist()
    rows = [_row(block, skip, *values[skip, block.name]) for skip, block in product(skips, blocks)]
    rows = [row for row in rows if row['images']]
    if not rows:
        raise InputError('no residual block has run: give at least one batch of images')
    return rows


def _row(block: Block, skip: str, magnitudes: list[float], alignments: list[float]) -> dict:
    row = dict(block=block.name, stage=block.stage, sub_path=block.sub_path, skip=skip)
    row['skipped'] = block.sub_path == 'skippable' and skip[block.stage - 1] == 'T'
    row['magnitude'], row['magnitude_std'] = finite_mean_and_std(magnitudes)
    row['alignment'], row['alignment_std'] = finite_mean_and_std(alignments)
    return {**row, 'images': len(magnitudes)}


@contextmanager
def _without_checkpoints(model: nn.Module) -> Iterator[None]:
    """Switches activation checkpoints off, as there is no graph inside of them."""
    checkpointed = [module for module in model.modules() if getattr(module, 'with_cp', False)]
    try:
        for module in checkpointed:
            module.with_cp = False
        yield
    finally:
        for module in checkpointed:
            module.with_cp = True


@contextmanager
def _watching(blocks: list[Block]) -> Iterator[dict]:
    """Yields a dict that every forward pass fills: by block h, F(h), and ‖F(h)‖ / ‖h‖ of each image."""
    seen, handles = {}, []
    try:
        for block in blocks:
            parts = {}
            for part, child in block.module.named_children():
                if part in ('drop_path', 'downsample'):
                    handles.append(child.register_forward_hook(partial(_keep, parts, part)))
            handles.append(block.module.register_forward_hook(partial(_see, seen, block.name, parts)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _keep(parts: dict, part: str, module: nn.Module, args: tuple, output: Tensor) -> None:
    # The sum changes the output of drop_path in place.
    parts[part] = output.detach().clone() if part == 'drop_path' else output


def _see(seen: dict, name: str, parts: dict, module: nn.Module, args: tuple, output: Tensor) -> None:
    if is_skipped(module):
        with torch.no_grad():
            output = super(Skippable, module).forward(*args)
    h, added = parts.pop('downsample', args[0]), parts.pop('drop_path', None)
    if added is None and not hasattr(module, 'drop_path') and output.shape == h.shape:
        added = (output - h).detach()
    if added is not None:
        seen[name] = h, added, _norm(added) / _norm(h.detach())


def _labels(data: dict) -> Tensor:
    labels = [sample.get('gt_label') for sample in data['data_samples'] or [None]]
    if any(label is None or label.numel() != 1 for label in labels):
        raise InputError('not every image has one label; give labelled test data')
    return torch.stack(labels)


def _margins(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """By how much the label's logit falls short of the others' log-sum-exp, of shape (N,).

    With this margin m the cross entropy is log(1 + exp(m)), and its gradient is sigmoid(m) times that of m.
    Both have one direction, but the former is 0 in float32 where an image is classified with certainty.
    """
    logits = model(inputs)
    return logits.scatter(1, labels, -torch.inf).logsumexp(1) - logits.gather(1, labels)[:, 0]


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=torch.float64)


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x.double() * y.double()).flatten(1).sum(1) / (_norm(x) * _norm(y))


def finite_mean_and_std(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Of the values that are finite; the deviation of a single one is 0, and of none both are None."""
    values = [value for value in values if value is not None and math.isfinite(value)]
    if not values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def labelled_images(cfg: Config, images: int) -> Callable[[], Iterator[dict]]:
    """Labelled images of a config's test data, drawn without repetition and always the same ones.

    Args:
        images: How many; all if there are fewer.

    Returns:
        A function, each call of which gives an iterator over batches of all these images.

    Raises:
        ValueError: The config has no test data.
    """
    if not cfg.get('test_dataloader'):
        raise InputError('the config has no test_dataloader; give one with labelled test data')
    settings = {**cfg.test_dataloader, 'sampler': dict(type='DefaultSampler', shuffle=True)}
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        loader = Runner.build_dataloader(settings, seed=0)

    def batches():
        left = images
        for batch in loader:
            yield {name: values[:left] for name, values in batch.items()}
            left -= len(batch['inputs'])
            if left <= 0:
                return

    return batches


def measure_networks(
    cfg: Config,
    checkpoints: Sequence[str],
    against: Sequence[str] = (),
    skips: Sequence[str] | str = ('super', 'base'),
    images: int = 512,
    device: str = 'cpu',
) -> list[dict]:
    """Measures the seeds of a network with adaptive depth, and those of the plain one; prints its progress.

    Stock weights load into the adaptive network, which at FFFF is then bit-equal to the stock one.

    Args:
        cfg: Of the adaptive network, with labelled test data.
        checkpoints: Its weights, one checkpoint for each seed.
        against: Weights of the plain network, which is measured at FFFF only.
        skips: The depths of the adaptive network.
        images: How many of the test images; see `labelled_images`.

    Returns:
        `network` ('adaptive' or 'plain'), `checkpoint` and what `measure_residuals` gives.

    Raises:
        OSError: A checkpoint or the data cannot be read.
        TypeError: The config is not of a classifier with adaptive depth.
        ValueError: A checkpoint is of another model, a skip does not fit, or there are no labelled images.
    """
    model = load_model(cfg, device=device)
    for skip in [] if skips == 'all' else skips:
        adaptive_backbone(model).parse_skip(skip)
    runs = [('adaptive', path, skips) for path in checkpoints]
    runs += [('plain', path, 'super') for path in against]
    batches, rows = labelled_images(cfg, images), []
    for _, path, _ in runs:  # a wrong checkpoint is refused now and not after minutes
        fill(model, read_checkpoint(path)[0], path)
    for i, (network, path, depths) in enumerate(runs, 1):
        print(f'{i}/{len(runs)} {network}: {path}', flush=True)
        fill(model, read_checkpoint(path)[0], path)
        found = measure_residuals(model, batches(), depths)
        rows += [{'network': network, 'checkpoint': str(path), **row} for row in found]
    return rows
