"""What each residual block adds to its input: how much, and whether along -dL/dh (paper, Fig. 3, 3.3)."""

import math
import statistics
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from torch import nn

from mmadn.checkpoint.files import fill, load_model, read_checkpoint
from mmadn.depth import AdaptiveDepth, Skippable, adaptive_backbone, is_skipped, unwrap
from mmadn.errors import InputError, NotAdaptiveError
from mmadn.utils.report import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    VERMILION,
    machine,
    markdown_table,
    replacing,
    write_json,
)

PLAIN, COLOURS = VERMILION, (BLUE, GREEN, ORANGE, PINK, SKY)  # the latter for the depths in their order
QUANTITIES = {'magnitude': '‖F(h)‖ / ‖h‖', 'alignment': 'cosine of F(h) and -dL/dh'}


@dataclass
class Block:
    """A residual block of an adaptive-depth backbone.

    Args:
        name (str): As in `backbone.named_modules()`.
        stage (int): Number of its flag in `backbone.skip`, from 1 on.
        sub_path (str): 'mandatory' or 'skippable'.
        module (nn.Module): The block.
    """

    name: str
    stage: int
    sub_path: str
    module: nn.Module


def residual_blocks(backbone: AdaptiveDepth) -> list[Block]:
    """The blocks in the order they run: all skippable modules, and the mandatory ones of the same kind.

    Whether one has a shortcut is seen only when it runs.
    """
    stages = enumerate(backbone.sub_paths(backbone.mandatory), 1)
    found = {
        module: (stage, sub_path)
        for stage, paths in stages
        for sub_path, modules in zip(('mandatory', 'skippable'), paths, strict=True)
        for module in modules
    }
    kinds = {_kind(block) for _, skippable in backbone.sub_paths(None) for block in skippable}
    return [
        Block(name, *found[module], module)
        for name, module in backbone.named_modules()
        if module in found and _kind(module) in kinds
    ]


def _kind(module):
    return type(module).__mro__[2] if isinstance(module, Skippable) else type(module)


def measure_residuals(model, batches, skips=('super', 'base')) -> list[dict]:
    """Measures what every residual block adds, F(h), against its input h and the gradient of the loss.

    In a block with a `drop_path`, whose output is what is added, F(h) is that output, as after the sum
    may come a ReLU. In any other it is the output less the input. Where the shortcut has a `downsample`,
    h is what comes out of that. Blocks without a shortcut are left out.

    A block that is skipped at a depth passes h on. What it would add to that h is measured beside the
    network, whose outputs and gradients are those without it.

    L is the cross entropy of an image's logits with its label, without the augmentations and the label
    smoothing of a training. A direction drawn at random has an alignment of 0 +- 1/sqrt(elements of h)
    with the gradient of one image.

    Args:
        model (ImageClassifier): With adaptive depth. It is left as found: weights, modes, depth, hooks
            and gradients.
        batches (Iterable[dict]): Of labelled images, as a data loader gives them.
        skips (Sequence[str] | str): The depths, see `set_skip`; 'all' for all 2^n.

    Returns:
        list[dict]: For each depth and block `block` (its name in the backbone), `stage` (of its flag, from
        1 on), `sub_path` ('mandatory' or 'skippable'), `skip`, `skipped` (at this depth), `magnitude`,
        the mean over the images of ‖F(h)‖ / ‖h‖ with norms over all elements, `alignment`, the mean of
        the cosine between F(h) and -dL/dh, `magnitude_std` and `alignment_std`, their standard deviation
        over the images (0 for a single one), and `images`. Images for which one is undefined, as h, F(h)
        or the gradient is zero, do not enter it; None if that is so for all.

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


def _row(block, skip, magnitudes, alignments):
    row = dict(block=block.name, stage=block.stage, sub_path=block.sub_path, skip=skip)
    row['skipped'] = block.sub_path == 'skippable' and skip[block.stage - 1] == 'T'
    row['magnitude'], row['magnitude_std'] = _mean_and_std(magnitudes)
    row['alignment'], row['alignment_std'] = _mean_and_std(alignments)
    return {**row, 'images': len(magnitudes)}


@contextmanager
def evaluating(model):
    """Within the block all of the model is in eval mode; afterwards each module is in its own again."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _without_checkpoints(model):
    """Activation checkpoints off, inside of which there is no graph."""
    checkpointed = [module for module in model.modules() if getattr(module, 'with_cp', False)]
    try:
        for module in checkpointed:
            module.with_cp = False
        yield
    finally:
        for module in checkpointed:
            module.with_cp = True


@contextmanager
def _watching(blocks):
    """Yields a dict that every forward pass fills: by block h, F(h) and ‖F(h)‖ / ‖h‖ of each image."""
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


def _keep(parts, part, module, args, output):
    # What drop_path gives is changed in place by the sum.
    parts[part] = output.detach().clone() if part == 'drop_path' else output


