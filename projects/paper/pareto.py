"""Pareto fronts of several sets of networks in one picture (paper, Fig. 4b, 6b and 7b)."""

import itertools
import statistics
from glob import glob
from numbers import Real
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmadn.errors import InputError
from mmadn.evaluation.table import COLUMNS, LABELS, metrics_of, read_report
from mmadn.utils.report import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    VERMILION,
    markdown_table,
    pareto_front,
    replacing,
    write_json,
)

# More markers than colours, so that no pair returns soon.
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, SKY, PINK, GREY)
MARKERS = 'os^DvPX*'
UNITS = {'params': (1, 'parameters in use (M)'), 'latency_ms': (1, 'latency (ms)')}


def files_of(arguments) -> dict[str, list[str]]:
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


def read_points(files: dict, cost='gflops', metric: str | None = None) -> tuple[list[dict], str]:
    """The networks of several `subnets.json`, one point for all seeds of a network.

    Files of one label that have a depth of the same `skip` and `gflops` are seeds of one network; others
    are further networks of that label.

    Args:
        files (dict[str, list[str | Path]]): From `files_of`.
        cost (str): A column of what a depth costs.
        metric (str, optional): A column of how good it is; by default the first metric.

    Returns:
        tuple[list[dict], str]: For each network and depth `label`, `skip`, `gflops`, the means of `cost`
        and `metric` over the seeds, `sd` of the metric (None for one seed), `seeds`, and `front`, whether
        it is on the Pareto front of its label; and the metric's name.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is no such report or lacks a column, or seeds have different depths.
    """
    points = []
    for label, paths in files.items():
        seeds = []  # for each network the rows of each of its files, by (skip, gflops)
        for path in paths:
            rows, metric = _read(path, cost, metric)
            network = next((n for n in seeds if n[0].keys() & rows.keys()), None)
            if network is None:
                seeds.append([rows])
            elif network[0].keys() == rows.keys():
                network.append(rows)
            else:
                raise InputError(
                    f'{label}: the seeds have different depths, {_depths(network[0])} and, in {path}, '
                    f'{_depths(rows)}; test the same --skips of each, or give another network its own label'
                )
        mine = [_point(label, key, group, cost, metric) for group in seeds for key in group[0]]
        best = [id(point) for point in pareto_front(mine, cost, metric)]
        points += [{**point, 'front': id(point) in best} for point in mine]
    return points, metric


def _read(path, cost, metric):
    rows = read_report(path)['subnets']
    if not (isinstance(rows, list) and rows and all(map(_is_row, rows))):
        raise InputError(
            f'{path}: its "subnets" are not rows with skip and gflops; give a subnets.json that '
            'tools/test_subnets.py wrote'
        )
    costs = [name for name in rows[0] if name in COLUMNS and all(_number(r.get(name)) for r in rows)]
    metrics = metrics_of(rows)
    metric = metric or next(iter(metrics), 'accuracy/top1')
    for kind, name, there in (('cost', cost, costs), ('metric', metric, metrics)):
        if name not in there:
            raise InputError(f'{path} has no {kind} {name!r}; it has {", ".join(there) or "none"}')
    return {(row['skip'], row['gflops']): row for row in rows}, metric


def _is_row(row):
    return isinstance(row, dict) and isinstance(row.get('skip'), str) and _number(row.get('gflops'))


def _number(value):
    return isinstance(value, Real) and np.isfinite(value)


def _depths(rows):
    return ' '.join(skip or f'{gflops:.3g} GFLOPs' for skip, gflops in rows)


def _point(label, key, group, cost, metric):
    values = [rows[key][metric] for rows in group]
    return {
        'label': label,
        'skip': key[0],
        'gflops': key[1],
        cost: statistics.mean(rows[key][cost] for rows in group),
        metric: statistics.mean(values),
        'sd': statistics.stdev(values) if len(values) > 1 else None,
        'seeds': len(values),
    }


