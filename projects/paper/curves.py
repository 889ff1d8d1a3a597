"""The validation of sub-networks over the course of a training, read from its log (paper, Fig. 5)."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from mmadn.depth_names import PRESETS
from mmadn.errors import InputError
from mmadn.utils.report import BLUE, GREEN, ORANGE, SKY, VERMILION, cells, drawing, write_json

Curves = dict[str, list[tuple[int, float]]]  # steps and values by depth; '' is that of an ordinary network
NOT_METRICS = ('step', 'time', 'data_time', 'memory')
# From super-net to base-net; with other than four stages the colours between these.
COLOURS = LinearSegmentedColormap.from_list('', [BLUE, SKY, GREEN, ORANGE, VERMILION])
LINES = ('-', '--', '-.', ':', (0, (7, 1, 1, 1, 1, 1)), (0, (1, 4)))


@dataclass
class Log:
    """What the validations of a training gave.

    Args:
        values: By metric, depth ('' for an ordinary network) and step.
        unit: What a step is, 'epoch' or 'iteration'.
    """

    values: dict[str, dict[str, dict[int, float]]]
    unit: str

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics, without depths, in the order of the evaluators."""
        return list(self.values)

    def curves(self, metric: str | None = None, skips: Sequence[str] | None = None) -> Curves:
        """What the validations gave at each depth, fewest skipped stages first.

        Args:
            metric: Such as 'accuracy/top1', without a depth; by default the first one.
            skips: Which depths, 'super' and 'base' among them; by default all.

        Raises:
            ValueError: The log has no such metric or depth.
        """
        metric = metric or self.metrics[0]
        if metric not in self.values:
            raise InputError(f'metric={metric!r}: the log has {", ".join(self.metrics)}')
        values = self.values[metric]
        names = sorted(values, key=lambda skip: (skip.count('T'), skip))
        wanted = {skip: PRESETS[skip] * len(names[0]) if skip in PRESETS else skip for skip in skips or names}
        for given, skip in wanted.items() if skips else ():
            if not skip or skip not in names:
                known = ', '.join(filter(None, names)) or 'no depths, as of an ordinary network'
                raise InputError(f'skip={given!r}: the log has {known}')
        return {name: sorted(values[name].items()) for name in names if name in wanted.values()}


def read_log(work_dir: str | Path) -> Log:
    """Reads the log of a training, `<work_dir>/<timestamp>/vis_data/scalars.json`.

    A resumed training has several logs. They are read in their order; where two have the same step, the later
    one counts.

    Raises:
        FileNotFoundError: There is no such folder, or no log in it.
        ValueError: The log has no validation.
    """
    folder = Path(work_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} is no folder; give the work dir of a training')
    paths = sorted(folder.glob('*/vis_data/scalars.json'))
    if not paths:
        raise FileNotFoundError(
            f'{folder} has no log, <timestamp>/vis_data/scalars.json; give the work dir of a training'
        )
    lines = [line for path in paths for line in _lines(path)]
    training = [line for line in lines if 'lr' in line]  # which validation does not log
    values, iteration = {}, 0
    for line in lines:
        if 'lr' in line:
            iteration = line['step']
            continue
        for name, value in line.items():
            if name not in NOT_METRICS and isinstance(value, (int, float)):
                skip, metric = re.fullmatch('(?:([TF]+)/)?(.*)', name).groups('')
                # mmengine counts epochs here, and a training by iterations has none.
                step = line['step'] or iteration
                values.setdefault(metric, {}).setdefault(skip, {})[step] = value
    if not values:
        raise InputError(
            f'the log in {folder} has no validation; the first one comes after train_cfg.val_interval epochs'
        )
    last = max(step for depths in values.values() for curve in depths.values() for step in curve)
    epochs = max((line.get('epoch', 0) for line in training), default=last)
    return Log(values, 'epoch' if last <= epochs else 'iteration')


def _lines(path: Path) -> Iterator[dict]:
    for text in path.read_text().splitlines():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:  # where a training was killed as it wrote
            continue


def table(curves: Curves, unit: str = 'epoch') -> list[dict]:
    """The last and the largest value of each depth, and when each was reached, as text."""
    rows = []
    for skip, points in curves.items():
        last, final = points[-1]
        when, best = max(points, key=lambda point: (point[1], -point[0]))
        rows.append(dict(skip=skip, final=final, last=last, best=best, when=when))
    columns = dict(
        skip=('skip', ''),
        final=('final', '#.4g'),
        last=(f'at {unit}', ''),
        best=('best', '#.4g'),
        when=(f'best at {unit}', ''),
    )
    return cells(rows, columns)


def plot(curves: Curves, metric: str, path: str | Path, unit: str = 'epoch') -> None:
    """Draws the curves, coloured by how many stages are skipped, as a PNG; super-net and base-net are thick.

    From six validations on, a second panel shows the last third, in which depths lie close together.
    """
    steps = sorted({step for points in curves.values() for step, _ in points})
    starts = {unit: steps[0]}
    if len(steps) > 5 and len(curves) > 1:
        starts[f'{unit}, the last third'] = steps[len(steps) * 2 // 3]
    columns = math.ceil(len(curves) / 20)  # of the legend
    with drawing(path, (5 * len(starts) + columns, 4.5), columns=len(starts)) as (figure, panels):
        for axes, (label, start) in zip(panels.flat, starts.items(), strict=True):
            _draw(axes, {skip: [p for p in points if p[0] >= start] for skip, points in curves.items()})
            axes.set_xlabel(label)
        percent = ' (%)' if metric.startswith('accuracy') else ''
        panels[0, 0].set_ylabel(f'{metric} in validation{percent}')
        if list(curves) != ['']:
            style = dict(ncols=columns, frameon=False, handlelength=3.5, fontsize=9, title='sub-network')
            figure.legend(handles=panels[0, 0].get_lines(), loc='outside right upper', **style)


def _draw(axes: Axes, curves: Curves) -> None:
    for skipped, group in groupby(curves, key=lambda skip: skip.count('T')):
        for i, skip in enumerate(group):
            is_end = len(set(skip)) < 2  # super-net, base-net or an ordinary network
            axes.plot(
                *zip(*curves[skip], strict=True),
                marker='o' if len(curves[skip]) == 1 else None,
                color=COLOURS(skipped / len(skip) if skip else 0.0),
                ls=LINES[i % len(LINES)],
                lw=2.5 if is_end else 1.2,
                zorder=3 if is_end else 2,
                label=skip,
            )
    axes.xaxis.get_major_locator().set_params(integer=True)


def write_report(curves: Curves, metric: str, out: str | Path, unit: str = 'epoch', **about) -> None:
    """Writes `curves.json` and `curves.png` into the folder `out`.

    Args:
        **about: What else the JSON file records, such as the work dir.
    """
    write_json(Path(out) / 'curves.json', {**about, 'metric': metric, 'unit': unit, 'curves': curves})
    plot(curves, metric, Path(out) / 'curves.png', unit)
