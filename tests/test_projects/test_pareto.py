import json
import re
import runpy
import sys

import pytest
from conftest import ROOT
from matplotlib.figure import Figure

from projects.paper import pareto

TOP1, TOP5 = 'accuracy/top1', 'accuracy/top5'


def row(skip, gflops, top1, **more):
    return {
        'skip': skip,
        'gflops': gflops,
        'params': 5 * gflops,
        'latency_ms': 9 - gflops,
        TOP1: top1,
        **more,
    }


@pytest.fixture
def write(tmp_path):
    """Writes reports, `write(name=rows)`, and returns their paths."""

    def write(**reports):
        for name, rows in reports.items():
            (tmp_path / f'{name}.json').write_text(json.dumps({'config': 'c.py', 'subnets': rows}))
        return [str(tmp_path / f'{name}.json') for name in reports]

    return write


def by_skip(points):
    return {(p['label'], p['skip'], p['gflops']): p for p in points}


def test_files_of_labels(write, tmp_path):
    a1, a2, b = write(a1=[], a2=[], b=[])
    assert pareto.files_of([f'A={tmp_path}/a*.json', f'B b={b}']) == {'A': [a1, a2], 'B b': [b]}
    assert pareto.files_of([f'A={b},{tmp_path}/a?.json']) == {'A': [b, a1, a2]}
    assert pareto.files_of([f'A={a2}', f'A={a1}']) == {'A': [a2, a1]}


def test_seeds_are_one_point_and_other_networks_further_ones(write):
    ends = [[row('FF', 4.0, 80 + d), row('TT', 2.0, 76 - d)] for d in (0, 1)]
    s0, s1, full, base0, base1 = write(
        s0=ends[0],
        s1=ends[1][::-1],
        full=[row('', 4.0, 79)],
        base0=[row('', 2.0, 75)],
        base1=[row('', 2.0, 74)],
    )
    points, metric = pareto.read_points({'ADN': [s0, s1], 'individual': [full, base0, base1]})
    assert metric == TOP1 and len(points) == 4
    found = by_skip(points)
    assert found['ADN', 'FF', 4.0][TOP1] == 80.5 and found['ADN', 'TT', 2.0][TOP1] == 75.5
    assert found['ADN', 'FF', 4.0]['sd'] == pytest.approx(0.5**0.5)
    assert found['individual', '', 2.0][TOP1] == 74.5
    assert [p['seeds'] for p in points] == [2, 2, 1, 2]
    assert found['individual', '', 4.0]['sd'] is None


@pytest.mark.parametrize(
    'cost, front',
    [('gflops', ['FT', 'TT']), ('params', ['FT', 'TT']), ('latency_ms', ['FF', 'FT'])],
)
def test_front_of_a_cost(write, cost, front):
    paths = write(a=[row('FF', 4.0, 80.0), row('FT', 3.0, 81.0), row('TF', 3.0, 79.0), row('TT', 2.0, 75.0)])
    points, _ = pareto.read_points({'A': paths}, cost)
    assert [p['skip'] for p in points if p['front']] == front
    assert all(cost in p for p in points)


def test_chosen_metric_and_mean_cost(write):
    paths = write(
        a=[row('', 1.0, 70.0, **{TOP5: 90.0})], b=[{**row('', 1.0, 70.0, **{TOP5: 92.0}), 'latency_ms': 10.0}]
    )
    (point,), metric = pareto.read_points({'A': paths}, 'latency_ms', TOP5)
    assert metric == TOP5 and point[TOP5] == 91.0 and point['latency_ms'] == 9.0


def points_of(**labels):
    return [
        {'label': label, 'skip': '', 'gflops': x, TOP1: y, 'sd': None, 'seeds': 1, 'front': True}
        for label, points in labels.items()
        for x, y in points
    ]


