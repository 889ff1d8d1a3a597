"""Tables of sub-networks, as profiled or tested: read, joined, checked, and the depth for a budget."""

import json
import math
from numbers import Real
from pathlib import Path

from ..depth import adaptive_backbone
from ..errors import InputError

# What a row tells beside its metrics; a metric is any other number that all rows have.
COSTS = ('skip', 'gflops', 'params', 'stored', 'latency', 'peak_memory', 'energy')


def read_table(table) -> list[dict]:
    """The rows of a table of sub-networks.

    Args:
        table (Sequence[dict] | str | Path): Rows with `skip` and what is known of that depth, see
            `profile_subnets` and `evaluate_subnets`; or the path of a `profile.json` or `subnets.json`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not such a table, or its rows are not those of one network.
    """
    name = f'the table {str(table)!r}' if isinstance(table, (str, Path)) else 'the table'
    rows = read_report(table)['subnets'] if isinstance(table, (str, Path)) else table
    if not isinstance(rows, (list, tuple)) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f'{name} is not a list of rows such as {{"skip": "TTFF", "gflops": 3.46}}')
    skips = [row.get('skip') for row in rows]
    for skip in skips:
        if not isinstance(skip, str) or not skip or set(skip) - {'T', 'F'} or len(skip) != len(skips[0]):
            raise InputError(
                f'{name} has a row of skip={skip!r}: give T or F for each stage, as many as the other rows do'
            )
    if len(set(skips)) < len(skips):
        twice = next(skip for skip in skips if skips.count(skip) > 1)
        raise InputError(f'{name} has more than one row of skip={twice!r}')
    return list(rows)


def read_report(path) -> dict:
    """A `profile.json` or `subnets.json`, whole; raises OSError, or ValueError for another file."""
    try:
        report = json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f'{path} is not JSON: {error}') from None
    if not isinstance(report, dict) or 'subnets' not in report:
        raise InputError(
            f'{path} has no "subnets"; give a profile.json of tools/profile_subnets.py or a subnets.json '
            'of tools/test_subnets.py'
        )
    return report


def metrics_of(rows: list[dict]) -> list[str]:
    """The names of the metrics that all rows have, in the order of the first."""
    return [
        name
        for name, value in rows[0].items()
        if not name.startswith(COSTS)
        and all(isinstance(r.get(name), Real) and not math.isnan(r[name]) for r in rows)
    ]


def quality_of(rows: list[dict], metric: str | None = None) -> str:
    """The column that says how good a depth is: `metric`, or the first metric, or without one GFLOPs.

    Raises:
        ValueError: There is no such column.
    """
    names = metrics_of(rows)
    if metric is not None and metric not in names:
        raise InputError(f'metric={metric!r}: the table has {", ".join(names) or "no metrics"}')
    if not names:
        _column(rows, 'gflops', 'accuracies or gflops')
    return metric or (names[0] if names else 'gflops')


def select(
    table,
    max_latency_ms: float | None = None,
    max_gflops: float | None = None,
    min_accuracy: float | None = None,
    metric: str | None = None,
    percentile: int = 95,
) -> str:
    """The best depth that fits: `model.backbone.set_skip(select('profile.json', max_latency_ms=20))`.

    Under `max_latency_ms` or `max_gflops` that is the most accurate one, or the one of most GFLOPs where
    the table has no accuracies; with `min_accuracy` alone it is the cheapest one that reaches it, by
    latency where that is known.

    Args:
        table: See `read_table`.
        max_latency_ms (float, optional): What the latency may be, in ms.
        max_gflops (float, optional): What an image may cost, in 1e9 multiply-adds.
        min_accuracy (float, optional): What `metric` has to be, in the metric's own unit.
        metric (str, optional): The column of accuracies, such as 'accuracy/top1'; by default the first.
        percentile (int): Which latency `max_latency_ms` bounds, 95 or 50. The 95th is the default because
            half of all images are slower than the median.

    Returns:
        str: The skip string.

    Raises:
        OSError: The table cannot be read.
        ValueError: Nothing fits, and then the message says what comes closest; or the table lacks a column.
    """
    rows = read_table(table)
    if percentile not in (50, 95):
        raise InputError(f'percentile={percentile!r}: a table has 50 and 95')
    latency = f'latency_p{percentile}_ms'
    if max_latency_ms is not None:
        _column(rows, latency, 'latencies, which tools/profile_subnets.py measures')
    if max_gflops is not None:
        _column(rows, 'gflops', 'gflops')
    quality = quality_of(rows, metric)
    if min_accuracy is not None and quality == 'gflops':
        raise InputError(
            'min_accuracy: the table has no accuracies; give a subnets.json, or profile with --accuracies'
        )
    budgets = [
        (name, column, limit, sign)
        for name, column, limit, sign in (
            ('max_latency_ms', latency, max_latency_ms, 1),
            ('max_gflops', 'gflops', max_gflops, 1),
            ('min_accuracy', quality, min_accuracy, -1),
        )
        if limit is not None
    ]
    for name, _, limit, _ in budgets:
        if not isinstance(limit, Real) or not math.isfinite(limit) or limit <= 0:
            raise InputError(f'{name}={limit!r}: give a number above 0')

    def excess(row):  # by which part of a budget it is exceeded at worst
        return max((sign * (row[column] / limit - 1) for _, column, limit, sign in budgets), default=0)

    cost = next((name for name in (latency, 'gflops') if all(name in row for row in rows)), None)
    fitting = [row for row in rows if excess(row) <= 0]
    if not fitting:
        closest = min(rows, key=excess)
        asked = ' and '.join(f'{name}={limit:g}' for name, _, limit, _ in budgets)
        has = ', '.join(f'{column} {closest[column]:.4g}' for _, column, _, _ in budgets)
        raise InputError(f'no sub-network fits {asked}: {closest["skip"]} comes closest, with {has}')
    if [name for name, *_ in budgets] == ['min_accuracy'] and cost:
        return min(fitting, key=lambda row: (row[cost], -row[quality]))['skip']
    return max(fitting, key=lambda row: (row[quality], -row[cost] if cost else 0))['skip']


