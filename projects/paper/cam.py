"""Class activation maps at every block of a stage, at several depths (paper, Fig. 8)."""

from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import matplotlib
import mmcv
import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from torch import nn

from mmadn.depth import adaptive_backbone, is_skipped, unwrap
from mmadn.errors import InputError, MissingPackageError, NotAdaptiveError
from mmadn.utils.report import machine, replacing, write_json

from .residuals import Block, evaluating, residual_blocks

matplotlib.use('Agg')
from matplotlib import pyplot  # noqa: E402

METHODS = {
    'gradcam': 'GradCAM',
    'gradcam++': 'GradCAMPlusPlus',
    'xgradcam': 'XGradCAM',
    'layercam': 'LayerCAM',
    'eigencam': 'EigenCAM',
    'eigengradcam': 'EigenGradCAM',
}
COLOURS, OPACITY = 'viridis', 0.65  # of a map on the grey image


def grad_cam():
    """The library that computes the maps; raises ImportError with what to install."""
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise MissingPackageError(
            f'activation maps need a package that mmadn does without ({error}): pip install grad-cam==1.5.7'
        ) from error
    return pytorch_grad_cam


@dataclass
class DepthMaps:
    """What one depth makes of an image.

    Attributes:
        skip (str): The depth.
        probabilities (ndarray): Of the classes, the softmax of the logits.
        category (int): The class whose activation the maps show.
        maps (dict[str, ndarray | None]): The map of each block by its name in the backbone, float32 of
            shape (H, W) of the network's input, in [0, 1]; None of a block that this depth skips.
    """

    skip: str
    probabilities: np.ndarray
    category: int
    maps: dict

    @property
    def predicted(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def output(self) -> np.ndarray:
        """The map of the last block that runs, whose features are the output of the stage."""
        return [found for found in self.maps.values() if found is not None][-1]


@torch.inference_mode(False)
@torch.enable_grad()
def activation_maps(
    model, image: torch.Tensor, stage=3, skips=('super', 'base'), category=None, method='gradcam'
) -> list[DepthMaps]:
    """Maps of where each block of a stage sees evidence for a class, at several depths (paper, Fig. 8).

    A map is scaled by its own least and most value, which become 0 and 1, so that maps can be compared in
    shape and not in strength. It is 0 everywhere where nothing speaks for the class, and at the last
    block of a ViT that classifies by its class token, as the other tokens are not looked at after it.
    "eigencam" depends on no class, and its sign, as that of "eigengradcam", is arbitrary.

    Args:
        model (nn.Module): A classifier with adaptive depth. It is left as it was, gradients included.
        image (Tensor): One image of shape (3, H, W) as a test pipeline gives it; see `read_image`.
        stage (int): From 1 on; which of the stages that have a skippable sub-path.
        skips (Sequence[str]): The depths, see `set_skip`.
        category (int | str, optional): The number or the name of the class. By default what each depth
            predicts.
        method (str): One of `METHODS`, those of mmpretrain's `vis_cam.py`.

    Returns:
        list[DepthMaps]: One for each depth.

    Raises:
        ImportError: The library grad-cam is not installed.
        TypeError: The model is no classifier or has no adaptive depth.
        ValueError: The stage, a depth, the class or the method does not exist.
    """
    library, model = grad_cam(), unwrap(model)
    if not isinstance(model, ImageClassifier) or not model.with_head:
        raise NotAdaptiveError(
            f'{type(model).__name__} does not classify images; give a classifier of mmpretrain'
        )
    backbone = adaptive_backbone(model)
    if method not in METHODS:
        raise InputError(f'method={method!r}: give one of {", ".join(METHODS)}')
    method = getattr(library, METHODS[method])
    blocks = {block.name: block.module for block in stage_blocks(backbone, stage)}
    category = class_number(model, category)
    chosen = library.utils.model_targets.ClassifierOutputTarget
    targets = None if category is None else [chosen(category)]
    results = []
    with evaluating(model), _frozen(model), _on_their_grid(backbone, blocks.values()) as reshape:
        inputs = model.data_preprocessor({'inputs': [image]}, False)['inputs'].clone().requires_grad_()
        for skip in dict.fromkeys(map(backbone.parse_skip, skips)):
            with backbone.skipping(skip):
                run = {n: b for n, b in blocks.items() if not is_skipped(b)}
                cam = method(_Logits(model), list(run.values()), reshape)
                try:
                    # One pass for all blocks, without their mean over the blocks.
                    cam.aggregate_multi_layers = lambda maps: np.concatenate(maps, axis=1)[0]
                    found = library.utils.image.scale_cam_image(cam(inputs, targets))
                finally:
                    cam.activations_and_grads.release()
            probabilities = cam.outputs[0].detach().softmax(0).cpu().numpy()
            found = dict(zip(run, found, strict=True))
            results.append(
                DepthMaps(
                    skip=skip,
                    probabilities=probabilities,
                    category=int(probabilities.argmax()) if category is None else category,
                    maps={name: found.get(name) for name in blocks},
                )
            )
    return results


def stage_blocks(backbone, stage: int) -> list[Block]:
    """The residual blocks of a stage in their order; see `residual_blocks`.

    Raises:
        ValueError: There is no such stage.
    """
    stages = backbone.num_skippable_stages
    if type(stage) is not int or not 1 <= stage <= stages:
        raise InputError(
            f'stage={stage!r}: the stages of {type(backbone).__name__} that have a skippable sub-path are '
            f'{", ".join(map(str, range(1, stages + 1)))}'
        )
    return [block for block in residual_blocks(backbone) if block.stage == stage]


def class_names(model) -> list[str]:
    """The names of a classifier's classes, or their numbers where its checkpoint tells none."""
    names = (getattr(model, 'dataset_meta', None) or {}).get('classes')
    return list(map(str, names or range(model.head.num_classes)))


def class_number(model, category: int | str | None) -> int | None:
    """The number of a class, which is given by a name, one of its synonyms "tench, Tinca tinca", or a number.

    Raises:
        ValueError: There is no such class, or several go by this name.
    """
    names = class_names(model)
    if category is None or type(category) is int and 0 <= category < len(names):
        return category
    same = [i for i, name in enumerate(names) if name == category]
    same = same or [i for i, name in enumerate(names) if str(category) in name.split(', ')]
    if len(same) == 1:
        return same[0]
    if same:
        raise InputError(f'category={category!r} is the name of the classes {same}; give a number')
    if str(category).isdecimal() and int(category) < len(names):
        return int(category)
    near = get_close_matches(str(category), names, 3, 0.5) or names[:3]
    raise InputError(
        f'category={category!r}: give a number from 0 to {len(names) - 1} or the name of a class, such as '
        f'{"; ".join(near)}'
    )


class _Logits(nn.Module):
    """A classifier as the library calls one: a batch in, logits out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return self.model(inputs, mode='tensor')

    def zero_grad(self, set_to_none=True):
        """Spares the gradients of a training: the weights get none here."""


@contextmanager
def _frozen(model):
    """Within the block no parameter wants a gradient; afterwards those do that did."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad = True


@contextmanager
def _on_their_grid(backbone, blocks):
    """Yields what turns features of blocks into maps (N, C, H, W): tokens (N, L, C), class token first."""
    grid = []

    def embedded(module, args, output):
        grid[:] = output[1]

    def called(module, args):
        if len(args) > 1:  # Swin, whose patches are merged after the embedding
            grid[:] = args[1]

    def reshape(features):
        if features.ndim == 4:
            return features
        height, width = grid
        return features[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))

    handles = [block.register_forward_pre_hook(called) for block in blocks]
    if hasattr(backbone, 'patch_embed'):
        handles.append(backbone.patch_embed.register_forward_hook(embedded))
    try:
        yield reshape
    finally:
        for handle in handles:
            handle.remove()