def _see(seen, name, parts, module, args, output):
    if is_skipped(module):
        with torch.no_grad():
            output = super(Skippable, module).forward(*args)
    h, added = parts.pop('downsample', args[0]), parts.pop('drop_path', None)
    if added is None and not hasattr(module, 'drop_path') and output.shape == h.shape:
        added = (output - h).detach()
    if added is not None:
        seen[name] = h, added, _norm(added) / _norm(h.detach())


def _labels(data):
    labels = [sample.get('gt_label') for sample in data['data_samples'] or [None]]
    if any(label is None or label.numel() != 1 for label in labels):
        raise InputError('not every image has one label; give labelled test data')
    return torch.stack(labels)


def _margins(model, inputs, labels):
    # Of shape (N,). With the margin m, the cross entropy is log(1 + exp(m)), and its gradient that of m
    # times sigmoid(m): of the same direction, but nothing in float32 where an image is classified with
    # certainty.
    logits = model(inputs)
    return logits.scatter(1, labels, -torch.inf).logsumexp(1) - logits.gather(1, labels)[:, 0]


def _norm(x):
    return torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=torch.float64)


def _cosine(x, y):
    return (x.double() * y.double()).flatten(1).sum(1) / (_norm(x) * _norm(y))


def _mean_and_std(values):
    values = [value for value in values if value is not None and math.isfinite(value)]
    if not values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def labelled_images(cfg, images: int):
    """Labelled images of a config's test data, drawn without repetition, always the same ones.

    Args:
        cfg (Config): With a `test_dataloader`.
        images (int): How many; all, if there are fewer.

    Returns:
        Callable: Each call gives an iterator over batches of all of them.

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
    cfg, checkpoints, against=(), skips=('super', 'base'), images=512, device='cpu', say=print
) -> list[dict]:
    """Measures the seeds of a network with adaptive depth, and those of the plain one.

    Stock weights load into the adaptive network, which at FFFF is then bit-equal to the stock one.

    Args:
        cfg (Config): Of the adaptive network, with labelled test data.
        checkpoints (Sequence[str]): Its weights, one checkpoint a seed.
        against (Sequence[str]): Weights of the plain network, which is measured whole only.
        skips (Sequence[str] | str): The depths of the adaptive network.
        images (int): How many of the test images; see `labelled_images`.
        say (Callable): Takes a line of progress.

    Returns:
        list[dict]: `network` ('adaptive' or 'plain'), `checkpoint` and what `measure_residuals` gives.

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
    for _, path, _ in runs:  # refused now, not after minutes
        fill(model, read_checkpoint(path)[0], path)
    for i, (network, path, depths) in enumerate(runs, 1):
        say(f'{i}/{len(runs)} {network}: {path}')
        fill(model, read_checkpoint(path)[0], path)
        found = measure_residuals(model, batches(), depths)
        rows += [{'network': network, 'checkpoint': str(path), **row} for row in found]
    return rows


def _label(row):
    return 'plain' if row['network'] == 'plain' else row['skip']


def _unique(values):
    return list(dict.fromkeys(values))


def _text(mean, std):
    return '' if mean is None else f'{mean:.3f} ± {std:.3f}' if std else f'{mean:.3f}'


def block_table(rows: list[dict], quantity: str) -> list[dict]:
    """The magnitude or alignment of every block, by network and depth; mean and spread over the seeds.

    In parentheses is what a skipped block would add.
    """
    table = []
    for block, sub_path in _unique((row['block'], row['sub_path']) for row in rows):
        line = {'block': block, 'sub-path': sub_path}
        for label in _unique(map(_label, rows)):
            seeds = [row for row in rows if row['block'] == block and _label(row) == label]
            text = _text(*_mean_and_std([row[quantity] for row in seeds]))
            line[label] = f'({text})' if text and seeds[0]['skipped'] else text
        table.append(line)
    return table


def summary(rows: list[dict]) -> list[dict]:
    """Means over the mandatory and over the skippable blocks.

    Returns:
        list[dict]: For each network, depth and sub-path `network` (the depth, or 'plain'), `sub_path`,
        `magnitude` and `alignment`, the means over its blocks and then over the seeds, `magnitude_std` and
        `alignment_std`, their spread over the seeds, `over_plain`, the ratio of the mean magnitudes (None
        without a plain network), and `seeds`.
    """
    lines = []
    for label, sub_path in product(_unique(map(_label, rows)), ('mandatory', 'skippable')):
        chosen = [row for row in rows if (_label(row), row['sub_path']) == (label, sub_path)]
        if not chosen:
            continue
        seeds = _unique(row['checkpoint'] for row in chosen)
        line = {'network': label, 'sub_path': sub_path}
        for quantity in QUANTITIES:
            means = [
                _mean_and_std([row[quantity] for row in chosen if row['checkpoint'] == seed])[0]
                for seed in seeds
            ]
            line[quantity], line[f'{quantity}_std'] = _mean_and_std(means)
        lines.append({**line, 'seeds': len(seeds)})
    plain = {line['sub_path']: line['magnitude'] for line in lines if line['network'] == 'plain'}
    for line in lines:
        ours, whole = line['magnitude'], plain.get(line['sub_path'])
        compared = line['network'] != 'plain' and ours is not None and whole
        line['over_plain'] = ours / whole if compared else None
    return lines


