"""How the analyses write what they measured."""

import statistics
from collections.abc import Iterable
from pathlib import Path

from mmadn.utils.report import markdown_table, replacing


def write_markdown(path: str | Path, *parts: str | list[dict]) -> None:
    """Writes paragraphs and, for each list of rows, a table; empty parts are left out."""
    texts = (part if isinstance(part, str) else markdown_table(part) for part in parts)
    with replacing(path) as temporary:
        temporary.write_text('\n\n'.join(filter(None, texts)) + '\n')


def mean_and_spread(values: Iterable[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation; None for a single value."""
    values = list(values)
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def with_spread(mean: float | None, spread: float | None, digits: int, sign: str = '') -> str:
    """A mean and its spread as text, "51.00 ± 1.41"; without a mean nothing."""
    if mean is None:
        return ''
    return f'{mean:{sign}.{digits}f}' + ('' if spread is None else f' ± {spread:.{digits}f}')