@pytest.mark.parametrize(
    'a, b, expected',
    [
        # Two lines over [2, 4]: ahead by 2 at 2 and by 1 at 4.
        ([(2, 77), (4, 80)], [(2, 75), (4, 79)], (2, 4, 1.5, 1, 2)),
        # A knot of one inside: ahead by 0 at 1, by 2 at 2, by 0 at 3; the least is at the ends.
        ([(1, 70), (2, 74), (3, 74)], [(1, 70), (3, 74)], (1, 3, 1, 0, 2)),
        # Only a part is shared: [2, 3], ahead by 1 at 2 and by 2 at 3.
        ([(1, 70), (3, 74)], [(2, 71), (5, 74)], (2, 3, 1.5, 1, 2)),
        # One network, inside the other's range and at its end.
        ([(3, 77)], [(2, 75), (4, 79)], (3, 3, 0, 0, 0)),
        ([(2, 77), (4, 80)], [(4, 78)], (4, 4, 2, 2, 2)),
        # What costs more and is worse is not on the front, which is level up to there.
        ([(2, 77), (4, 76)], [(2, 75), (4, 78)], (2, 4, 0.5, -1, 2)),
        ([(1, 70), (2, 71)], [(3, 75)], (None,) * 5),
    ],
    ids=['lines', 'knot', 'part', 'inside', 'end', 'level', 'apart'],
)
def test_difference_of_fronts(a, b, expected):
    (found,) = pareto.compare(points_of(a=a, b=b), 'gflops', TOP1)
    assert (found['label'], found['over']) == ('a', 'b')
    numbers = [found[name] for name in ('low', 'high', 'mean', 'least', 'most')]
    if expected[0] is None:
        assert numbers == list(expected)
        return
    assert numbers == pytest.approx(expected)
    (turned,) = pareto.compare(points_of(b=b, a=a), 'gflops', TOP1)
    assert turned['mean'] == pytest.approx(-expected[2])


def test_tables_show_units_and_spread():
    points = points_of(a=[(0.02, 70), (0.04, 72)], b=[(0.05, 75)])
    points[0] |= {'skip': 'TT', 'sd': 0.125, 'seeds': 3}
    points[1] |= {'front': False}
    networks, differences = pareto.tables(points, 'gflops', TOP1)
    assert list(networks[0]) == ['label', 'skip', 'MFLOPs', 'top-1 (%)', 'seeds', 'Pareto']
    assert [list(r.values()) for r in networks] == [
        ['a', '', '40.0', '72.00', '1', ''],
        ['a', 'TT', '20.0', '70.00 ± 0.12', '3', '*'],
        ['b', '', '50.0', '75.00', '1', '*'],
    ]
    assert list(differences[0].values()) == ['a over b', 'none', '-', '-', '-']
    points[2]['gflops'] = 0.1  # no longer below
    assert pareto.tables(points, 'gflops', TOP1)[0][0]['GFLOPs'] == '0.0400'
    assert pareto.tables(points[:2], 'gflops', TOP1)[1] == []


def test_picture_names_the_ends_and_no_name_hides_another(write, tmp_path, monkeypatch):
    adn = [row('FF', 4.0, 80.0), row('FT', 3.0, 79.0), row('TF', 3.0, 78.0), row('TT', 2.0, 75.0)]
    near = [row(r['skip'], r['gflops'] + 0.01, r[TOP1] - 0.01) for r in adn]
    paths = write(a=adn, b=near, c=[row('', 4.0, 79.5)])
    points, _ = pareto.read_points({label: [path] for label, path in zip('abc', paths, strict=True)})
    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, 'savefig', lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k))
    )
    pareto.plot(points, 'gflops', TOP1, tmp_path / 'a.png', 'a title')
    (figure,) = figures
    (axes,) = figure.axes
    names = [text for text in axes.texts if text.get_text()]
    assert sorted(text.get_text() for text in names) == ['FF', 'FF', 'TT', 'TT']
    boxes = [text.get_window_extent() for text in names]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert axes.get_xlabel() == 'GFLOPs (multiply-adds)' and axes.get_ylabel() == 'top-1 (%)'
    assert axes.get_title() == 'a title'
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['a', 'b', 'c', 'not on the front']
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_series_do_not_look_alike(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda self, path, **k: (figures.append(self), path.touch()))
    points = points_of(**{f's{i}': [(1.0 + i, 70.0)] for i in range(12)})
    pareto.plot(points, 'gflops', TOP1, tmp_path / 'a.png')
    handles = figures[0].legends[0].legend_handles
    assert len({(h.get_color(), h.get_marker()) for h in handles}) == 12


