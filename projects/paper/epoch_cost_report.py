"""Tables and a picture of what `epoch_cost` gives."""

from pathlib import Path

from matplotlib.axes import Axes

from mmadn.utils.report import BLUE, ORANGE, VERMILION, cells, drawing, write_json

from .epoch_cost import NAMES, TIME
from .results import write_markdown

COLOURS = {'adaptive': BLUE, 'full': VERMILION, 'base': ORANGE}


def _unit(seconds: float) -> tuple[str, int]:
    """The unit that suits a time, and how many seconds it has."""
    return next(u for u in (('h', 3600), ('min', 60), ('s', 1)) if seconds >= u[1] or u[1] == 1)


def tables(report: dict) -> tuple[list[dict], list[dict]]:
    """The networks and the ratios of a report of `epoch_cost`, as text."""
    unit, seconds = _unit(max(n['epoch_s'] for n in report['networks'].values()))
    networks = [
        {**network, 'role': role, 'epoch': network['epoch_s'] / seconds, **_median(network['step_ms'], 1)}
        for role, network in report['networks'].items()
    ]
    ratios = [
        {'ratio': name, **_median(ratio, 3), **({} if name.startswith('time') else {'interval': '-'})}
        for name, ratio in report['ratios'].items()
    ]
    interval = ('95 % interval', '')
    return (
        cells(
            networks,
            {
                'role': ('network', ''),
                'median': ('step (ms)', '.1f'),
                'interval': interval,
                'epoch': (f'extrapolated epoch ({unit})', '.2f'),
                'memory_mib': ('peak (MiB)', '.1f'),
            },
        ),
        cells(ratios, {'ratio': ('ratio', ''), 'median': ('median', '.3f'), 'interval': interval}),
    )


def _median(numbers: dict, digits: int) -> dict:
    interval = f'{numbers["low"]:.{digits}f} - {numbers["high"]:.{digits}f}'
    return {'median': numbers['median'], 'interval': interval}


def remarks(report: dict) -> list[str]:
    """What to know beside the tables: the batch, the machine, and what an epoch is here."""
    settings, config_batch = report['settings'], report['config_batch']
    configs = '' if settings['batch'] == config_batch else f'; the configs have {config_batch} in each'
    return [
        f'Batch {settings["batch"]} of {_shape(report)} in all, as this is one process{configs}. '
        f'{_where(report)}, torch {report["machine"]["torch"]}; {settings["rounds"]} rounds, each with '
        'a step of all three.',
        f'The epoch is extrapolated: {report["iterations"]} median steps for {report["images"]} images. '
        'Loading of data, other hooks and validation are not in it.',
    ]


def _shape(report: dict) -> str:
    return 'x'.join(map(str, report['settings']['shape']))


def _where(report: dict) -> str:
    settings, computer = report['settings'], report['machine']
    processor = f'{computer["cpu"]}, threads: {computer["threads"]}'
    where = computer['gpu'] if settings['device'].startswith('cuda') else processor
    return f'{where}, processor time' if settings['clock'] == 'cpu' else where


def plot(report: dict, path: str | Path) -> None:
    """Draws the epoch of one training beside those of two, and the peak memory of each, as a PNG."""
    settings = report['settings']
    with drawing(path, (9, 4.6), columns=2) as (figure, panels):
        _draw_time(panels[0, 0], report)
        _draw_memory(panels[0, 1], report)
        for axes in panels.flat:
            axes.margins(y=0.1)
            axes.grid(visible=False)
            axes.spines[['top', 'right']].set_visible(False)
            axes.tick_params(axis='x', length=0)
        title = (
            f'{settings["arch"]}, batch {settings["batch"]} of {_shape(report)}, {_where(report)}, '
            f'{settings["rounds"]} rounds'
        )
        figure.suptitle(title, x=0.01, ha='left', fontsize=10)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside lower center', ncols=3, frameon=False)


def _draw_time(axes: Axes, report: dict) -> None:
    epochs = {role: network['epoch_s'] for role, network in report['networks'].items()}
    unit, seconds = _unit(max(epochs.values()))
    below = dict(adaptive=0, base=0, full=epochs['base'])
    for role in ('adaptive', 'base', 'full'):
        place, height = int(role != 'adaptive'), epochs[role] / seconds
        bar = axes.bar(place, height, 0.6, below[role] / seconds, color=COLOURS[role], label=NAMES[role])
        ink = 'black' if role == 'base' else 'white'  # what can be read on the bar
        axes.bar_label(bar, [f'{height:.3g}'], label_type='center', color=ink)
    axes.set_xticks([0, 1], ['one training,\nall depths', 'two trainings'])
    axes.set_ylabel(f'an epoch, extrapolated ({unit})')
    ratio = _median(report['ratios'][f'time, {TIME.name}'], 3)
    axes.set_title(f'one takes {ratio["median"]:.3f} of two ({ratio["interval"]})', fontsize=10)


def _draw_memory(axes: Axes, report: dict) -> None:
    for place, role in enumerate(NAMES):
        mib = report['networks'][role]['memory_mib']
        axes.bar_label(axes.bar(place, mib, 0.6, color=COLOURS[role]), [f'{mib:.3g}'], padding=2)
    axes.set_xticks(range(3), ['adaptive', 'full', '-base'])
    axes.set_ylabel('peak memory of a step (MiB)')
    ratio = report['ratios']['memory, adaptive / full']
    axes.set_title(f'adaptive takes {ratio["median"]:.3f} of full', fontsize=10)


def write_report(report: dict, out: str | Path, **about) -> None:
    """Writes `epoch_cost.json`, `epoch_cost.md` and `epoch_cost.png` into the folder `out`.

    Args:
        report: From `epoch_cost`.
        **about: What else the JSON file records, such as the configs.
    """
    out = Path(out)
    write_json(out / 'epoch_cost.json', {**about, **report})
    write_markdown(out / 'epoch_cost.md', *tables(report), '\n'.join(remarks(report)))
    plot(report, out / 'epoch_cost.png')
