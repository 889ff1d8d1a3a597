"""Pareto fronts of several sets of networks in one picture (paper, Fig. 4b, 6b and 7b)."""

import itertools
from collections.abc import Iterable
from glob import glob
from numbers import Real
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmadn.errors import InputError
from mmadn.evaluation.columns import COLUMNS
from mmadn.evaluation.table import axis_label, metrics_of, read_report
from mmadn.utils.report import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    VERMILION,
    cells,
    drawing,
    flops_unit,
    pareto_front,
    write_json,
)

from .results import mean_and_spread, with_spread, write_markdown

# There are more markers than colours, so that no pair of them returns soon.
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, SKY, PINK, GREY)
MARKERS = 'os^DvPX*'
UNITS = {'params': 'parameters in use (M)', 'latency_ms': 'latency (ms)'}


def files_of(arguments: Iterable[str]) -> dict[str, list[str]]:
    """The files of each label, from `LABEL=FILE[,FILE...]`; a FILE may be a glob, `runs/*/subnets.json`.

    Raises:
        FileNotFoundError: A FILE matches nothing.
        ValueError: An argument has another form, or a label has a file twice.
    """
    files = {}
    for argument in arguments:
        label, _, names = argument.partition('=')
        if not label or not names:
            raise InputError(f'{argument!r}: give LABEL=FILE[,FILE...], such as ADN=work_dirs/a/subnets.json')
        for name in names.split(','):
            found = [name] if Path(name).exists() else sorted(glob(name, recursive=True))
            if not found:
                raise FileNotFoundError(
                    f'{label}: nothing matches {name!r}; give a subnets.json that tools/test_subnets.py wrote'
                )
            files.setdefault(label, []).extend(found)
    for label, paths in files.items():
        twice = [path for path in paths if paths.count(path) > 1]
        if twice:
            raise InputError(f'{label}: {twice[0]} is given twice, and would count as two seeds')
    return files


def read_points(
    files: dict[str, list[str]], cost: str = 'gflops', metric: str | None = None
) -> tuple[list[dict], str]:
    """The networks of several `subnets.json`, one point for all seeds of a network.

    Files of one label that have a depth of the same `skip` and `gflops` are seeds of one network; others
    are further networks of that label.

    Args:
        files: From `files_of`.
        cost: A column of what a depth costs.
        metric: A column of how good it is; by default the first metric.

    Returns:
        For each network and depth `label`, `skip`, `gflops`, the means of `cost` and `metric` over the seeds,
        `sd`, the standard deviation of the metric (None for one seed), `seeds`, and `front`, whether it is
        on the Pareto front of its label; and the metric's name.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is no such report or lacks a column, or seeds have different depths.
    """
    points = []
    for label, paths in files.items():
        networks = []  # for each of them the rows of each of its files, by (skip, gflops)
        for path in paths:
            rows, metric = _read(path, cost, metric)
            seeds = next((network for network in networks if network[0].keys() & rows.keys()), None)
            if seeds is None:
                networks.append([rows])
            elif seeds[0].keys() == rows.keys():
                seeds.append(rows)
            else:
                raise InputError(
                    f'{label}: the seeds have different depths, {_depths(seeds[0])} and, in {path}, '
                    f'{_depths(rows)}; test the same --skips of each, or give another network its own label'
                )
        of_label = [
            _point(label, [rows[key] for rows in seeds], cost, metric)
            for seeds in networks
            for key in seeds[0]
        ]
        front = pareto_front(of_label, cost, metric)
        points += [{**point, 'front': any(point is best for best in front)} for point in of_label]
    return points, metric


def _read(path: str, cost: str, metric: str | None) -> tuple[dict, str]:
    rows = read_report(path)['subnets']
    if not (isinstance(rows, list) and rows and all(map(_is_row, rows))):
        raise InputError(
            f'{path}: its "subnets" are not rows with skip and gflops; give a subnets.json that '
            'tools/test_subnets.py wrote'
        )
    costs = [key for key in rows[0] if key in COLUMNS and all(_is_number(r.get(key)) for r in rows)]
    metrics = metrics_of(rows)
    metric = metric or next(iter(metrics), 'accuracy/top1')
    for kind, name, known in (('cost', cost, costs), ('metric', metric, metrics)):
        if name not in known:
            raise InputError(f'{path} has no {kind} {name!r}; it has {", ".join(known) or "none"}')
    return {(row['skip'], row['gflops']): row for row in rows}, metric


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and isinstance(row.get('skip'), str) and _is_number(row.get('gflops'))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and np.isfinite(value)


