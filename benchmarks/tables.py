"""What a contest gave: two tables, a JSON file and a picture."""

from matplotlib.figure import Figure

from mmadn.utils.report import BLUE, GREY, ORANGE, SKY, print_table, replacing, write_json

from .protocol import CONTESTS

# Of Okabe and Ito's hues, which colour-blind readers tell apart; kinds get them in turn.
STYLES = (
    dict(facecolor=SKY, edgecolor='#333333'),
    dict(facecolor=ORANGE, edgecolor='#333333'),
    dict(facecolor='#F7DDA3', edgecolor='#333333', hatch='///'),
    dict(facecolor='#C7E6F8', edgecolor='#333333', hatch='///'),
)


def show(out: dict) -> None:
    """Prints the times and the ratios as two tables."""
    times, memory = [], out.get('memory_mib', {})
    for name, t in out['medians_ms'].items():
        spread = f'{t["q1"]:.2f} - {t["q3"]:.2f}'
        times.append({'': name, 'median, ms': f'{t["median"]:.2f}', 'quartiles': spread})
        if memory:
            times[-1]['peak, MiB'] = f'{memory[name]:.1f}'
    print_table(times, _title(out))
    ratios = []
    for name, r in out['ratios'].items():
        unsure = ' (noise)' if r['low'] <= r['target'] < r['high'] else ''
        ratios.append(
            {
                'within a round': name,
                'median': f'{r["median"]:.3f}',
                '95 % interval': f'{r["low"]:.3f} - {r["high"]:.3f}',
                'target': f'at {"least" if r["at_least"] else "most"} {r["target"]:.3f}',
                'met': ('yes' if r['met'] else 'NO') + unsure,
            }
        )
    print_table(ratios)


def save(out: dict, folder) -> None:
    """Writes `<contest>.json` and `<contest>.png`, each whole or not at all."""
    write_json(f'{folder}/{out["benchmark"]}.json', out)
    picture(out, f'{folder}/{out["benchmark"]}.png')


def picture(out: dict, path) -> None:
    """Draws the medians as bars with the ratios beside them, or over GFLOPs; whiskers are quartiles."""
    figure = _over_gflops(out) if 'gflops' in out else _bars(out)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _over_gflops(out):
    gflops, medians = out['gflops'], out['medians_ms']
    figure = Figure(figsize=(8, 5), layout='constrained')
    axes = figure.add_subplot()
    most = max(gflops, key=gflops.get)
    scale, unit = (1, 'GFLOPs') if gflops[most] >= 1 else (1e3, 'MFLOPs')
    slope = medians[most]['median'] / gflops[most] / scale
    axes.axline((0, 0), slope=slope, color=GREY, lw=1, label='in proportion to the super-net')
    for skip, t in medians.items():
        x, whisker = gflops[skip] * scale, [[t['median'] - t['q1']], [t['q3'] - t['median']]]
        axes.errorbar(x, t['median'], whisker, color=BLUE, fmt='o', ms=5, capsize=3)
    ends = {most: (0, 10), min(gflops, key=gflops.get): (0, 10)}
    for skip, offset in ends.items():
        point = gflops[skip] * scale, medians[skip]['q3']
        axes.annotate(skip, point, offset, textcoords='offset points', ha='center')
    low, high = min(gflops.values()) * scale, gflops[most] * scale
    axes.set_xlim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    top = max(t['q3'] for t in medians.values())
    axes.set_ylim(0.9 * min(slope * low, *(t['q1'] for t in medians.values())), 1.08 * top)
    axes.set(xlabel=f'{unit} of an image (multiply-adds)', ylabel='ms a batch: median and quartiles')
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(loc='lower right', frameon=False)
    figure.suptitle(_title(out), x=0.01, ha='left', fontsize=9)
    return figure


def _bars(out):
    medians = out['medians_ms']
    styles = dict(zip(dict.fromkeys(out['kinds'].values()), STYLES, strict=False))
    figure = Figure(figsize=(10, 1.7 + 0.5 * len(medians)), layout='constrained')
    axes = figure.add_subplot()
    handles = {}
    for name, t in medians.items():
        kind = out['kinds'][name]
        handles[kind] = axes.barh(name, t['median'], 0.7, **styles[kind])
        whisker = [[t['median'] - t['q1']], [t['q3'] - t['median']]]
        axes.errorbar(t['median'], name, xerr=whisker, color='#333333', capsize=3)
        ratios = [
            f'{r["median"]:.3f} of {label.split(" / ")[1]}'
            for label, r in out['ratios'].items()
            if label.split(' / ')[0].removeprefix('speed-up of ') == name
        ]
        note = f'{t["median"]:.1f} ms' + ''.join(f',  {ratio}' for ratio in ratios[:1])
        note += ''.join(f',\n{ratio}' for ratio in ratios[1:])
        if 'memory_mib' in out:
            note += f'\npeak memory {out["memory_mib"][name]:.0f} MiB'
        axes.annotate(note, (t['q3'], name), (8, 0), textcoords='offset points', va='center')
    axes.set_ylim(len(medians) - 0.4, -0.6)
    axes.set_xlim(0, 1.65 * max(t['q3'] for t in medians.values()))
    axes.set_xlabel('ms: median and quartiles over the rounds; ratios: median within a round')
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(axis='y', length=0)
    figure.suptitle(_title(out), x=0.01, ha='left', fontsize=11)
    figure.legend(handles.values(), handles, loc='outside lower center', ncols=3, frameon=False)
    return figure


def _title(out):
    s, m = out['settings'], out['machine']
    what, size = CONTESTS[out['benchmark']].what, 'x'.join(map(str, s['shape']))
    where = m['gpu'] if s['device'].startswith('cuda') else f'{m["cpu"]}, threads: {m["threads"]}'
    clock = '' if s['clock'] == 'wall' else ', processor time'
    return f'{s["arch"]} {what}, batch {s["batch"]} of {size}, {where}{clock}, {s["rounds"]} rounds'