def summary_table(rows: list[dict]) -> list[dict]:
    """What `summary` gives, as text."""
    return [
        {
            'network': line['network'],
            'sub-path': line['sub_path'],
            QUANTITIES['magnitude']: _text(line['magnitude'], line['magnitude_std']),
            'over plain': _text(line['over_plain'], None),
            'cosine': _text(line['alignment'], line['alignment_std']),
            'seeds': str(line['seeds']),
        }
        for line in summary(rows)
    ]


def plot(rows: list[dict], path) -> None:
    """Draws magnitude and alignment over the blocks, with the spread over the seeds, as a PNG."""
    blocks = {row['block']: row for row in rows}
    styles = _styles(_unique(map(_label, rows)))
    figure = Figure(figsize=(max(7, 2 + 0.4 * len(blocks)), 6.5), layout='constrained')
    panels = figure.subplots(2, 1, sharex=True)
    for axes, (quantity, name) in zip(panels, QUANTITIES.items(), strict=True):
        _draw_stages(axes, list(blocks.values()))
        for i, (label, style) in enumerate(styles.items()):
            shift = 0.6 * ((i + 0.5) / len(styles) - 0.5)
            for place, block in enumerate(blocks):
                seeds = [row for row in rows if row['block'] == block and _label(row) == label]
                _draw_point(axes, place + shift, seeds, quantity, style)
        axes.set(ylabel=name)
        axes.grid(axis='y', alpha=0.3)
    for place, stage in _middles([row['stage'] for row in blocks.values()]):
        position = (place, 1.02)
        panels[0].text(*position, f'stage {stage}', transform=panels[0].get_xaxis_transform(), ha='center')
    panels[0].set_ylim(bottom=-0.03 * panels[0].get_ylim()[1])  # all of a marker at 0
    panels[1].axhline(0, color='black', lw=0.8)
    panels[1].set_xticks(range(len(blocks)), blocks, rotation=90)
    seeds = _unique(row['checkpoint'] for row in rows if row['network'] == 'adaptive')
    spread = f' (bars: standard deviation over {len(seeds)} seeds)' if len(seeds) > 1 else ''
    panels[1].set(xlabel=f'residual block{spread}', xlim=(-0.5, len(blocks) - 0.5))
    handles = {label: Line2D([], [], **style) for label, style in styles.items()}
    handles['skippable'] = Patch(color=GREY, alpha=0.2)
    if any(row['skipped'] for row in rows):
        handles['skipped: what it would add'] = Line2D([], [], marker='o', ls='', color=GREY, mfc='white')
    figure.legend(handles.values(), handles, loc='outside upper center', ncols=len(handles), frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _styles(labels):
    styles = {}
    for label, colour in zip(labels, cycle(COLOURS), strict=False):
        styles[label] = dict(color=colour, marker='o', ms=5, ls='')
    if 'plain' in styles:
        styles['plain'].update(color=PLAIN, marker='s')
    return styles


def _draw_stages(axes, blocks):
    for place, block in enumerate(blocks):
        if block['sub_path'] == 'skippable':
            axes.axvspan(place - 0.5, place + 0.5, color=GREY, alpha=0.2, lw=0)
        if place and block['stage'] != blocks[place - 1]['stage']:
            axes.axvline(place - 0.5, color='black', lw=0.8)


def _middles(stages):
    for stage in _unique(stages):
        places = [place for place, each in enumerate(stages) if each == stage]
        yield statistics.fmean(places), stage


def _draw_point(axes, x, seeds, quantity, style):
    values = [row[quantity] for row in seeds if row[quantity] is not None]
    mean, std = _mean_and_std(values)
    if mean is None:
        return
    hollow = dict(mfc='white') if seeds[0]['skipped'] else {}
    if len(values) > 1:
        axes.plot([x] * len(values), values, '.', color=style['color'], alpha=0.4, ms=4, zorder=2)
    axes.errorbar(x, mean, std if len(values) > 1 else None, **style, **hollow, elinewidth=1.2, zorder=3)


def write_report(rows: list[dict], out, **about) -> None:
    """Writes `residuals.json`, `residuals.md` and `residuals.png` into the folder `out`.

    Args:
        rows (list[dict]): From `measure_networks`.
        **about: What else the JSON file records, such as the config.
    """
    out = Path(out)
    write_json(
        out / 'residuals.json', {**about, 'machine': machine(), 'summary': summary(rows), 'residuals': rows}
    )
    parts = ['Means over the blocks:', markdown_table(summary_table(rows))]
    for quantity, name in QUANTITIES.items():
        parts += [f'{name}, in parentheses what a skipped block would add:']
        parts += [markdown_table(block_table(rows, quantity))]
    with replacing(out / 'residuals.md') as path:
        path.write_text('\n\n'.join(parts) + '\n')
    plot(rows, out / 'residuals.png')