def read_image(cfg, path) -> torch.Tensor:
    """An image as the test pipeline of a config gives it, of shape (3, H, W), its channels in BGR.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no image.
    """
    content = Path(path).read_bytes()
    if not content or mmcv.imfrombytes(content) is None:
        raise InputError(f'{path} cannot be read as an image')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        return Compose(cfg.test_dataloader.dataset.pipeline)({'img_path': str(path)})['inputs']


def correlation(first, second) -> float | None:
    """Of two maps, Pearson's; None where one is missing or the same everywhere."""
    if first is None or second is None or not (first.std() and second.std()):
        return None
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def summary(results: list[DepthMaps], names: list[str]) -> list[dict]:
    """What JSON records of the depths of one image.

    Returns:
        list[dict]: For each depth `skip`, the class `predicted` and its `probability`, the `category` of the
        maps and its `category_probability`, and `blocks`, by name None if skipped or the `mean` of the map
        and, except of the first depth, its `correlation` with the first depth's map of this block; and
        `output_correlation`, of the maps of the last blocks that either runs.
    """
    first = results[0]
    return [
        {
            'skip': r.skip,
            'predicted': names[r.predicted],
            'probability': float(r.probabilities[r.predicted]),
            'category': names[r.category],
            'category_probability': float(r.probabilities[r.category]),
            'blocks': {
                name: found
                if found is None
                else {
                    'mean': float(found.mean()),
                    **({'correlation': correlation(first.maps[name], found)} if i else {}),
                }
                for name, found in r.maps.items()
            },
            **({'output_correlation': correlation(first.output, r.output)} if i else {}),
        }
        for i, r in enumerate(results)
    ]


def predictions_table(report: dict) -> list[dict]:
    """What each depth predicts of each image, as text; files of one name are told apart by their folders."""
    paths = [Path(image['image']) for image in report['images']]
    parts = 1 if len({path.name for path in paths}) == len(paths) else 2
    return [
        {
            'image': '/'.join(Path(image['image']).parts[-parts:]),
            'skip': depth['skip'],
            'predicted': short(depth['predicted']),
            'probability': f'{depth["probability"]:.1%}',
            'maps of': short(depth['category']),
        }
        for image in report['images']
        for depth in image['depths']
    ]


