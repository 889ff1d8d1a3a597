"""Tables and a picture of what `measure_networks` gives."""

import statistics
from collections.abc import Iterable
from itertools import cycle, product
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mmadn.utils.report import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    VERMILION,
    drawing,
    machine,
    write_json,
)

from .residuals import finite_mean_and_std
from .results import with_spread, write_markdown

QUANTITIES = {'magnitude': '‖F(h)‖ / ‖h‖', 'alignment': 'cosine of F(h) and -dL/dh'}
PLAIN, COLOURS = VERMILION, (BLUE, GREEN, ORANGE, PINK, SKY)  # the latter for the depths in their order


def _label(row: dict) -> str:
    return 'plain' if row['network'] == 'plain' else row['skip']


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))


def _text(mean: float | None, std: float | None = None) -> str:
    return with_spread(mean, std or None, digits=3)


def block_table(rows: list[dict], quantity: str) -> list[dict]:
    """The magnitude or alignment of every block, by network and depth: mean and spread over the seeds.

    In parentheses is what a skipped block would add.
    """
    table = []
    for block, sub_path in _unique((row['block'], row['sub_path']) for row in rows):
        line = {'block': block, 'sub-path': sub_path}
        for label in _unique(map(_label, rows)):
            seeds = [row for row in rows if row['block'] == block and _label(row) == label]
            text = _text(*finite_mean_and_std(row[quantity] for row in seeds))
            line[label] = f'({text})' if text and seeds[0]['skipped'] else text
        table.append(line)
    return table


def summary(rows: list[dict]) -> list[dict]:
    """Means over the mandatory and over the skippable blocks.

    Returns:
        For each network, depth and sub-path `network` (the depth, or 'plain'), `sub_path`, `magnitude` and
        `alignment`, the means over its blocks and then over the seeds, `magnitude_std` and `alignment_std`,
        their spread over the seeds, `seeds`, and `over_plain`, the ratio of the mean magnitudes (None without
        a plain network).
    """
    groups = {}
    for label, sub_path in product(_unique(map(_label, rows)), ('mandatory', 'skippable')):
        group = [row for row in rows if (_label(row), row['sub_path']) == (label, sub_path)]
        if group:
            groups[label, sub_path] = _means(group)
    lines = []
    for (label, sub_path), means in groups.items():
        plain, ours = groups.get(('plain', sub_path), {}).get('magnitude'), means['magnitude']
        comparable = label != 'plain' and ours is not None and plain
        over_plain = ours / plain if comparable else None
        lines.append({'network': label, 'sub_path': sub_path, **means, 'over_plain': over_plain})
    return lines


def _means(rows: list[dict]) -> dict:
    """Over the blocks of each seed, and then over the seeds."""
    seeds = _unique(row['checkpoint'] for row in rows)
    means = {}
    for quantity in QUANTITIES:
        of_seeds = [
            finite_mean_and_std(row[quantity] for row in rows if row['checkpoint'] == seed)[0]
            for seed in seeds
        ]
        means[quantity], means[f'{quantity}_std'] = finite_mean_and_std(of_seeds)
    return {**means, 'seeds': len(seeds)}


def summary_table(rows: list[dict]) -> list[dict]:
    """What `summary` gives, as text."""
    return [
        {
            'network': line['network'],
            'sub-path': line['sub_path'],
            QUANTITIES['magnitude']: _text(line['magnitude'], line['magnitude_std']),
            'over plain': _text(line['over_plain']),
            'cosine': _text(line['alignment'], line['alignment_std']),
            'seeds': str(line['seeds']),
        }
        for line in summary(rows)
    ]


