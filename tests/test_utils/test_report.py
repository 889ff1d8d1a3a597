"""Tables that fit a narrow screen, numbers that can be read, and legends that hide nothing."""

import pytest
from matplotlib.figure import Figure

from benchmarks import tables
from mmadn.evaluation import profile, subnets
from mmadn.evaluation.columns import COLUMNS
from mmadn.evaluation.table import as_text
from mmadn.utils.report import cells, digits, draw_front, print_table

METRICS = {'accuracy/top1': 75.1, 'accuracy/top5': 92.2}
COSTS = dict(latency_p50_ms=123.4, latency_p95_ms=222.2, gflops=4.11, params=125.5)
ROWS = [
    dict(skip='FFFFF', gflops=4.0, latency_p50_ms=40.0, latency_p95_ms=42.0, **METRICS),
    dict(
        skip='TTTTT', gflops=2.6, latency_p50_ms=26.0, latency_p95_ms=27.0, **{**METRICS, 'accuracy/top1': 70}
    ),
]


@pytest.mark.parametrize(
    'row',
    [
        {**COSTS, **METRICS, 'peak_memory_mib': 1207.8, 'energy_j': 12.3},  # a profile with all there can be
        dict(gflops=0.059, params=125.5, latency_ms=12223.4, **METRICS),
        {'gflops': 259.1, 'params': 44.4, 'latency_ms': 1223.4, 'coco/bbox_mAP': 0.4, 'coco/segm_mAP': 0.3},
    ],
)
def test_tables_of_depths_fit_80_columns_with_every_number_whole(row, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    assert set(row) <= {*COLUMNS, *METRICS, 'coco/bbox_mAP', 'coco/segm_mAP'}
    rows = as_text([{'skip': 'FFFFF', **row}, {'skip': 'TTTTT', **row}], 'gflops')
    print_table(rows, title='configs/adn/mobilenetv2_adn_in1k.py')
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in ('FFFFF', 'TTTTT'):
        (line,) = [line for line in lines if name in line]
        for text in rows[0].values():
            assert text in ('FFFFF', '*') or f'{text}' in line.replace('│', ' ').split()
    assert '…' not in ''.join(lines)


def test_few_flops_are_shown_as_mflops():
    columns = {'skip': ('skip', ''), 'gflops': ('GFLOPs', '#.3g')}
    small = [dict(skip='FF', gflops=0.00578), dict(skip='TT', gflops=0.0038), dict(skip='FT', gflops=None)]
    assert [list(row.values()) for row in cells(small, columns)] == [
        ['FF', '5.78'],
        ['TT', '3.80'],
        ['FT', ''],
    ]
    assert list(cells(small, columns)[0]) == ['skip', 'MFLOPs']
    assert cells([dict(gflops=4.11), dict(gflops=0.02)], columns) == [
        {'GFLOPs': '4.11'},
        {'GFLOPs': '0.0200'},
    ]


@pytest.mark.parametrize(
    'value, text', [(259.1, '259'), (2.0, '2.00'), (12223.4, '12223'), (1e-5, '1.00e-05')]
)
def test_large_numbers_have_no_exponent(value, text):
    assert digits(value) == text


def test_names_on_a_front_hide_no_other():
    rows = [dict(skip=f'F{i:03}', gflops=1 + i / 100, top1=70 + i) for i in range(80)]
    axes = Figure().subplots()
    draw_front(axes, rows, 'gflops', 'top1')
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert {'F000', 'F079'} <= {text.get_text() for text in axes.texts} and 9 < len(boxes) < 80


def contest(path):
    settings = dict(arch='resnet50', device='cpu', clock='wall', batch=1, shape=(3, 9, 9), rounds=3)
    medians = {row['skip']: dict(median=row['latency_p50_ms'], q1=20.0, q3=50.0) for row in ROWS}
    gflops = {row['skip']: row['gflops'] for row in ROWS}
    machine = dict(cpu='a processor', threads=1, gpu=None)
    out = dict(settings=settings, machine=machine, benchmark='depths', medians_ms=medians, gflops=gflops)
    tables.picture(out, path)


def profiled(path):
    settings = dict(
        shape=(3, 9, 9), device='cpu', clock='wall', batch=1, dtype='float32', spread=0.1, max_seconds=9
    )
    machine = dict(cpu='a processor', threads=1, torch='2')
    about = dict(settings=settings, machine=machine, ended='spread', rounds=9, widest=0.1, energy='none')
    profile.picture({**about, 'subnets': ROWS}, path)


@pytest.mark.parametrize('draw', [lambda path: subnets.plot(ROWS, path), profiled, contest])
def test_legends_hide_no_point(draw, tmp_path, monkeypatch):
    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(
        Figure, 'savefig', lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k))
    )
    draw(tmp_path / 'a.png')
    for axes in figures[0].axes:
        legend = axes.get_legend().get_window_extent()
        assert legend.y0 >= axes.get_window_extent().y1 and legend.y1 <= figures[0].bbox.y1
        assert legend.x1 <= figures[0].bbox.x1
