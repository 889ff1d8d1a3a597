"""Profiles of sub-networks, their tables, and the depth for a budget. No test depends on how fast it is."""

import json
import math
import runpy
import sys

import pytest
import torch
import toy
from conftest import ROOT
from mmengine.config import Config

from mmadn.checkpoint.files import load_model
from mmadn.deploy import profile_subnets, select
from mmadn.evaluation.columns import COLUMNS, Column
from mmadn.evaluation.energy import energy_meter
from mmadn.evaluation.prediction import prepare, rehearse
from mmadn.evaluation.profile import follows_flops, profile_table, remarks, write_profile
from mmadn.evaluation.table import check, join, read_table
from mmadn.evaluation.timing import CLOCKS, interleaved
from mmadn.utils.report import pareto_front

CONFIG = 'configs/demo/resnet50_adn_digits.py'
SHAPE = (3, 32, 32)
TOP1 = 'accuracy/top1'


def row(skip, gflops, p50, p95, **metrics):
    return dict(skip=skip, gflops=gflops, params=1.0, latency_p50_ms=p50, latency_p95_ms=p95, **metrics)


ROWS = [
    row('FF', 4.0, 10.0, 11.0, **{TOP1: 80.0, 'mAP': 0.30}),
    row('FT', 3.0, 8.0, 9.5, **{TOP1: 81.0, 'mAP': 0.28}),
    row('TF', 2.9, 7.0, 9.0, **{TOP1: 79.0, 'mAP': 0.29}),
    row('TT', 2.0, 5.0, 6.0, **{TOP1: 75.0, 'mAP': 0.25}),
]
PLAIN = [{k: v for k, v in r.items() if k not in (TOP1, 'mAP')} for r in ROWS]


def silent(line):
    pass


