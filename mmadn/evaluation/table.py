"""Tables of sub-networks, as profiled or tested: how they are read, checked, joined and shown."""

import json
import math
from numbers import Real
from pathlib import Path

from ..errors import InputError
from ..utils.report import cells, pareto_front
from .columns import COLUMNS, LABELS


def metrics_of(rows: list[dict]) -> list[str]:
    """The names of the metrics that all rows have, in the order of the first, but mIoU before all others."""
    names = [
        name
        for name in rows[0]
        if name != 'skip'
        and name not in COLUMNS
        and all(isinstance(row.get(name), Real) and not math.isnan(row[name]) for row in rows)
    ]
    return sorted(names, key=lambda name: name != 'mIoU')


def axis_label(metric: str) -> str:
    """What an axis or a column says of a metric."""
    return LABELS.get(metric, metric)


def as_text(rows: list[dict], cost: str) -> list[dict]:
    """The rows as text, most GFLOPs first, with a mark on the Pareto front of the first metric over `cost`.

    Args:
        cost: One of COLUMNS.
    """
    metrics = metrics_of(rows)
    columns = {'skip': ('skip', ''), **{name: column[:2] for name, column in COLUMNS.items()}}
    for name in metrics:
        if name in LABELS or not name.startswith('coco/'):  # whose average precision is no percentage
            columns[name] = (axis_label(name), '.3f' if name.startswith('coco/') else '.2f')
    rows = sorted(rows, key=lambda row: -row['gflops'])
    if metrics:
        columns['Pareto'] = ('Pareto', '')
        best = [row['skip'] for row in pareto_front(rows, cost, metrics[0])]
        rows = [{**row, 'Pareto': '*' if row['skip'] in best else ''} for row in rows]
    return cells(rows, columns)


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
    """A `profile.json` or `subnets.json`, whole, or a list of rows; raises OSError, or ValueError."""
    try:
        report = json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f'{path} is not JSON: {error}') from None
    if isinstance(report, list):
        report = {'subnets': report}
    if not isinstance(report, dict) or 'subnets' not in report:
        raise InputError(
            f'{path} has no "subnets"; give a profile.json of tools/profile_subnets.py, a subnets.json '
            'of tools/test_subnets.py or a list of rows'
        )
    return report


def quality_of(rows: list[dict], metric: str | None = None) -> str:
    """The column that says how good a depth is: `metric`, or the first metric, or without one GFLOPs.

    Raises:
        ValueError: There is no such column.
    """
    names = metrics_of(rows)
    if metric is not None and metric not in names:
        raise InputError(f'metric={metric!r}: the table has {", ".join(names) or "no metrics"}')
    if names:
        return metric or names[0]
    check_column(rows, 'gflops', 'accuracies or gflops')
    return 'gflops'


def join(rows: list[dict], report: dict, config=None, checkpoint=None) -> list[dict]:
    """Adds the metrics of a `subnets.json` to the rows of a profile of the same network.

    Args:
        rows (list[dict]): With `skip` and maybe `params`.
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
        if 'params' in row:
            _check_params(row['skip'], row['params'], other.get('params'), 'the accuracies are')
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
    from ..depth import depth_of  # here, because tables are also read where torch is not installed

    depth = depth_of(model)
    total = sum(p.numel() for p in model.parameters())
    for row in rows:
        try:
            with depth.skipping(row['skip']):
                idle = sum(p.numel() for p in depth.idle_parameters())
        except ValueError as error:
            raise InputError(f'the table is of another network: {error}') from None
        if 'params' in row:
            _check_params(row['skip'], (total - idle) / 1e6, row['params'], 'the table is')


def _check_params(skip: str, params: float, given: float | None, whose: str) -> None:
    if given is not None and not math.isclose(params, given, abs_tol=5e-7):
        raise InputError(
            f'{whose} of another network: {skip} has {given:.6f} M parameters in use there, and '
            f'{params:.6f} M here'
        )


def check_column(rows: list[dict], name: str, what: str) -> None:
    """Raises ValueError unless all rows have a number of that name; `what` says which table would have it."""
    if not all(isinstance(row.get(name), Real) for row in rows):
        raise InputError(f'the table has no {name} in every row: it needs {what}')
