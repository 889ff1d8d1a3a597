"""Curves out of the logs of trainings, real ones and written ones."""

import json
import runpy
import sys

import pytest
import toy
from conftest import ROOT
from matplotlib.figure import Figure

from projects.paper.curves import plot, read_log, table

TOP1 = 'accuracy/top1'
TRAINING = dict(lr=0.1, loss=1.0, data_time=0.1, time=0.2, memory=9, **{'accuracy_top-1': 50.0})


def write_log(folder, *lines):
    """A log as mmengine writes one; of a training up to epoch 9."""
    path = folder / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{**TRAINING, 'epoch': 9, 'iter': 90, 'step': 90}, *lines]
    path.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    return path


def validation(step, **values):
    """`FF=1.5` is 1.5 for that depth."""
    metrics = {f'{skip}/{TOP1}': value for skip, value in values.items()}
    return {**metrics, 'data_time': 0.1, 'time': 0.2, 'memory': 9, 'step': step}


def read_curves(work_dir, *chosen, **more):
    return read_log(work_dir).curves(*chosen, **more)


def history(runner, name):
    return [float(value) for value in runner.message_hub.get_scalar(f'val/{name}').data[0]]


def test_log_of_a_training(tmp_path):
    runner = toy.runner(tmp_path, epochs=3, val_cfg=dict(type='mmadn.SubnetValLoop', skips='all'))
    runner.train()
    curves = read_curves(tmp_path)
    assert list(curves)[::15] == ['FFFF', 'TTTT'] and list(curves)[1] == 'FFFT' and len(curves) == 16
    for skip, points in curves.items():
        assert [step for step, _ in points] == [1, 2, 3]
        assert [value for _, value in points] == pytest.approx(history(runner, f'{skip}/{TOP1}'))
    log = read_log(tmp_path)
    assert (log.metrics, log.unit) == ([TOP1], 'epoch')


def test_log_of_a_resumed_training(tmp_path):
    toy.runner(tmp_path, epochs=2).train()
    first = read_curves(tmp_path)
    toy.runner(tmp_path, epochs=4, resume=True, experiment_name=f'{tmp_path.name}-resumed').train()
    curves = read_curves(tmp_path)
    assert [step for step, _ in curves['TTTT']] == [1, 2, 3, 4]
    assert {skip: points[:2] for skip, points in curves.items()} == first


@pytest.mark.parametrize('by_epoch', [True, False])  # by default mmengine logs all at epoch 0
def test_log_of_an_ordinary_network_by_iteration(tmp_path, by_epoch):
    runner = toy.runner(
        tmp_path,
        model=toy.model_cfg(backbone=dict(type='mmpretrain.ResNet')),
        val_cfg=dict(),
        custom_hooks=[],
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=6, val_interval=2),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=by_epoch)),
        log_processor=dict(by_epoch=False),
    )
    runner.train()
    log = read_log(tmp_path)
    assert log.unit == 'iteration'
    (points,) = log.curves().values()
    assert [step for step, _ in points] == [2, 4, 6]
    assert list(log.curves()) == [''] and points[-1][1] == pytest.approx(history(runner, TOP1)[-1])


def test_later_logs_win(tmp_path):
    write_log(tmp_path / '20250102_000000', validation(3, FF=30, TT=3), validation(2, FF=21, TT=1))
    write_log(tmp_path / '20250101_235959', validation(1, FF=10, TT=0), validation(2, FF=20, TT=2))
    (tmp_path / '20250103_000000').mkdir()  # of a test
    (tmp_path / 'epoch_3.pth').touch()
    curves = {'FF': [(1, 10), (2, 21), (3, 30)], 'TT': [(1, 0), (2, 1), (3, 3)]}
    assert read_curves(tmp_path) == curves


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    path = write_log(tmp_path / '1', validation(1, FF=10))
    path.write_text(path.read_text() + '{"FF/accuracy/top1": 20, "st')
    assert read_curves(tmp_path) == {'FF': [(1, 10)]}


@pytest.fixture
def work_dir(tmp_path):
    lines = [validation(1, TT=5, TF=7, FT=6, FF=9), validation(2, TT=8, TF=9.5, FT=6, FF=8)]
    lines[1]['FF/accuracy/top5'] = 99
    write_log(tmp_path / 'run' / '1', *lines)
    return tmp_path / 'run'


@pytest.mark.parametrize(
    'skips, names',
    [(None, ['FF', 'FT', 'TF', 'TT']), (['base', 'FT'], ['FT', 'TT']), (['TF', 'super'], ['FF', 'TF'])],
)
def test_depths_come_in_order(work_dir, skips, names):
    assert list(read_curves(work_dir, skips=skips)) == names