def front_at(points: list[dict], costs, cost: str, metric: str) -> np.ndarray:
    """The metric on the front of one label at some costs: straight between its points, level after them."""
    front = pareto_front(points, cost, metric)
    return np.interp(costs, [p[cost] for p in front], [p[metric] for p in front])


def compare(points: list[dict], cost: str, metric: str) -> list[dict]:
    """How far the front of each label lies above that of each later one, where both have costs.

    Returns:
        list[dict]: `label`, `over`, the shared range `low` to `high` of the cost, and the `mean`, the
        `least` and the `most` of the difference over it, in units of the metric; None where there is no
        such range.
    """
    groups = _by_label(points)
    rows = []
    for (name, mine), (other, theirs) in itertools.combinations(groups.items(), 2):
        ranges = [(min(p[cost] for p in group), max(p[cost] for p in group)) for group in (mine, theirs)]
        low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
        row = dict(label=name, over=other, low=None, high=None, mean=None, least=None, most=None)
        if low <= high:
            costs = np.unique([low, high, *(p[cost] for p in mine + theirs if low <= p[cost] <= high)])
            ahead = front_at(mine, costs, cost, metric) - front_at(theirs, costs, cost, metric)
            mean = ahead[0]
            if low < high:
                mean = np.average((ahead[1:] + ahead[:-1]) / 2, weights=np.diff(costs))
            row |= dict(low=low, high=high)
            row |= dict(mean=float(mean), least=float(ahead.min()), most=float(ahead.max()))
        rows.append(row)
    return rows


def _by_label(points):
    groups = {}
    for point in points:
        groups.setdefault(point['label'], []).append(point)
    return groups


def _scale(points, cost):
    """What the cost is multiplied by to be shown, and its name with the unit."""
    if cost == 'gflops':
        small = max(p[cost] for p in points) < 0.1
        return (1e3, 'MFLOPs') if small else (1, 'GFLOPs')
    return UNITS.get(cost, (1, cost))


def _digits(metric):
    return 3 if metric in LABELS else 2  # COCO's average precision is no percentage


def tables(points: list[dict], cost: str, metric: str) -> tuple[list[dict], list[dict]]:
    """The points as text, by label and dearest first; and the rows of `compare`, empty for one label."""
    scale, unit = _scale(points, cost)
    digits = _digits(metric)
    rows = [
        {
            'label': label,
            'skip': p['skip'],
            unit: f'{p[cost] * scale:#.3g}',
            LABELS.get(metric, metric): f'{p[metric]:.{digits}f}'
            + ('' if p['sd'] is None else f' ± {p["sd"]:.{digits}f}'),
            'seeds': str(p['seeds']),
            'Pareto': '*' if p['front'] else '',
        }
        for label, group in _by_label(points).items()
        for p in sorted(group, key=lambda p: -p[cost])
    ]
    differences = [
        {
            'difference of the fronts': f'{c["label"]} over {c["over"]}',
            f'shared {unit}': _range(c['low'], c['high'], scale),
            **{
                name: '-' if c[name] is None else f'{c[name]:+.{digits}f}'
                for name in ('mean', 'least', 'most')
            },
        }
        for c in compare(points, cost, metric)
    ]
    return rows, differences


def _range(low, high, scale):
    if low is None:
        return 'none'
    ends = [f'{x * scale:#.3g}' for x in (low, high)]
    return ends[0] if low == high else ' - '.join(ends)