def _depths(rows: dict) -> str:
    return ' '.join(skip or f'{gflops:.3g} GFLOPs' for skip, gflops in rows)


def _point(label: str, seeds: list[dict], cost: str, metric: str) -> dict:
    mean, spread = mean_and_spread(row[metric] for row in seeds)
    return {
        'label': label,
        'skip': seeds[0]['skip'],
        'gflops': seeds[0]['gflops'],
        cost: mean_and_spread(row[cost] for row in seeds)[0],
        metric: mean,
        'sd': spread,
        'seeds': len(seeds),
    }


def front_at(points: list[dict], costs: np.ndarray, cost: str, metric: str) -> np.ndarray:
    """The metric on the front of one label at some costs: straight between its points, level after them."""
    front = pareto_front(points, cost, metric)
    return np.interp(costs, [p[cost] for p in front], [p[metric] for p in front])


def compare(points: list[dict], cost: str, metric: str) -> list[dict]:
    """How far the front of each label lies above that of each later one, where both have costs.

    Returns:
        `label`, `over`, the shared range `low` to `high` of the cost, and the `mean`, the `least` and the
        `most` of the difference over it, in units of the metric; None where there is no such range.
    """
    rows = []
    for (name, ours), (other, theirs) in itertools.combinations(_by_label(points).items(), 2):
        low = max(min(p[cost] for p in group) for group in (ours, theirs))
        high = min(max(p[cost] for p in group) for group in (ours, theirs))
        row = dict(label=name, over=other, low=None, high=None, mean=None, least=None, most=None)
        if low <= high:
            costs = np.unique([low, high, *(p[cost] for p in ours + theirs if low <= p[cost] <= high)])
            ahead = front_at(ours, costs, cost, metric) - front_at(theirs, costs, cost, metric)
            middle, widths = (ahead[1:] + ahead[:-1]) / 2, np.diff(costs)
            mean = np.average(middle, weights=widths) if low < high else ahead[0]
            row |= dict(low=low, high=high, mean=float(mean))
            row |= dict(least=float(ahead.min()), most=float(ahead.max()))
        rows.append(row)
    return rows


def _by_label(points: list[dict]) -> dict[str, list[dict]]:
    groups = {}
    for point in points:
        groups.setdefault(point['label'], []).append(point)
    return groups


def _scale(points: list[dict], cost: str) -> tuple[float, str]:
    """What the cost is multiplied by to be shown, and its name with the unit."""
    if cost == 'gflops':
        return flops_unit([point[cost] for point in points])
    return 1.0, UNITS.get(cost, cost)


def tables(points: list[dict], cost: str, metric: str) -> tuple[list[dict], list[dict]]:
    """The points as text, by label and dearest first; and the rows of `compare`, empty for one label."""
    scale, unit = _scale(points, cost)
    digits = 3 if metric.startswith('coco/') else 2  # COCO's average precision is no percentage
    rows = [
        {
            **point,
            'shown cost': point[cost] * scale,
            'shown metric': with_spread(point[metric], point['sd'], digits),
            'mark': '*' if point['front'] else '',
        }
        for group in _by_label(points).values()
        for point in sorted(group, key=lambda point: -point[cost])
    ]
    columns = {
        'label': ('label', ''),
        'skip': ('skip', ''),
        'shown cost': (unit, '#.3g'),
        'shown metric': (axis_label(metric), ''),
        'seeds': ('seeds', ''),
        'mark': ('Pareto', ''),
    }
    differences = [
        {
            'difference of the fronts': f'{row["label"]} over {row["over"]}',
            f'shared {unit}': _range(row['low'], row['high'], scale),
            **{
                name: '-' if row[name] is None else f'{row[name]:+.{digits}f}'
                for name in ('mean', 'least', 'most')
            },
        }
        for row in compare(points, cost, metric)
    ]
    return cells(rows, columns), differences


def _range(low: float | None, high: float | None, scale: float) -> str:
    if low is None:
        return 'none'
    return ' - '.join(dict.fromkeys(f'{end * scale:#.3g}' for end in (low, high)))


