"""Tables and a picture of class activation maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor, nn

from mmadn.depth import adaptive_backbone
from mmadn.utils.report import drawing, machine, write_json

from .cam import DepthMaps, class_names, stage_blocks

COLOURS, OPACITY = 'viridis', 0.65  # of a map on the grey image
CELL = 1.5  # inches, the width of an image


def correlation(first: np.ndarray | None, second: np.ndarray | None) -> float | None:
    """Pearson's, of two maps; None where one is missing or the same everywhere."""
    if first is None or second is None or not (first.std() and second.std()):
        return None
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def summary(results: list[DepthMaps], names: list[str]) -> list[dict]:
    """What JSON records of the depths of one image.

    Returns:
        For each depth `skip`, the class `predicted` and its `probability`, the `category` of the maps and its
        `category_probability`, and `blocks`: by name None for a skipped block, or the `mean` of its map. From
        the second depth on there are also the `correlation` of each map with the first depth's map of the
        same block, and `output_correlation`, that of the maps of the last blocks that the two depths run.
    """
    first, *others = results
    lines = [_summary(first, names, None)]
    for depth in others:
        line = _summary(depth, names, first)
        lines.append({**line, 'output_correlation': correlation(first.output, depth.output)})
    return lines


def _summary(depth: DepthMaps, names: list[str], first: DepthMaps | None) -> dict:
    blocks = {name: {'mean': float(m.mean())} for name, m in depth.maps.items() if m is not None}
    if first is not None:
        for name, block in blocks.items():
            block['correlation'] = correlation(first.maps[name], depth.maps[name])
    return {
        'skip': depth.skip,
        'predicted': names[depth.predicted],
        'probability': float(depth.probabilities[depth.predicted]),
        'category': names[depth.category],
        'category_probability': float(depth.probabilities[depth.category]),
        'blocks': {name: blocks.get(name) for name in depth.maps},
    }


def predictions_table(report: dict) -> list[dict]:
    """What each depth predicts of each image, as text; files of one name are told apart by their folders."""
    paths = [Path(image['image']) for image in report['images']]
    parts = 1 if len({path.name for path in paths}) == len(paths) else 2
    return [
        {
            'image': '/'.join(path.parts[-parts:]),
            'skip': depth['skip'],
            'predicted': short(depth['predicted']),
            'probability': f'{depth["probability"]:.1%}',
            'maps of': short(depth['category']),
        }
        for path, image in zip(paths, report['images'], strict=True)
        for depth in image['depths']
    ]


def blocks_table(report: dict) -> list[dict]:
    """How alike the maps of each block are to those of the first depth: means over the images, as text."""
    first, *others = zip(*(image['depths'] for image in report['images']), strict=True)
    headings = [f'{depth[0]["skip"]}: correlation with {first[0]["skip"]}' for depth in others]

    rows = []
    for name, sub_path in report['blocks'].items():
        means = [_mean_of_block([image['blocks'][name] for image in depth]) for depth in others]
        rows.append({'block': name, 'sub-path': sub_path, **dict(zip(headings, means, strict=True))})
    means = [_mean([image['output_correlation'] for image in depth]) for depth in others]
    output = {'block': 'output of the stage', 'sub-path': ''}
    return [*rows, {**output, **dict(zip(headings, means, strict=True))}]


def _mean_of_block(blocks: list[dict | None]) -> str:
    return 'skipped' if None in blocks else _mean([block['correlation'] for block in blocks])


def _mean(correlations: list[float | None]) -> str:
    known = [value for value in correlations if value is not None]
    return f'{np.mean(known):.2f}' if known else ''


def short(name: str, length: int = 18) -> str:
    """The first of a class's synonyms, cut off where it is longer."""
    name = name.split(', ')[0]
    return name if len(name) <= length else f'{name[: length - 1]}…'


