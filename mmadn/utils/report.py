"""How results are shown and kept: tables, JSON, files that appear whole or not at all.

What draws, prints or asks torch imports it itself: tables are also read where only exported files run.
"""

import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cores import available_cores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The colours of Okabe and Ito, which the colour-blind tell apart.
BLUE, VERMILION, GREEN, ORANGE = '#0072B2', '#D55E00', '#009E73', '#E69F00'
SKY, PINK, GREY = '#56B4E9', '#CC79A7', '#999999'
CLASS_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PINK, SKY, '#F0E442')  # of classes, in turn


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to it after the block and removed on failure.

    The suffix is kept, because writers choose their format by it. Parents are created.
    """
    path = Path(path)
    writable(path.parent)
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def writable(folder: str | Path) -> Path:
    """The folder, made if need be, before long work whose results go there; raises OSError if none can."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f'cannot write into {folder} ({error.strerror}); give another folder') from None
    return folder


def write_json(path: str | Path, data: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + '\n')


def print_table(rows: list[dict], title: str | None = None) -> None:
    """Prints rows with the same keys to the screen; numbers and formatted numbers stand right.

    A table of many columns does without the spaces beside its lines, so as to fit 80 characters.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(title=title and escape(title), title_justify='left')
    for name in rows[0] if rows else ():
        table.add_column(escape(name), justify='right' if _numeric(rows, name) else 'left', overflow='fold')
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row.values()))
    if console.measure(table, options=console.options.update(width=1000)).minimum > console.width:
        table.padding = 0
    console.print(table)


def markdown_table(rows: list[dict]) -> str:
    """The same as Markdown, without a newline at the end; empty without rows."""
    if not rows:
        return ''
    cells = [list(rows[0]), ['---:' if _numeric(rows, name) else '---' for name in rows[0]]]
    cells += [[str(cell).replace('|', '\\|') for cell in row.values()] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in cells)


def pareto_front(rows: list[dict], cost: str, quality: str) -> list[dict]:
    """The rows that no other one beats, cheapest first: none is better at the same or a smaller cost."""
    front = []
    for row in sorted(rows, key=lambda r: (r[cost], -r[quality])):
        if not front or row[quality] > front[-1][quality]:
            front.append(row)
    return front


def cells(rows: list[dict], columns: dict[str, tuple[str, str]]) -> list[dict]:
    """Rows of numbers as rows of text, for a table.

    Args:
        columns: For each key of the rows its heading and its format, such as `('GFLOPs', '#.3g')`. A key
            that no row has makes no column, and a row that lacks it has an empty cell there. The column
            `gflops` is in MFLOPs where that is easier to read, see `flops_unit`.
    """
    if 'gflops' in columns and (counted := [row['gflops'] for row in rows if row.get('gflops')]):
        scale, unit = flops_unit(counted)
        rows = [{**row, 'gflops': row['gflops'] * scale} if row.get('gflops') else row for row in rows]
        columns = {**columns, 'gflops': (unit, columns['gflops'][1])}
    shown = {key: column for key, column in columns.items() if any(row.get(key) is not None for row in rows)}
    return [
        {
            heading: '' if row.get(key) is None else digits(row[key], spec)
            for key, (heading, spec) in shown.items()
        }
        for row in rows
    ]


def digits(value: Any, spec: str = '#.3g') -> str:
    """A value by its format; large numbers have neither an exponent nor a point at their end."""
    text = format(value, spec).removesuffix('.')
    return f'{value:.0f}' if 'e+' in text else text


@contextmanager
def drawing(path, size: tuple[float, float], rows: int = 1, columns: int = 1, **subplots):
    """Yields a figure of `size` inches and its axes, an array of (rows, columns), and writes it as a PNG.

    Nothing here goes through pyplot, which would choose a backend for the whole process.

    Args:
        **subplots: For `Figure.subplots`, such as `sharex=True`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    for each in axes.flat:
        each.grid(alpha=0.3)
        each.set_axisbelow(True)
    yield figure, axes
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format='png')


def draw_front(axes: 'Axes', rows: list[dict], cost: str, quality: str, scale: float = 1.0) -> None:
    """Draws rows as dots, the Pareto front as a line through its dots, and names both ends and the front.

    A name that would hide another one is left out.

    Args:
        cost, quality: The keys of the rows that go along the axes.
        scale: What the costs are multiplied with, see `flops_unit`.
    """
    front = pareto_front(rows, cost, quality)
    for group, style in (
        (rows, dict(marker='o', ls='', color=GREY, label='sub-network')),
        (front, dict(marker='o', ls='-', color=BLUE, label='Pareto front')),
    ):
        axes.plot([row[cost] * scale for row in group], [row[quality] for row in group], **style)
    ends = [choose(rows, key=lambda row: row['gflops']) for choose in (min, max)]
    axes.margins(0.1, 0.15)
    axes.figure.draw_without_rendering()  # only then is it known where the names are
    boxes, style = [], dict(textcoords='offset points', ha='right', fontsize=9)
    for row in {row['skip']: row for row in [*ends, *front]}.values():
        name = axes.annotate(row['skip'], (row[cost] * scale, row[quality]), (3, 6), **style)
        box = name.get_window_extent()
        if any(box.overlaps(other) for other in boxes):
            name.remove()
        else:
            boxes.append(box)


def legend_above(axes: 'Axes', columns: int = 2) -> None:
    """Says above the axes, where no point can be, what their labelled parts are."""
    axes.legend(loc='lower left', bbox_to_anchor=(0, 1), ncols=columns, frameon=False)


def flops_unit(gflops: Iterable[float]) -> tuple[float, str]:
    """By what GFLOPs are multiplied to be read easily, and the unit that they then have."""
    return (1.0, 'GFLOPs') if max(gflops) >= 0.1 else (1e3, 'MFLOPs')


def machine(device: str = 'cuda') -> dict:
    """The processor, the cores and threads in use, its governor, and the versions of what computes.

    Args:
        device: Which GPU is named, if there are several, such as cuda:1; without a number the current one.
    """
    import torch

    gpu = device if device.startswith('cuda') else None
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    governor = Path('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor')
    versions = {name: import_module(name).__version__ for name in ('torch', 'mmengine', 'mmcv', 'mmpretrain')}
    versions |= {name: sys.modules[name].__version__ for name in ('mmdet',) if sys.modules.get(name)}
    return {
        'cpu': models[0] if models else platform.processor() or platform.machine(),
        'cores': available_cores(),
        'threads': torch.get_num_threads(),
        'governor': governor.read_text().strip() if governor.exists() else None,
        'gpu': torch.cuda.get_device_name(gpu) if torch.cuda.is_available() else None,
        'cuda': torch.version.cuda,
        'python': platform.python_version(),
        **versions,
    }


def _numeric(rows: list[dict], name: str) -> bool:
    texts = [str(row[name]).strip(' %x-–') for row in rows]
    return any(texts) and all(t.replace('.', '', 1).isdigit() for t in texts if t)