def test_metrics(work_dir):
    assert read_log(work_dir).metrics == [TOP1, 'accuracy/top5']
    assert read_curves(work_dir, 'accuracy/top5') == {'FF': [(2, 99)]}


def test_table(work_dir):
    curves = read_curves(work_dir, skips=['FF', 'FT'])
    assert table(curves) == [
        {'skip': 'FF', 'final': '8.000', 'at epoch': '2', 'best': '9.000', 'best at epoch': '1'},
        {'skip': 'FT', 'final': '6.000', 'at epoch': '2', 'best': '6.000', 'best at epoch': '1'},
    ]
    assert list(table(curves, 'iteration')[0])[2] == 'at iteration'


def test_picture_of_many_depths(tmp_path, monkeypatch):
    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(
        Figure, 'savefig', lambda self, *a, **k: figures.append(self) or savefig(self, *a, **k)
    )
    names = [f'{i:05b}'.replace('0', 'F').replace('1', 'T') for i in range(32)]
    names = sorted(names, key=lambda name: (name.count('T'), name))
    points = [(step, step / 2) for step in range(1, 10)]
    plot({name: points for name in names}, TOP1, tmp_path / 'a.png')
    (figure,) = figures
    whole, last = figure.axes
    lines = {line.get_label(): line for line in whole.get_lines()}
    assert list(lines) == names == [text.get_text() for text in figure.legends[0].get_texts()]
    colours = [lines[name].get_color() for name in names]
    skipped = [name.count('T') for name in names]
    assert len(set(zip(colours, skipped, strict=True))) == len(set(colours)) == 6
    assert {name for name in names if lines[name].get_linewidth() > 2} == {'FFFFF', 'TTTTT'}
    assert (whole.get_xlabel(), whole.get_ylabel()) == ('epoch', 'accuracy/top1 in validation (%)')
    assert [line.get_xdata()[0] for line in last.get_lines()] == [7] * 32


@pytest.fixture
def tool(monkeypatch):
    def main(*arguments):
        monkeypatch.setattr(sys, 'argv', ['curves.py', *map(str, arguments)])
        runpy.run_path(str(ROOT / 'tools/analysis/curves.py'), run_name='__main__')

    return main


@pytest.mark.parametrize('apart', [False, True])
def test_tool(tool, work_dir, tmp_path, capsys, apart):
    out = tmp_path / 'new' if apart else work_dir
    tool(work_dir, '--skips', 'super', 'base', *(['--out', out] if apart else []))
    data = json.loads((out / 'curves.json').read_text())
    assert data == {
        'work_dir': str(work_dir),
        'metric': TOP1,
        'unit': 'epoch',
        'curves': {'FF': [[1, 9], [2, 8]], 'TT': [[1, 5], [2, 8]]},
    }
    assert (out / 'curves.png').read_bytes().startswith(b'\x89PNG')
    shown = capsys.readouterr().out
    assert 'best at epoch' in shown and '9.000' in shown and 'FT' not in shown
    assert shown.rstrip().endswith(f'{out}/curves.{{json,png}}')


def test_tool_on_an_ordinary_network(tool, tmp_path):
    write_log(tmp_path / '1', {TOP1: 50.0, 'time': 0.1, 'step': 1})
    tool(tmp_path)
    assert json.loads((tmp_path / 'curves.json').read_text())['curves'] == {'': [[1, 50.0]]}


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['none'], 'none is no folder; give the work dir of a training'),
        (['empty'], 'empty has no log, <timestamp>/vis_data/scalars.json'),
        (['new'], 'new has no validation; the first one comes after train_cfg.val_interval epochs'),
        (['run', '--skips', 'FF', 'FFF'], "skip='FFF': the log has FF, FT, TF, TT$"),
        (['run', '--metric', 'top1'], "metric='top1': the log has accuracy/top1, accuracy/top5"),
        (['run', '--metric', 'accuracy/top5', '--skips', 'base'], "skip='base': the log has FF$"),
        (['plain', '--skips', 'super'], "skip='super': the log has no depths, as of an ordinary network"),
    ],
)
def test_tool_mistakes_get_one_line(tool, work_dir, arguments, message):
    folder = work_dir.parent
    (folder / 'empty').mkdir()
    write_log(folder / 'new' / '1')
    write_log(folder / 'plain' / '1', {TOP1: 50.0, 'step': 1})
    with pytest.raises(SystemExit, match=f'^error: .*{message}') as error:
        tool(folder / arguments[0], *arguments[1:])
    assert '\n' not in str(error.value) and not list(folder.rglob('curves.*'))