def plot(rows: list[dict], path: str | Path) -> None:
    """Draws magnitude and alignment over the blocks, with the spread over the seeds, as a PNG."""
    blocks = list({row['block']: row for row in rows}.values())
    styles = _styles(_unique(map(_label, rows)))
    size = (max(7, 2 + 0.4 * len(blocks)), 6.5)
    with drawing(path, size, rows=2, sharex=True) as (figure, panels):
        magnitude, alignment = panels[:, 0]
        for axes, (quantity, name) in zip((magnitude, alignment), QUANTITIES.items(), strict=True):
            _draw_stages(axes, blocks)
            _draw_points(axes, rows, blocks, quantity, styles)
            axes.set_ylabel(name)
            axes.grid(visible=False, axis='x')
        for stage in _unique(block['stage'] for block in blocks):
            middle = statistics.fmean(i for i, block in enumerate(blocks) if block['stage'] == stage)
            transform = magnitude.get_xaxis_transform()
            magnitude.text(middle, 1.02, f'stage {stage}', transform=transform, ha='center')
        magnitude.set_ylim(bottom=-0.03 * magnitude.get_ylim()[1])  # all of a marker at 0 is seen
        alignment.axhline(0, color='black', lw=0.8)
        alignment.set_xticks(range(len(blocks)), [block['block'] for block in blocks], rotation=90)
        seeds = _unique(row['checkpoint'] for row in rows if row['network'] == 'adaptive')
        spread = f' (bars: standard deviation over {len(seeds)} seeds)' if len(seeds) > 1 else ''
        alignment.set(xlabel=f'residual block{spread}', xlim=(-0.5, len(blocks) - 0.5))
        _draw_legend(figure, styles, any(row['skipped'] for row in rows))


def _styles(labels: list[str]) -> dict[str, dict]:
    styles = {
        label: dict(color=colour, marker='o', ms=5, ls='')
        for label, colour in zip(labels, cycle(COLOURS), strict=False)
    }
    if 'plain' in styles:
        styles['plain'].update(color=PLAIN, marker='s')
    return styles


def _draw_stages(axes: Axes, blocks: list[dict]) -> None:
    """Lines between the stages, and a grey ground for skippable blocks."""
    for place, block in enumerate(blocks):
        if block['sub_path'] == 'skippable':
            axes.axvspan(place - 0.5, place + 0.5, color=GREY, alpha=0.2, lw=0)
        if place and block['stage'] != blocks[place - 1]['stage']:
            axes.axvline(place - 0.5, color='black', lw=0.8)


def _draw_points(axes: Axes, rows: list[dict], blocks: list[dict], quantity: str, styles: dict) -> None:
    """For each block and network the seeds as small dots, and their mean; hollow where it is skipped."""
    for (i, (label, style)), (place, block) in product(enumerate(styles.items()), enumerate(blocks)):
        seeds = [row for row in rows if row['block'] == block['block'] and _label(row) == label]
        values = [row[quantity] for row in seeds if row[quantity] is not None]
        if not values:
            continue
        x = place + 0.6 * ((i + 0.5) / len(styles) - 0.5)
        mean, std = finite_mean_and_std(values)
        if len(values) > 1:
            axes.plot([x] * len(values), values, '.', color=style['color'], alpha=0.4, ms=4, zorder=2)
        hollow = dict(mfc='white') if seeds[0]['skipped'] else {}
        axes.errorbar(x, mean, std if len(values) > 1 else None, **style, **hollow, elinewidth=1.2, zorder=3)


def _draw_legend(figure: Figure, styles: dict, skipped: bool) -> None:
    handles = [Line2D([], [], **style, label=label) for label, style in styles.items()]
    handles.append(Patch(color=GREY, alpha=0.2, label='skippable'))
    if skipped:
        hollow = dict(marker='o', ls='', color=GREY, mfc='white', label='skipped: what it would add')
        handles.append(Line2D([], [], **hollow))
    figure.legend(handles=handles, loc='outside upper center', ncols=len(handles), frameon=False)


def write_report(rows: list[dict], out: str | Path, **about) -> None:
    """Writes `residuals.json`, `residuals.md` and `residuals.png` into the folder `out`.

    Args:
        rows: From `measure_networks`.
        **about: What else the JSON file records, such as the config.
    """
    out = Path(out)
    results = {'machine': machine(), 'summary': summary(rows), 'residuals': rows}
    write_json(out / 'residuals.json', {**about, **results})
    parts = ['Means over the blocks:', summary_table(rows)]
    for quantity, name in QUANTITIES.items():
        parts += [f'{name}, in parentheses what a skipped block would add:', block_table(rows, quantity)]
    write_markdown(out / 'residuals.md', *parts)
    plot(rows, out / 'residuals.png')
