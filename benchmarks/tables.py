"""What a contest gave: two tables, a JSON file and a picture."""

from pathlib import Path

from matplotlib.axes import Axes

from mmadn.utils.report import (
    BLUE,
    GREY,
    ORANGE,
    SKY,
    cells,
    digits,
    drawing,
    flops_unit,
    legend_above,
    print_table,
    write_json,
)

from .protocol import CONTESTS

INK = '#333333'
# Kinds of contestants get these in turn; hatches tell them apart where colours do not.
STYLES = (
    dict(facecolor=SKY, edgecolor=INK),
    dict(facecolor=ORANGE, edgecolor=INK),
    dict(facecolor='#F7DDA3', edgecolor=INK, hatch='///'),
    dict(facecolor='#C7E6F8', edgecolor=INK, hatch='///'),
)


def show(out: dict) -> None:
    """Prints the times and the ratios as two tables."""
    memory = out.get('memory_mib', {})
    times = [
        {'name': name, **t, 'quartiles': f'{t["q1"]:.2f} - {t["q3"]:.2f}', 'memory': memory.get(name)}
        for name, t in out['medians_ms'].items()
    ]
    columns = {
        'name': ('', ''),
        'median': ('median, ms', '.2f'),
        'quartiles': ('quartiles', ''),
        'memory': ('peak, MiB', '.1f'),
    }
    print_table(cells(times, columns), title(out))
    print_table(ratio_table(out))


def ratio_table(out: dict) -> list[dict]:
    """The ratios with their intervals and targets, as rows of text."""
    ratios = [
        {
            'name': name,
            'median': ratio['median'],
            'interval': f'{ratio["low"]:.3f} - {ratio["high"]:.3f}',
            'target': f'at {"least" if ratio["at_least"] else "most"} {ratio["target"]:.3f}',
            'met': ('yes' if ratio['met'] else 'NO')
            + (' (noise)' if ratio['low'] <= ratio['target'] < ratio['high'] else ''),
        }
        for name, ratio in out['ratios'].items()
    ]
    columns = {
        'name': ('within a round', ''),
        'median': ('median', '.3f'),
        'interval': ('95 % interval', ''),
        'target': ('target', ''),
        'met': ('met', ''),
    }
    return cells(ratios, columns)


def save(out: dict, folder: str | Path) -> None:
    """Writes `<contest>.json` and `<contest>.png`, each whole or not at all."""
    write_json(f'{folder}/{out["benchmark"]}.json', out)
    picture(out, f'{folder}/{out["benchmark"]}.png')


def picture(out: dict, path: str | Path) -> None:
    """Draws the medians as bars with the ratios beside them, or over GFLOPs; whiskers are quartiles."""
    over_gflops = 'gflops' in out
    size = (8, 5) if over_gflops else (10, 1.7 + 0.5 * len(out['medians_ms']))
    with drawing(path, size) as (figure, panels):
        axes = panels[0, 0]
        axes.grid(visible=False)
        axes.spines[['top', 'right']].set_visible(False)
        figure.suptitle(title(out), x=0.01, ha='left', fontsize=9 if over_gflops else 11)
        if over_gflops:
            _draw_over_gflops(axes, out)
        else:
            kinds = _draw_bars(axes, out)
            figure.legend(kinds.values(), kinds, loc='outside lower center', ncols=3, frameon=False)


def _draw_over_gflops(axes: Axes, out: dict) -> None:
    scale, unit = flops_unit(out['gflops'].values())
    flops, medians = {skip: x * scale for skip, x in out['gflops'].items()}, out['medians_ms']
    deepest, shallowest = (choose(flops, key=flops.get) for choose in (max, min))
    slope = medians[deepest]['median'] / flops[deepest]
    axes.axline((0, 0), slope=slope, color=GREY, lw=1, label='in proportion to the super-net')
    for skip, t in medians.items():
        axes.errorbar(flops[skip], t['median'], _whisker(t), color=BLUE, fmt='o', ms=5, capsize=3)
    for skip in (deepest, shallowest):
        place = flops[skip], medians[skip]['q3']
        axes.annotate(skip, place, (0, 10), textcoords='offset points', ha='center')
    low, high = flops[shallowest], flops[deepest]
    axes.set_xlim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    bottom = min(slope * low, *(t['q1'] for t in medians.values()))
    axes.set_ylim(0.9 * bottom, 1.08 * max(t['q3'] for t in medians.values()))
    axes.set(xlabel=f'{unit} of an image (multiply-adds)', ylabel='ms a batch: median and quartiles')
    legend_above(axes)


def _draw_bars(axes: Axes, out: dict) -> dict:
    """Returns what the legend shows for each kind of contestant."""
    medians, kinds = out['medians_ms'], {}
    styles = dict(zip(dict.fromkeys(out['kinds'].values()), STYLES, strict=False))
    for name, t in medians.items():
        kind = out['kinds'][name]
        kinds[kind] = axes.barh(name, t['median'], 0.7, **styles[kind])
        axes.errorbar(t['median'], name, xerr=_whisker(t), color=INK, capsize=3)
        axes.annotate(_note(out, name), (t['q3'], name), (8, 0), textcoords='offset points', va='center')
    axes.set_ylim(len(medians) - 0.4, -0.6)
    axes.set_xlim(0, 1.65 * max(t['q3'] for t in medians.values()))
    axes.set_xlabel('ms: median and quartiles over the rounds; ratios: median within a round')
    axes.tick_params(axis='y', length=0)
    return kinds


def _whisker(t: dict) -> list[list[float]]:
    return [[t['median'] - t['q1']], [t['q3'] - t['median']]]


def _note(out: dict, name: str) -> str:
    """Beside a bar: the median, the ratios that judge this contestant, and its memory."""
    ratios = [
        f'{ratio["median"]:.3f} of {label.split(" / ")[1]}'
        for label, ratio in out['ratios'].items()
        if label.split(' / ')[0].removeprefix('speed-up of ') == name
    ]
    first = ',  '.join([f'{digits(out["medians_ms"][name]["median"])} ms', *ratios[:1]])
    note = ',\n'.join([first, *ratios[1:]])
    return note + (f'\npeak memory {out["memory_mib"][name]:.0f} MiB' if 'memory_mib' in out else '')


def title(out: dict) -> str:
    """What was measured where, in a line."""
    settings, computer = out['settings'], out['machine']
    on_gpu = settings['device'].startswith('cuda')
    where = computer['gpu'] if on_gpu else f'{computer["cpu"]}, threads: {computer["threads"]}'
    clock = '' if settings['clock'] == 'wall' else ', processor time'
    what, size = CONTESTS[out['benchmark']].what, 'x'.join(map(str, settings['shape']))
    dtype = settings.get('dtype', 'float32')  # older results do not have these
    how = '' if dtype == 'float32' else f', {dtype} autocast'
    how += ', channels last' if settings.get('channels_last') else ''
    how += f', {settings["provider"]}' if settings.get('provider') else ''
    return (
        f'{settings["arch"]} {what}, batch {settings["batch"]} of {size}{how}, {where}{clock}, '
        f'{settings["rounds"]} rounds'
    )