def plot(points: list[dict], cost: str, metric: str, path: str | Path, title: str | None = None) -> None:
    """Draws the metric over the cost, one colour and marker for each label, as a PNG.

    A line joins the points of a label's Pareto front; those beside it are faint. Whiskers are the standard
    deviation over the seeds.
    """
    scale, unit = _scale(points, cost)
    groups = _by_label(points)
    handles, names, covered = [], [], []
    with drawing(path, (7.5, 5)) as (figure, panels):
        axes = panels[0, 0]
        for (label, group), colour, marker in zip(
            groups.items(), itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False
        ):
            covered += _draw(axes, group, cost, metric, scale, dict(color=colour, marker=marker))
            handles.append(Line2D([], [], color=colour, marker=marker, ms=6, label=label))
            ends = {choose(group, key=lambda p: p[cost])['skip'] for choose in (min, max)} - {''}
            names += [(p['skip'], p[cost] * scale, p[metric], colour) for p in group if p['skip'] in ends]
        if not all(point['front'] for point in points):
            style = dict(color=GREY, marker='o', ms=6, ls='', alpha=0.5)
            handles.append(Line2D([], [], **style, label='not on the front'))
        axes.margins(0.1, 0.12)
        axes.spines[['top', 'right']].set_visible(False)
        axes.set(
            title=title or '',
            xlabel=f'{unit} (multiply-adds)' if cost == 'gflops' else unit,
            ylabel=axis_label(metric),
        )
        figure.legend(handles=handles, loc='outside lower center', ncols=min(len(handles), 3), frameon=False)
        _annotate(figure, axes, names, covered)


def _draw(axes: Axes, group: list[dict], cost: str, metric: str, scale: float, style: dict) -> list[tuple]:
    """Draws the points of one label; returns the places, in data, that they and the line cover."""
    covered = []
    for front, alpha in ((False, 0.35), (True, 1)):
        chosen = sorted((p for p in group if p['front'] is front), key=lambda p: p[cost])
        x, y = [p[cost] * scale for p in chosen], [p[metric] for p in chosen]
        sd = [p['sd'] or 0 for p in chosen]
        line = '-' if front else ''
        axes.errorbar(x, y, sd if any(sd) else None, ls=line, alpha=alpha, lw=1.5, ms=6, capsize=3, **style)
        covered += [(a, b + sign * d) for a, b, d in zip(x, y, sd, strict=True) for sign in (-1, 0, 1)]
        if front:
            steps = np.linspace(0, len(x) - 1, 25 * len(x))
            covered += zip(
                np.interp(steps, range(len(x)), x), np.interp(steps, range(len(x)), y), strict=True
            )
    return covered


def _annotate(figure: Figure, axes: Axes, names: list[tuple], covered: list[tuple]) -> None:
    """Writes each name beside its point, where it hides least of what is `covered` and of other names."""
    figure.draw_without_rendering()  # only now is it known where the points are
    occupied, inside, boxes = axes.transData.transform(covered), axes.get_window_extent(), []

    def hidden(box):
        points = np.all((box.min - 3 <= occupied) & (occupied <= box.max + 3), axis=1).sum()
        outside = not (inside.contains(*box.min) and inside.contains(*box.max))
        return points + 100 * (outside + sum(box.overlaps(other) for other in boxes))

    def move(note, distance, direction):
        dx, dy = direction
        note.set_position((dx * distance, dy * distance))
        note.set(ha=('center', 'left', 'right')[dx], va=('center', 'bottom', 'top')[dy])
        return note.get_window_extent()

    directions = [(0, 1), (0, -1), (-1, 1), (1, -1), (-1, -1), (1, 1), (-1, 0), (1, 0)]
    places = list(itertools.product((8, 16, 24), directions))
    for text, x, y, colour in names:
        note = axes.annotate(text, (x, y), (0, 0), textcoords='offset points', color=colour, fontsize=9)
        costs = [hidden(move(note, *place)) for place in places]
        boxes.append(move(note, *places[int(np.argmin(costs))]))


def write_report(
    points: list[dict], cost: str, metric: str, out: str | Path, title: str | None = None, **about
) -> None:
    """Writes `pareto.json`, `pareto.md` and `pareto.png` into the folder `out`.

    Args:
        points: From `read_points`.
        **about: What else the JSON file records, such as the files.
    """
    out = Path(out)
    results = {'points': points, 'differences': compare(points, cost, metric)}
    write_json(out / 'pareto.json', {**about, 'cost': cost, 'metric': metric, **results})
    write_markdown(out / 'pareto.md', *tables(points, cost, metric))
    plot(points, cost, metric, out / 'pareto.png', title)
