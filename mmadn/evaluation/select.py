"""The depth for a budget."""

import math
from numbers import Real
from typing import NamedTuple

from ..errors import InputError
from .columns import COLUMNS
from .table import check_column, quality_of, read_table


class Budget(NamedTuple):
    """One bound on a column: the most it may be, or the least where `at_least`."""

    name: str  # of the argument of `select`
    column: str
    limit: float
    at_least: bool = False

    def excess(self, row: dict) -> float:
        """By which part of the limit a row is on the wrong side of it; 0 or less if it fits."""
        beyond = row[self.column] / self.limit - 1
        return -beyond if self.at_least else beyond


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
        check_column(rows, latency, 'latencies, which tools/profile_subnets.py measures')
    if max_gflops is not None:
        check_column(rows, 'gflops', 'gflops')
    quality = quality_of(rows, metric)
    if min_accuracy is not None and quality in COLUMNS:
        raise InputError(
            'min_accuracy: the table has no accuracies; give a subnets.json, or profile with --accuracies'
        )
    budgets = [
        Budget('max_latency_ms', latency, max_latency_ms),
        Budget('max_gflops', 'gflops', max_gflops),
        Budget('min_accuracy', quality, min_accuracy, at_least=True),
    ]
    budgets = [budget for budget in budgets if budget.limit is not None]
    fitting = _fitting(rows, budgets)
    cost = latency if all(latency in row for row in rows) else 'gflops'
    if [budget.name for budget in budgets] == ['min_accuracy']:
        return min(fitting, key=lambda row: (row.get(cost, 0), -row[quality]))['skip']
    return max(fitting, key=lambda row: (row[quality], -row.get(cost, 0)))['skip']


def _fitting(rows: list[dict], budgets: list[Budget]) -> list[dict]:
    for budget in budgets:
        if not isinstance(budget.limit, Real) or not math.isfinite(budget.limit) or budget.limit <= 0:
            raise InputError(f'{budget.name}={budget.limit!r}: give a number above 0')
    fitting = [row for row in rows if all(budget.excess(row) <= 0 for budget in budgets)]
    if not fitting:
        closest = min(rows, key=lambda row: max(budget.excess(row) for budget in budgets))
        limits = ' and '.join(f'{budget.name}={budget.limit:g}' for budget in budgets)
        values = ', '.join(f'{budget.column} {closest[budget.column]:.4g}' for budget in budgets)
        raise InputError(f'no sub-network fits {limits}: {closest["skip"]} comes closest, with {values}')
    return fitting