@pytest.fixture
def tool(monkeypatch):
    def main(*arguments):
        monkeypatch.setattr(sys, 'argv', ['pareto.py', *map(str, arguments)])
        runpy.run_path(str(ROOT / 'tools' / 'analysis' / 'pareto.py'), run_name='__main__')

    return main


def test_tool(tool, write, tmp_path, capsys):
    write(
        adn0=[row('FF', 4.0, 80.0), row('TT', 2.0, 76.0)],
        adn1=[row('FF', 4.0, 80.5), row('TT', 2.0, 76.5)],
        full=[row('', 4.0, 79.0)],
        base=[row('', 2.0, 75.0)],
    )
    out = tmp_path / 'new' / 'out'
    series = [f'ADN={tmp_path}/adn*.json', f'individual={tmp_path}/full.json,{tmp_path}/base.json']
    tool(*series, '--out', out, '--title', 'Fig. 4b')
    report = json.loads((out / 'pareto.json').read_text())
    assert report['cost'] == 'gflops' and report['metric'] == TOP1 and len(report['points']) == 4
    assert report['files']['ADN'] == [f'{tmp_path}/adn0.json', f'{tmp_path}/adn1.json']
    (difference,) = report['differences']
    assert difference['mean'] == pytest.approx(1.25) and difference['over'] == 'individual'
    text = (out / 'pareto.md').read_text()
    assert (
        '| ADN | FF | 4.00 | 80.25 ± 0.35 | 2 | * |' in text
        and '| ADN over individual | 2.00 - 4.00 |' in text
    )
    assert (out / 'pareto.png').read_bytes().startswith(b'\x89PNG')
    assert len(list(out.iterdir())) == 3
    printed = capsys.readouterr().out
    assert 'Fig. 4b' in printed and '+1.25' in printed
    assert printed.rstrip().endswith(f'{out}/pareto.{{json,md,png}}')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['adn.json'], r"'adn.json': give LABEL=FILE"),
        (['=adn.json'], r"'=adn.json': give LABEL=FILE"),
        (['ADN='], r"'ADN=': give LABEL=FILE"),
        (['ADN=no*.json'], r"ADN: nothing matches 'no\*.json'; give a subnets.json"),
        (['ADN=adn.json,none.json'], "ADN: nothing matches 'none.json'"),
        (['ADN=adn.json,a*n.json'], 'ADN: adn.json is given twice'),
        (['ADN=text.json'], 'text.json is not JSON'),
        (['ADN=list.json'], 'list.json: its "subnets" are not rows'),
        (['ADN=rows.json'], 'rows.json: its "subnets" are not rows with skip and gflops'),
        (['ADN=empty.json'], 'empty.json: its "subnets" are not rows with skip and gflops'),
        (['ADN=adn.json', '--cost', 'flops'], "has no cost 'flops'; it has gflops, params, latency_ms"),
        (['ADN=adn.json', '--metric', 'top1'], "adn.json has no metric 'top1'; it has accuracy/top1"),
        (['ADN=adn.json', 'B=plain.json'], "plain.json has no metric 'accuracy/top1'; it has none"),
        (['ADN=adn.json,some.json'], 'ADN: the seeds have different depths, FF TT and, in some.json, FF;'),
        (['ADN=adn.json', '--out', 'text.json/out'], 'cannot write into text.json/out'),
    ],
)
def test_tool_mistakes_get_one_line(tool, write, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(
        adn=[row('FF', 4.0, 80.0), row('TT', 2.0, 76.0)],
        some=[row('FF', 4.0, 80.0)],
        plain=[{'skip': '', 'gflops': 1.0}],
        rows=[{'skip': 'FF'}],
        empty=[],
    )
    (tmp_path / 'text.json').write_text('text')
    (tmp_path / 'list.json').write_text('[]')
    arguments = arguments if '--out' in arguments else [*arguments, '--out', 'out']
    with pytest.raises(SystemExit) as end:
        tool(*arguments)
    assert re.match(f'error: .*{message}', end.value.code) and '\n' not in end.value.code
    assert not list(tmp_path.rglob('pareto.*'))