@pytest.fixture(scope='module')
def model():
    return toy.build().eval()


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `clock.tick(ms)` moves, as `clock='fake'`."""

    class Clock:
        now = 0.0

        def tick(self, ms):
            self.now += ms / 1000

    clock = Clock()
    monkeypatch.setitem(CLOCKS, 'fake', lambda: clock.now)
    return clock


@pytest.mark.parametrize(
    'budget, skip',
    [
        (dict(), 'FT'),  # the most accurate
        (dict(max_latency_ms=9.2), 'TF'),
        (dict(max_latency_ms=9.2, percentile=50), 'FT'),
        (dict(max_latency_ms=9.2, metric='mAP'), 'TF'),
        (dict(max_latency_ms=100, metric='mAP'), 'FF'),
        (dict(max_gflops=2.95), 'TF'),
        (dict(min_accuracy=78), 'TF'),  # the cheapest that reaches it
        (dict(min_accuracy=78, max_gflops=3), 'FT'),  # the best under the budget
        (dict(min_accuracy=0.25, metric='mAP'), 'TT'),
        (dict(max_latency_ms=9.5, max_gflops=2), 'TT'),
    ],
)
def test_select(budget, skip):
    assert select(ROWS, **budget) == skip
    assert select(ROWS[::-1], **budget) == skip


@pytest.mark.parametrize(
    'budget, skip', [(dict(max_latency_ms=9.2), 'TF'), (dict(max_gflops=3), 'FT'), (dict(), 'FF')]
)
def test_select_without_accuracies_takes_most_gflops(budget, skip):
    assert select(PLAIN, **budget) == skip


@pytest.mark.parametrize(
    'table, budget, message',
    [
        (ROWS, dict(max_latency_ms=5), 'no sub-network fits max_latency_ms=5: TT comes closest, .*p95_ms 6'),
        (ROWS, dict(min_accuracy=90), 'no sub-network fits min_accuracy=90: FT comes closest, .*top1 81'),
        (ROWS, dict(min_accuracy=80, max_gflops=2), 'min_accuracy=80: TT comes closest, .*gflops 2, .*75'),
        (ROWS, dict(max_gflops=0), 'max_gflops=0: give a number above 0'),
        (ROWS, dict(max_gflops=math.nan), 'max_gflops=nan: give a number above 0'),
        (ROWS, dict(metric='top5'), "metric='top5': the table has accuracy/top1, mAP"),
        (ROWS, dict(percentile=99), 'percentile=99: a table has 50 and 95'),
        (PLAIN, dict(min_accuracy=70), 'min_accuracy: the table has no accuracies; give'),
        ([{'skip': 'F', 'gflops': 1.0}], dict(max_latency_ms=5), 'no latency_p95_ms in every row'),
        ([{'skip': 'F'}], {}, 'no gflops in every row'),
        ([], {}, 'not a list of rows'),
        ([{'gflops': 1.0}], {}, 'skip=None: give T or F for each stage'),
        ([{'skip': 'FF'}, {'skip': 'TTT'}], {}, "skip='TTT': give T or F for each stage, as many as"),
        ([{'skip': 'FF'}, {'skip': 'FF'}], {}, "more than one row of skip='FF'"),
    ],
)
def test_select_says_what_is_wrong(table, budget, message):
    with pytest.raises(ValueError, match=message):
        select(table, **budget)


def test_select_reads_files(tmp_path):
    path = tmp_path / 'profile.json'
    path.write_text(json.dumps({'config': 'c.py', 'subnets': ROWS}))
    assert select(path, max_latency_ms=9.2) == select(str(path), max_latency_ms=9.2) == 'TF'
    path.write_text(json.dumps(ROWS))  # a list alone, as from a session
    assert select(path, max_latency_ms=9.2) == 'TF'
    for text, message in (
        ('no', 'is not JSON'),
        ('{}', 'has no "subnets"'),
        ('[]', 'not a list of rows'),
        ('{"subnets": 1}', 'not a list'),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            select(path)
    with pytest.raises(OSError, match='none.json'):
        select(tmp_path / 'none.json')


def test_pareto_front_by_latency():
    assert [r['skip'] for r in pareto_front(ROWS, 'latency_p50_ms', TOP1)] == ['TT', 'TF', 'FT']
    assert [r['skip'] for r in pareto_front(ROWS, 'latency_p50_ms', 'mAP')] == ['TT', 'TF', 'FF']


def test_rounds_are_interleaved_and_end_by_the_spread(clock):
    ran, now = [], {'F': 0, 'T': 0}

    def run(name, ms):
        def step():
            ran.append(name)
            now[name] += 1
            clock.tick(ms * (1.2 if now[name] % 10 == 0 else 1))

        return lambda: clock.tick(99), step  # what prepares a depth is not timed

    times, ended = interleaved({'F': run('F', 4), 'T': run('T', 2)}, 'cpu', clock='fake', progress=silent)
    assert ended == dict(ended='spread', rounds=50, widest=pytest.approx(0, abs=1e-9))
    assert sorted(times['F'])[25] == pytest.approx(4) and max(times['T']) == pytest.approx(2.4)
    rounds = [ran[i : i + 2] for i in range(0, len(ran), 2)]
    assert all(sorted(r) == ['F', 'T'] for r in rounds) and len(rounds) == 50 + 2
    assert ['F', 'T'] in rounds and ['T', 'F'] in rounds


def test_rounds_go_on_until_the_medians_are_known(clock):
    ms = iter(range(1, 10**6))

    def run():  # a wide spread, until from round 100 on nothing changes any more
        i = next(ms)
        clock.tick(5 + i % 7 if i < 100 else 8)

    _, ended = interleaved(
        {'F': (lambda: None, run)}, 'cpu', spread=0.01, min_rounds=20, clock='fake', progress=silent
    )
    assert ended['ended'] == 'spread' and ended['rounds'] > 100 and ended['widest'] <= 0.01


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_profile(model, dtype, tmp_path):
    model.backbone.set_skip('FTFT')
    lines, skips = [], ['base', 'TTFF', 'super', 'TTFF']
    report = profile_subnets(model, SHAPE, 2, dtype, skips, spread=1e9, min_rounds=6, progress=lines.append)
    assert model.backbone.skip == 'FTFT'
    assert report['ended'] == 'spread' and report['rounds'] == 6
    rows = {r['skip']: r for r in report['subnets']}
    assert list(rows) == ['TTTT', 'TTFF', 'FFFF'] and 'counting' in lines[0]
    for name in ('gflops', 'params', 'latency_p50_ms', 'latency_p95_ms', 'peak_memory_mib'):
        assert all(r[name] > 0 for r in rows.values())
    assert rows['TTTT']['params'] < rows['TTFF']['params'] < rows['FFFF']['params']
    assert all(r['latency_p50_ms'] <= r['latency_p95_ms'] for r in rows.values())
    weights = sum(x.nbytes for x in (*model.parameters(), *model.buffers())) / 2**20
    assert all(weights < r['peak_memory_mib'] < 10 * weights for r in rows.values())
    assert 'energy_j' in rows['TTTT']
    written = write_profile(report, tmp_path / 'new', config='c.py', checkpoint=None)
    data = json.loads((tmp_path / 'new' / 'profile.json').read_text())
    assert data['subnets'] == report['subnets'] and data['settings']['dtype'] == dtype
    assert data['config'] == 'c.py' and data['machine']['torch'] == torch.__version__
    text = (tmp_path / 'new' / 'profile.md').read_text()
    assert text.startswith('| skip | p50 ms |') and all(line in text for line in remarks(written))
    assert f'Batch 2 of 3x32x32, {dtype}, on cpu' in text and '6 rounds, until all were within' in text
    assert (tmp_path / 'new' / 'profile.png').read_bytes().startswith(b'\x89PNG')
    assert len(list((tmp_path / 'new').iterdir())) == 3


def test_a_column_of_a_profile_takes_one_line(model, tmp_path, monkeypatch):
    column = Column('images/s', '.1f', lambda depth: 1000 / min(depth.times_ms))
    monkeypatch.setitem(COLUMNS, 'images_per_second', column)
    report = profile_subnets(model, SHAPE, skips=['base'], max_seconds=1e-9, memory=False, progress=silent)
    write_profile(report, tmp_path)
    (measured,) = read_table(tmp_path / 'profile.json')
    assert profile_table([measured])[0]['images/s'] == f'{measured["images_per_second"]:.1f}'
    assert '| images/s |' in (tmp_path / 'profile.md').read_text()


def test_profile_says_when_time_ended_it(model, tmp_path):
    report = profile_subnets(model, SHAPE, skips=['base'], max_seconds=1e-9, progress=silent)
    assert report['ended'] == 'time' and report['rounds'] == 1 and 'follows' not in report
    written = write_profile(report, tmp_path)
    assert json.loads((tmp_path / 'profile.json').read_text())['widest'] is None  # JSON has no infinity
    assert any('1 rounds, until 1e-09 s were over' in line and 'too few' in line for line in remarks(written))


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(shape=(1, 32, 32)), 'give 3 channels'),
        (dict(batch=0), 'batch=0: give a number above 0'),
        (dict(spread=0), 'spread=0: give a number above 0'),
        (dict(dtype='int8'), "dtype='int8': give one of float32, bfloat16, float16"),
        (dict(clock='moon'), "clock='moon': give one of"),
        (dict(skips=['TTTTT']), "skip='TTTTT': give 4 letters"),
    ],
)
def test_profile_refuses(model, kwargs, message):
    before = model.backbone.skip
    with pytest.raises(ValueError, match=message):
        profile_subnets(model, **{'shape': SHAPE, 'progress': silent, **kwargs})
    assert model.backbone.skip == before


@pytest.mark.parametrize('name', ['mobilenetv2', 'swin', 'vit', 'convnext'])
def test_profile_of_every_family(name):
    model = load_model(Config.fromfile(ROOT / f'configs/demo/{name}_adn_digits.py'))
    report = profile_subnets(model, SHAPE, skips=['super', 'base'], max_seconds=1e-9, progress=silent)
    full, base = report['subnets']
    assert full['skip'] == 'F' * model.backbone.num_skippable_stages
    assert base['gflops'] < full['gflops'] and base['params'] < full['params']
    check(report['subnets'], model)


def test_profile_of_a_detector():
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(
                type='mmdet.RetinaNet',
                data_preprocessor=dict(type='mmdet.DetDataPreprocessor', pad_size_divisor=32),
                backbone={**toy.BACKBONE, 'out_indices': (0, 1, 2, 3)},
                neck=dict(
                    type='mmdet.FPN',
                    in_channels=[16, 32, 64, 128],
                    out_channels=16,
                    num_outs=5,
                    start_level=1,
                ),
                bbox_head=dict(
                    type='mmdet.RetinaHead', num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1
                ),
                test_cfg=dict(
                    nms_pre=50, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5
                ),
            ),
        )
    )
    model = load_model(cfg)
    found = []
    model.register_forward_hook(lambda module, args, outputs: found.append(outputs))
    report = profile_subnets(
        model, (3, 64, 96), skips=['super', 'base'], max_seconds=1e-9, memory=False, progress=silent
    )
    full, base = report['subnets']
    assert base['gflops'] < full['gflops'] and base['latency_p50_ms'] > 0
    (sample,) = found[-1]
    assert len(sample.pred_instances) == 5  # boxes: the whole of predicting was timed
    assert sample.pred_instances.bboxes.max() <= 96


def test_an_operator_without_the_dtype_gets_one_line(model, monkeypatch):
    def forward(*args, **kwargs):
        raise RuntimeError('expected scalar type Float but found BFloat16')

    monkeypatch.setattr(model.head, 'forward', forward)
    data = prepare(model, torch.zeros(1, *SHAPE, dtype=torch.uint8))
    with pytest.raises(ValueError, match='ImageClassifier does not run in bfloat16 here: expected scalar'):
        rehearse(model, data, 'bfloat16')
    with pytest.raises(RuntimeError, match='expected scalar'):
        rehearse(model, data, 'float32')


def test_rapl_energy(tmp_path):
    for name, uj in (('intel-rapl:0', 9_000_000), ('intel-rapl:1', 0), ('intel-rapl:0:0', 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'energy_uj').write_text(f'{uj}\n')
        (tmp_path / name / 'max_energy_range_uj').write_text('10000000\n')
    meter = energy_meter('cpu', tmp_path)
    assert meter.name == 'RAPL' and meter.read() == [9.0, 0.0]  # processors, not their parts

    def run():  # 0.5 J on the first processor, whose counter wraps at 10 J, and 0.25 J on the second
        for name, uj in (('intel-rapl:0', 500_000), ('intel-rapl:1', 250_000)):
            path = tmp_path / name / 'energy_uj'
            path.write_text(str((int(path.read_text()) + uj) % 10_000_000))

    assert meter.per_run(run, seconds=0.1) == pytest.approx(0.75)
    assert meter.per_run(run, seconds=10) == pytest.approx(0.75)
    assert energy_meter('cpu', tmp_path / 'none') is None
    (tmp_path / 'intel-rapl:1' / 'energy_uj').unlink()
    assert energy_meter('cpu', tmp_path) is None


def test_follows_flops():
    found = follows_flops(ROWS)
    assert (found['latency'], found['gflops'], found['excess']) == (0.5, 0.5, 1.0)
    assert (found['inversion'], found['pair']) == (0, None)
    slow = [*ROWS[:2], row('TF', 2.9, 8.8, 9.0), ROWS[3]]
    assert follows_flops(slow)['inversion'] == pytest.approx(0.1)
    assert follows_flops(slow)['pair'] == ['TF', 'FT']


def test_accuracies_are_joined():
    tested = {
        'config': 'a/c.py',
        'subnets': [{'skip': r['skip'], 'params': 1.0, TOP1: r[TOP1]} for r in ROWS],
    }
    joined = join(PLAIN[:3], tested, 'b/c.py', 'epoch.pth')
    assert [(r['skip'], r['gflops'], r[TOP1]) for r in joined] == [
        (r['skip'], r['gflops'], r[TOP1]) for r in ROWS[:3]
    ]
    shown = profile_table([{**r, 'peak_memory_mib': 1.0, 'energy_j': None} for r in joined])
    assert [r['Pareto'] for r in shown] == ['', '*', '*'] and 'J' not in shown[0]


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(config='d.py'), 'the accuracies are of the config d.py, and this is c.py'),
        (dict(checkpoint='a/2.pth'), 'the accuracies are of the checkpoint a/2.pth'),
        (dict(subnets=[{'skip': 'FFF', TOP1: 1.0}]), 'the accuracies are of FFF, without FF'),
        (dict(subnets=[{'skip': 'FF', 'params': 2.0, TOP1: 1.0}]), 'are of another network: FF has 2.0'),
        (dict(subnets=[{'skip': 'FF', 'params': 1.0}]), 'has no metrics'),
    ],
)
def test_accuracies_of_another_model_are_refused(change, message):
    report = {'config': 'c.py', 'checkpoint': '1.pth', 'subnets': [{'skip': 'FF', 'params': 1.0, TOP1: 1.0}]}
    assert join(PLAIN[:1], report, 'c.py', '1.pth')
    with pytest.raises(ValueError, match=message):
        join(PLAIN[:1], {**report, **change}, 'c.py', '1.pth')


def test_table_of_another_network_is_refused(model):
    params = sum(p.numel() for p in model.parameters())
    with model.backbone.skipping('FFFF'):
        used = (params - sum(p.numel() for p in model.backbone.idle_parameters())) / 1e6
    check([{'skip': 'FFFF', 'params': used}, {'skip': 'TTTT'}], model)
    with pytest.raises(ValueError, match='the table is of another network: FFFF has 1.000000 M'):
        check([{'skip': 'FFFF', 'params': 1.0}], model)
    with pytest.raises(ValueError, match="the table is of another network: skip='FFFFF'"):
        check([{'skip': 'FFFFF'}], model)


@pytest.fixture
def tool(monkeypatch):
    def main(*arguments):
        monkeypatch.setattr(sys, 'argv', ['profile_subnets.py', *map(str, arguments)])
        monkeypatch.chdir(ROOT)
        runpy.run_path(str(ROOT / 'tools' / 'profile_subnets.py'), run_name='__main__')

    return main


def test_tool(tool, tmp_path, capfd):
    small = ['--shape', *SHAPE, '--max-seconds', '0.01', '--threads', 1]
    tool(CONFIG, *small, '--skips', 'super', 'base', '--out', tmp_path / 'a')
    rows = read_table(tmp_path / 'a' / 'profile.json')
    tested = [
        {'skip': r['skip'], 'gflops': 1.0, 'params': r['params'], TOP1: 50.0 + i} for i, r in enumerate(rows)
    ]
    accuracies = tmp_path / 'subnets.json'
    accuracies.write_text(json.dumps({'config': CONFIG, 'checkpoint': 'a.pth', 'subnets': tested}))
    tool(CONFIG, *small, '--skips', 'base', '--accuracies', accuracies, '--out', tmp_path / 'b')
    (joined,) = read_table(tmp_path / 'b' / 'profile.json')
    assert joined['skip'] == 'TTTT' and joined[TOP1] == 51.0 and joined['gflops'] != 1.0
    out = capfd.readouterr().out
    assert 'Pareto' in out and 'Energy: ' in out and f'{tmp_path}/b/profile.{{json,md,png}}' in out


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['configs/none.py'], 'configs/none.py'),
        (['configs/demo/resnet50_digits.py'], 'which has no adaptive depth'),
        ([CONFIG, 'none.pth'], 'none.pth'),
        ([CONFIG, 'other.pth'], 'other.pth is not a checkpoint of the model in this config'),
        ([CONFIG, '--skips', 'TTFFF'], "skip='TTFFF': give 4 letters"),
        ([CONFIG, '--device', 'cuda:99'], 'torch sees'),
        ([CONFIG, '--accuracies', 'none.json'], 'none.json'),
        ([CONFIG, '--accuracies', 'other.json'], 'the table is of another network'),
        ([CONFIG, '--out', 'file/folder'], 'cannot write into .*file/folder'),
    ],
)
def test_tool_mistakes_get_one_line(tool, arguments, message, tmp_path):
    (tmp_path / 'file').write_text('a file')
    torch.save({'state_dict': {'backbone.conv1.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    other = {'subnets': [{'skip': 'FFFFF', 'gflops': 1.0, 'params': 1.0, TOP1: 1.0}]}
    (tmp_path / 'other.json').write_text(json.dumps(other))
    names = ('other.pth', 'none.pth', 'other.json', 'none.json', 'file/folder')
    arguments = [tmp_path / a if a in names else a for a in arguments]
    if '--out' not in arguments:
        arguments += ['--out', tmp_path / 'out']
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
        tool(*arguments, '--shape', *SHAPE, '--max-seconds', '0.01')
    assert not list(tmp_path.rglob('profile.*'))