def blocks_table(report: dict) -> list[dict]:
    """How alike the maps of each block are to those of the first depth, meaned over the images, as text."""
    first, *others = zip(*(image['depths'] for image in report['images']), strict=True)

    def row(title, path, value):
        means = {
            f'{depth[0]["skip"]}: correlation with {first[0]["skip"]}': _mean([value(of) for of in depth])
            for depth in others
        }
        return {'block': title, 'sub-path': path, **means}

    def correlation_at(block):
        return lambda of: of['blocks'][block]['correlation'] if of['blocks'][block] else 'skipped'

    return [
        *(row(block, path, correlation_at(block)) for block, path in report['blocks'].items()),
        row('output of the stage', '', lambda of: of['output_correlation']),
    ]


def _mean(values):
    if 'skipped' in values:
        return 'skipped'
    known = [value for value in values if value is not None]
    return f'{np.mean(known):.2f}' if known else ''


def short(name: str, length=18) -> str:
    """The first of a class's synonyms, and no more of it than fits."""
    name = name.split(', ')[0]
    return name if len(name) <= length else f'{name[: length - 1]}…'


def picture(report: dict, images, results, path) -> None:
    """Draws a row for each image and depth and a column for each block, as a PNG.

    Args:
        report (dict): From `write_report`.
        images (Sequence[Tensor]): Of shape (3, H, W), BGR.
        results (Sequence[list[DepthMaps]]): Of `activation_maps`, for each image.
    """
    blocks, cell = report['blocks'], 1.5
    rows, columns = sum(map(len, results)), 1 + len(blocks)
    height, width = images[0].shape[1:]
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(cell * columns + 2.2, max(2.4, cell * height / width * rows + 0.9)),
        layout='compressed',
        squeeze=False,
    )
    for ax, name in zip(axes[0], ['input', *blocks], strict=True):
        ax.set_title(f'{name}\n{blocks[name]}' if name in blocks else name, fontsize=9)
    cells = iter(axes)
    for image, depths, written in zip(images, results, report['images'], strict=True):
        colours = image.flip(0).permute(1, 2, 0).clamp(0, 255).byte().cpu().numpy()
        for depth, row in zip(depths, written['depths'], strict=True):
            first, *others = next(cells)
            first.imshow(colours)
            first.set_ylabel(_row_label(row), rotation=0, ha='right', va='center', fontsize=9)
            for ax, found in zip(others, depth.maps.values(), strict=True):
                _draw(ax, colours.mean(2), found)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    bar = figure.colorbar(
        next(ax.images[1] for ax in axes.flat if len(ax.images) > 1),
        ax=axes,
        shrink=min(1, 4 / figure.get_figheight()),
        aspect=15,
        fraction=0.05,
        label='class activation, scaled\nfrom least to most of each map',
    )
    bar.ax.set_facecolor('0.5')  # as if the colours lay on a grey image
    figure.suptitle(f'{report["method"]} at the blocks of stage {report["stage"]}', fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format='png', bbox_inches='tight')
    pyplot.close(figure)


def _row_label(row):
    lines = [row['skip'], f'predicts {short(row["predicted"])}', f'({row["probability"]:.1%})']
    if row['category'] != row['predicted']:
        lines += [f'maps of {short(row["category"])}', f'({row["category_probability"]:.1%})']
    return '\n'.join(lines)


def _draw(ax, grey, found):
    said = 'skipped' if found is None else '' if found.any() else '0 everywhere'
    if found is None:
        ax.set_box_aspect(grey.shape[0] / grey.shape[1])
        ax.spines[:].set_color('0.8')
    else:
        ax.imshow(grey, cmap='gray', vmin=-255, vmax=510)  # faint, so that it does not change the colours
        height, width = grey.shape  # without what the preprocessor may have padded
        ax.imshow(found[:height, :width], cmap=COLOURS, vmin=0, vmax=1, alpha=OPACITY)
    ax.text(
        0.5,
        0.5,
        said,
        transform=ax.transAxes,
        ha='center',
        va='center',
        fontsize=9,
        color='0.4' if found is None else 'white',
    )


def write_report(model, images, results, out, stage, method, paths, **about) -> dict:
    """Writes `cam.json` and `cam.png` into the folder `out`, each whole or not at all.

    Args:
        model (nn.Module): The classifier.
        images (Sequence[Tensor]): From `read_image`.
        results (Sequence[list[DepthMaps]]): From `activation_maps`, for each image.
        stage (int): As `activation_maps` took it.
        method (str): As `activation_maps` took it.
        paths (Sequence[str]): Of the images.
        **about: What else the JSON file records, such as the config and the checkpoint.

    Returns:
        dict: What `cam.json` holds.
    """
    out, names = Path(out), class_names(model)
    blocks = {block.name: block.sub_path for block in stage_blocks(adaptive_backbone(model), stage)}
    report = {
        **about,
        'machine': machine(),
        'stage': stage,
        'method': method,
        'blocks': blocks,
        'images': [
            {'image': str(path), 'depths': summary(depths, names)}
            for path, depths in zip(paths, results, strict=True)
        ],
    }
    write_json(out / 'cam.json', report)
    picture(report, images, results, out / 'cam.png')
    return report