def join(rows: list[dict], report: dict, config=None, checkpoint=None) -> list[dict]:
    """Adds the metrics of a `subnets.json` to the rows of a profile of the same network.

    Args:
        rows (list[dict]): With `skip` and `params`.
        report (dict): From `read_report`. It may have more depths than the rows.
        config, checkpoint (str | Path, optional): Of the rows, compared with the report's by file name.

    Raises:
        ValueError: The report is of another model, or lacks a depth.
    """
    for what, mine in (('config', config), ('checkpoint', checkpoint)):
        theirs = report.get(what)
        if mine and theirs and Path(mine).name != Path(theirs).name:
            raise InputError(f'the accuracies are of the {what} {theirs}, and this is {mine}')
    tested = {row['skip']: row for row in read_table(report['subnets'])}
    names = metrics_of(list(tested.values()))
    if not names:
        raise InputError(
            'the table of accuracies has no metrics; give a subnets.json of tools/test_subnets.py'
        )
    joined = []
    for row in rows:
        other = tested.get(row['skip'])
        if other is None:
            raise InputError(
                f'the accuracies are of {", ".join(tested)}, without {row["skip"]}: they are of another '
                'network, or tools/test_subnets.py has to test this depth too'
            )
        _same_params(row, other.get('params'), 'the accuracies')
        joined.append({**row, **{name: other[name] for name in names}})
    return joined


def gflops_ratio(tested: dict, profiled: dict) -> float:
    """How the GFLOPs of two reports compare at a depth that both have: 1 for images of the same size.

    Reports from `read_report`; 1 too if they have no common depth, or one does not say its GFLOPs.
    """
    known = {row['skip']: row.get('gflops') for row in tested['subnets']}
    row = profiled['subnets'][0]
    return (known.get(row['skip']) or row['gflops']) / row['gflops']


def check(rows: list[dict], model) -> None:
    """Refuses a table of another network: each depth uses as many parameters as the table says.

    Raises:
        ValueError: A depth does not fit, or uses another number of parameters.
    """
    backbone = adaptive_backbone(model)
    total = sum(p.numel() for p in model.parameters())
    for row in rows:
        try:
            with backbone.skipping(row['skip']):
                idle = sum(p.numel() for p in backbone.idle_parameters())
        except ValueError as error:
            raise InputError(f'the table is of another network: {error}') from None
        if 'params' in row:
            _same_params({'skip': row['skip'], 'params': (total - idle) / 1e6}, row['params'], 'the table')


def _same_params(row, params, what):
    if params is not None and not math.isclose(row['params'], params, abs_tol=5e-7):
        raise InputError(
            f'{what} is of another network: {row["skip"]} has {params:.6f} M parameters in use there, '
            f'and {row["params"]:.6f} M here'.replace('accuracies is', 'accuracies are')
        )


def _column(rows, name, what):
    if not all(isinstance(row.get(name), Real) for row in rows):
        raise InputError(f'the table has no {name} in every row: it needs {what}')