def picture(
    report: dict, images: Sequence[Tensor], results: Sequence[list[DepthMaps]], path: str | Path
) -> None:
    """Draws a row for each image and depth and a column for each block, as a PNG.

    Args:
        report: From `write_report`.
        images: Of shape (3, H, W), BGR.
        results: Of `activation_maps`, for each image.
    """
    blocks = report['blocks']
    rows, columns = sum(map(len, results)), 1 + len(blocks)
    height, width = images[0].shape[1:]
    size = (CELL * columns + 2.2, max(2.4, CELL * height / width * rows + 0.9))
    with drawing(path, size, rows, columns) as (figure, axes):
        figure.set_layout_engine('compressed')
        for ax, name in zip(axes[0], ['input', *blocks], strict=True):
            ax.set_title(f'{name}\n{blocks[name]}' if name in blocks else name, fontsize=9)
        cells = iter(axes)
        for image, depths, written in zip(images, results, report['images'], strict=True):
            colours = image.flip(0).permute(1, 2, 0).clamp(0, 255).byte().cpu().numpy()
            for depth, line in zip(depths, written['depths'], strict=True):
                first, *others = next(cells)
                first.imshow(colours)
                first.set_ylabel(_row_label(line), rotation=0, ha='right', va='center', fontsize=9)
                for ax, shown in zip(others, depth.maps.values(), strict=True):
                    _draw(ax, colours.mean(2), shown)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
        bar = figure.colorbar(
            next(ax.images[1] for ax in axes.flat if len(ax.images) > 1),
            ax=axes,
            shrink=min(1, 4 / size[1]),
            aspect=15,
            fraction=0.05,
            label='class activation, scaled\nfrom least to most of each map',
        )
        bar.ax.set_facecolor('0.5')  # as if the colours lay on a grey image
        figure.suptitle(f'{report["method"]} at the blocks of stage {report["stage"]}', fontsize=11)


def _row_label(line: dict) -> str:
    texts = [line['skip'], f'predicts {short(line["predicted"])}', f'({line["probability"]:.1%})']
    if line['category'] != line['predicted']:
        texts += [f'maps of {short(line["category"])}', f'({line["category_probability"]:.1%})']
    return '\n'.join(texts)


def _draw(ax: Axes, grey: np.ndarray, shown: np.ndarray | None) -> None:
    """A map over the grey image, (H, W); or words where the block is skipped or the map is empty."""
    middle = dict(x=0.5, y=0.5, transform=ax.transAxes, ha='center', va='center', fontsize=9)
    if shown is None:
        ax.set_box_aspect(grey.shape[0] / grey.shape[1])
        ax.spines[:].set_color('0.8')
        ax.text(s='skipped', color='0.4', **middle)
        return
    ax.imshow(grey, cmap='gray', vmin=-255, vmax=510)  # faint, so that it does not change the colours
    height, width = grey.shape  # without what the preprocessor may have padded
    ax.imshow(shown[:height, :width], cmap=COLOURS, vmin=0, vmax=1, alpha=OPACITY)
    if not shown.any():
        ax.text(s='0 everywhere', color='white', **middle)


def write_report(
    model: nn.Module,
    images: Sequence[Tensor],
    results: Sequence[list[DepthMaps]],
    out: str | Path,
    stage: int,
    method: str,
    paths: Sequence[str | Path],
    **about,
) -> dict:
    """Writes `cam.json` and `cam.png` into the folder `out`, each whole or not at all.

    Args:
        model: The classifier.
        images: From `read_image`.
        results: From `activation_maps`, for each image.
        stage, method: As `activation_maps` took them.
        paths: Of the images.
        **about: What else the JSON file records, such as the config and the checkpoint.

    Returns:
        What `cam.json` holds.
    """
    out, names = Path(out), class_names(model)
    report = {
        **about,
        'machine': machine(),
        'stage': stage,
        'method': method,
        'blocks': {b.name: b.sub_path for b in stage_blocks(adaptive_backbone(model), stage)},
        'images': [
            {'image': str(path), 'depths': summary(depths, names)}
            for path, depths in zip(paths, results, strict=True)
        ],
    }
    write_json(out / 'cam.json', report)
    picture(report, images, results, out / 'cam.png')
    return report
