"""Validation of sub-networks while they train, out of the log of a run (paper, Fig. 5)."""

import json
import math
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mmadn.depth_names import PRESETS
from mmadn.errors import InputError
from mmadn.utils.report import BLUE, GREEN, ORANGE, SKY, VERMILION, replacing, write_json

NOT_METRICS = ('step', 'time', 'data_time', 'memory')
# From super-net to base-net; with other than four stages the colours between these.
COLOURS = LinearSegmentedColormap.from_list('', [BLUE, SKY, GREEN, ORANGE, VERMILION])
LINES = ('-', '--', '-.', ':', (0, (7, 1, 1, 1, 1, 1)), (0, (1, 4)))


@dataclass
class Log:
    """What the validations of a training gave.

    Args:
        values (dict[str, dict]): By metric, depth ('' for an ordinary network) and step.
        unit (str): What a step is, 'epoch' or 'iteration'.
    """

    values: dict
    unit: str

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics, without depths, in the order of the evaluators."""
        return list(self.values)

    def curves(self, metric: str | None = None, skips=None) -> dict[str, list[tuple[int, float]]]:
        """Steps and values by depth; see `read_curves`."""
        metric = metric or self.metrics[0]
        if metric not in self.values:
            raise InputError(f'metric={metric!r}: the log has {", ".join(self.metrics)}')
        values = self.values[metric]
        names = sorted(values, key=lambda skip: (skip.count('T'), skip))
        wanted = [PRESETS[skip] * len(names[0]) if skip in PRESETS else skip for skip in skips or names]
        for given, skip in zip(skips or (), wanted, strict=bool(skips)):
            if not skip or skip not in names:
                known = ', '.join(filter(None, names)) or 'no depths, as of an ordinary network'
                raise InputError(f'skip={given!r}: the log has {known}')
        return {name: sorted(values[name].items()) for name in names if name in wanted}


def read_log(work_dir) -> Log:
    """Reads the log of a training, `<work_dir>/<timestamp>/vis_data/scalars.json`.

    A resumed training has several. They are read in order, and at a step that two hold the later counts.

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


def _lines(path):
    for text in path.read_text().splitlines():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:  # where a training was killed as it wrote
            continue


def read_curves(work_dir, metric: str | None = None, skips=None) -> dict[str, list[tuple[int, float]]]:
    """What the validations of a training gave at every depth that they tested.

    Args:
        work_dir (str | Path): Of the training, see `read_log`.
        metric (str, optional): Such as 'accuracy/top1', without a depth; by default the first one.
        skips (Sequence[str], optional): Which depths, 'super' and 'base' among them; by default all.

    Returns:
        dict[str, list[tuple]]: By depth, fewest skipped stages first, steps (epochs or iterations) and
        values. The depth of an ordinary network is ''.

    Raises:
        FileNotFoundError: There is no such folder, or no log in it.
        ValueError: The log has no validation, or not this metric or depth.
    """
    return read_log(work_dir).curves(metric, skips)


def table(curves: dict, unit: str = 'epoch') -> list[dict]:
    """The last and the largest value of each depth, and when it was reached, as text."""
    rows = []
    for skip, points in curves.items():
        last, final = points[-1]
        when, best = max(points, key=lambda point: (point[1], -point[0]))
        row = {'skip': skip, 'final': f'{final:#.4g}', f'at {unit}': str(last)}
        rows.append({**row, 'best': f'{best:#.4g}', f'best at {unit}': str(when)})
    return rows


def plot(curves: dict, metric: str, path, unit: str = 'epoch') -> None:
    """Draws the curves, coloured by how many stages are skipped, as a PNG; super-net and base-net thick.

    From six validations on, a second panel shows the last third, in which depths lie close together.
    """
    steps = sorted({step for points in curves.values() for step, _ in points})
    starts = {'': steps[0]}
    if len(steps) > 5 and len(curves) > 1:
        starts[', the last third'] = steps[len(steps) * 2 // 3]
    columns = math.ceil(len(curves) / 20)
    figure = Figure(figsize=(5 * len(starts) + columns, 4.5), layout='constrained')
    panels = figure.subplots(1, len(starts), squeeze=False)[0]
    for axes, (part, start) in zip(panels, starts.items(), strict=True):
        _draw(axes, {skip: [p for p in points if p[0] >= start] for skip, points in curves.items()})
        axes.set(xlabel=unit + part)
    percent = ' (%)' if metric.startswith('accuracy') else ''
    panels[0].set(ylabel=f'{metric} in validation{percent}')
    if list(curves) != ['']:
        handles, labels = panels[0].get_legend_handles_labels()
        style = dict(ncols=columns, frameon=False, handlelength=3.5, fontsize=9, title='sub-network')
        figure.legend(handles, labels, loc='outside right upper', **style)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw(axes, curves):
    for skipped, group in groupby(curves, key=lambda skip: skip.count('T')):
        for i, skip in enumerate(group):
            end = len(set(skip)) < 2
            axes.plot(
                [step for step, _ in curves[skip]],
                [value for _, value in curves[skip]],
                marker='o' if len(curves[skip]) == 1 else None,
                color=COLOURS(skipped / len(skip) if skip else 0.0),
                ls=LINES[i % len(LINES)],
                lw=2.5 if end else 1.2,
                zorder=3 if end else 2,
                label=skip,
            )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)


def write_report(curves: dict, metric: str, out, unit: str = 'epoch', **about) -> None:
    """Writes `curves.json` and `curves.png` into the folder `out`.

    Args:
        curves (dict[str, list[tuple]]): From `read_curves`.
        **about: What else the JSON file records, such as the work dir.
    """
    write_json(Path(out) / 'curves.json', {**about, 'metric': metric, 'unit': unit, 'curves': curves})
    plot(curves, metric, Path(out) / 'curves.png', unit)
