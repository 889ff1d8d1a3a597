"""Tables and pictures of what `run_study` gives."""

from collections.abc import Sequence
from pathlib import Path

from mmadn.utils.report import BLUE, GREY, VERMILION, drawing, machine, write_json

from .results import mean_and_spread, with_spread, write_markdown
from .study import Claim, Study


def table(rows: list[dict], metrics: dict[str, str]) -> list[dict]:
    """Mean and standard deviation over the seeds, for each depth of each run, as text."""
    return [
        {
            'run': name,
            'skip': skip,
            **{label: _seeds([row[metric] for row in group], label) for metric, label in metrics.items()},
            'seeds': str(len(group)),
        }
        for (name, skip), group in _by_network(rows).items()
    ]


def _by_network(rows: list[dict]) -> dict[tuple[str, str], list[dict]]:
    groups = {}
    for row in rows:
        groups.setdefault((row['run'], row['skip']), []).append(row)
    return groups


def _seeds(values: list[float], label: str, sign: str = '') -> str:
    return with_spread(*mean_and_spread(values), digits=2 if '%' in label else 3, sign=sign)


def compared(rows: list[dict], study: Study) -> dict[str, list[dict]]:
    """The rows of each comparison in the order of its runs, without comparisons of which nothing is done."""
    groups = {
        name: [row for run in runs for row in rows if row['run'] == run and _is_shown(row, study)]
        for name, runs in study.comparisons.items()
    }
    return {name: group for name, group in groups.items() if group}


def _is_shown(row: dict, study: Study) -> bool:
    return not row['skip'] or study.shown is None or row['skip'] in study.shown


def depths_table(rows: list[dict], metrics: dict[str, str]) -> list[dict]:
    """What the depths between the two ends are worth, a row for each run that was tested at all of them.

    "Below the line" is how far the worst depth lies below the straight line over GFLOPs between the base-net
    and the super-net, negative where even that depth lies above it. All figures are means and standard
    deviations over the seeds of the first metric.
    """
    metric, label = next(iter(metrics.items()))
    lines = []
    for run in dict.fromkeys(row['run'] for row in rows):
        seeds = {}
        for row in rows:
            if row['run'] == run:
                seeds.setdefault(row['seed'], {})[row['skip']] = row
        figures = [_figures(depths, metric) for depths in seeds.values() if _has_all(depths)]
        if figures:
            columns = {name: _seeds([f[name] for f in figures], label) for name in figures[0]}
            lines.append({'run': run, **columns, 'seeds': str(len(figures))})
    return lines


def _has_all(depths: dict[str, dict]) -> bool:
    return len(depths) > 2 and len(depths) == 2 ** len(next(iter(depths)))


def _figures(depths: dict[str, dict], metric: str) -> dict[str, float]:
    base, top = depths.pop('T' * len(next(iter(depths)))), depths.pop('F' * len(next(iter(depths))))
    values = [row[metric] for row in depths.values()]
    slope = (top[metric] - base[metric]) / (top['gflops'] - base['gflops'])
    below = [base[metric] + slope * (r['gflops'] - base['gflops']) - r[metric] for r in depths.values()]
    return {
        'super-net': top[metric],
        'base-net': base[metric],
        'mean between': mean_and_spread(values)[0],
        'worst between': min(values),
        'below the line': max(below),
    }


def claims_table(rows: list[dict], claims: Sequence[Claim], metrics: dict[str, str]) -> list[dict]:
    """How far each claim holds: the difference of its two sides, paired by seed, in the first metric."""
    metric, label = next(iter(metrics.items()))
    values = {network: {row['seed']: row[metric] for row in g} for network, g in _by_network(rows).items()}
    lines = []
    for claim in claims:
        better, worse = values.get(claim.better, {}), values.get(claim.worse, {})
        differences = [better[seed] - worse[seed] for seed in better if seed in worse]
        if differences:
            line = {'claim': str(claim), f'difference in {label}': _seeds(differences, label, '+')}
            held = sum(difference >= 0 for difference in differences)
            lines.append({**line, 'holds in': f'{held} of {len(differences)} seeds'})
    return lines


def plot(rows: list[dict], metrics: dict[str, str], path: str | Path) -> None:
    """Draws every seed as a dot and the means as bars, one panel for each metric, as a PNG."""
    networks = _by_network(rows)
    names = list(networks)
    size = (5 * len(metrics) + 2, 1.2 + 0.28 * len(names))
    with drawing(path, size, columns=len(metrics), sharey=True) as (figure, panels):
        for axes, (metric, label) in zip(panels.flat, metrics.items(), strict=True):
            for place, group in enumerate(networks.values()):
                values = [row[metric] for row in group]
                seeds = axes.plot(values, [place] * len(values), 'o', color=BLUE, alpha=0.6)[0]
                middle = [mean_and_spread(values)[0]]
                mean = axes.plot(middle, [place], '|', ms=12, mew=2, color=VERMILION)[0]
                if place and names[place][0] != names[place - 1][0]:
                    axes.axhline(place - 0.5, color=GREY, lw=0.5)
            axes.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
            axes.set_yticks(range(len(names)), [' '.join(name).strip() for name in names])
            axes.grid(visible=False, axis='y')
        figure.legend([seeds, mean], ['one seed', 'mean'], loc='outside upper right', ncols=2, frameon=False)


def write_report(rows: list[dict], study: Study, out: str | Path, **about) -> None:
    """Writes `study.json`, a table and a picture of each comparison, `depths.md` and `claims.md` into `out`.

    The last two are left out where no run was tested at all depths, and where nothing is claimed.
    """
    out = Path(out)
    write_json(out / 'study.json', {**about, 'machine': machine(), 'results': rows})
    for name, group in compared(rows, study).items():
        write_markdown(out / f'{name}.md', table(group, study.metrics))
        plot(group, study.metrics, out / f'{name}.png')
    if depths := depths_table(rows, study.metrics):
        write_markdown(out / 'depths.md', depths)
    if claims := claims_table(rows, study.claims, study.metrics):
        write_markdown(out / 'claims.md', claims)