def plot(points: list[dict], cost: str, metric: str, path, title=None) -> None:
    """Draws the metric over the cost, one colour and marker a label, as a PNG.

    A line joins the points of a label's Pareto front; those beside it are faint. Whiskers are the standard
    deviation over the seeds.
    """
    scale, unit = _scale(points, cost)
    figure = Figure(figsize=(7.5, 5), layout='constrained')
    axes = figure.add_subplot()
    styles = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
    handles, names, taken = [], [], []
    for group, (colour, marker) in zip(_by_label(points).values(), styles, strict=False):
        style = dict(color=colour, marker=marker, ms=6, capsize=3)
        for front, alpha in ((False, 0.35), (True, 1)):
            some = sorted((p for p in group if p['front'] is front), key=lambda p: p[cost])
            x, y = [p[cost] * scale for p in some], [p[metric] for p in some]
            sd = [p['sd'] or 0 for p in some]
            whiskers = sd if any(sd) else None
            axes.errorbar(x, y, whiskers, ls='-' if front else '', alpha=alpha, lw=1.5, **style)
            taken += _along(x, y) if front else []
            taken += [(a, b + s * d) for a, b, d in zip(x, y, sd, strict=True) for s in (-1, 0, 1)]
        handles.append(Line2D([], [], color=colour, marker=marker, ms=6))
        ends = {min(group, key=lambda p: p[cost])['skip'], max(group, key=lambda p: p[cost])['skip']} - {''}
        names += [(p['skip'], p[cost] * scale, p[metric], colour) for p in group if p['skip'] in ends]
    labels = list(_by_label(points))
    if not all(p['front'] for p in points):
        handles.append(Line2D([], [], color=GREY, marker='o', ms=6, ls='', alpha=0.5))
        labels.append('not on the front')
    axes.margins(0.1, 0.12)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.set(
        title=title or '',
        xlabel=f'{unit} (multiply-adds)' if cost == 'gflops' else unit,
        ylabel=f'{metric} (%)' if metric.startswith('accuracy') else LABELS.get(metric, metric),
    )
    figure.legend(handles, labels, loc='outside lower center', ncols=min(len(labels), 3), frameon=False)
    _annotate(figure, axes, names, taken)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _along(x, y):
    steps = np.linspace(0, 1, 25)
    return [
        (a + t * (c - a), b + t * (d - b))
        for (a, b), (c, d) in itertools.pairwise(zip(x, y, strict=True))
        for t in steps
    ]


def _annotate(figure, axes, names, taken):
    """Writes each name beside its point where it covers least of the points `taken` and of other names."""
    figure.draw_without_rendering()  # only now is it known where the points are
    occupied, inside, boxes = axes.transData.transform(taken), axes.get_window_extent(), []

    def covered(box):
        hidden = np.all((box.min - 3 <= occupied) & (occupied <= box.max + 3), axis=1).sum()
        outside = not (inside.contains(*box.min) and inside.contains(*box.max))
        return hidden + 100 * (outside + sum(box.overlaps(other) for other in boxes))

    directions = [(0, 1), (0, -1), (-1, 1), (1, -1), (-1, -1), (1, 1), (-1, 0), (1, 0)]
    for text, x, y, colour in names:
        note = axes.annotate(text, (x, y), (0, 0), textcoords='offset points', color=colour, fontsize=9)

        def place(distance, direction, note=note):
            dx, dy = direction
            note.set_position((dx * distance, dy * distance))
            note.set(ha=('center', 'left', 'right')[dx], va=('center', 'bottom', 'top')[dy])
            return note.get_window_extent()

        places = list(itertools.product((8, 16, 24), directions))
        boxes.append(place(*min(places, key=lambda p, place=place: covered(place(*p)))))


def write_report(points: list[dict], cost: str, metric: str, out, title=None, **about) -> None:
    """Writes `pareto.json`, `pareto.md` and `pareto.png` into the folder `out`.

    Args:
        points (list[dict]): From `read_points`.
        **about: What else the JSON file records, such as the files.
    """
    out = Path(out)
    results = {'points': points, 'differences': compare(points, cost, metric)}
    write_json(out / 'pareto.json', {**about, 'cost': cost, 'metric': metric, **results})
    with replacing(out / 'pareto.md') as path:
        path.write_text('\n\n'.join(filter(None, map(markdown_table, tables(points, cost, metric)))) + '\n')
    plot(points, cost, metric, out / 'pareto.png', title)
