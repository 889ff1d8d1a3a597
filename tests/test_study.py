import json
from pathlib import Path

import pytest

from mmadn import study
from mmadn.study import Run, Study, run_study, table, write_report

SMALL = Study(
    runs={
        'adaptive': Run('configs/demo/resnet50_adn_digits.py'),
        'stock': Run('configs/demo/resnet50_digits.py'),
    },
    skips=('FFFF', 'TTTT'),
    metrics={'accuracy/top1': 'top-1 %'},
)


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """What would run; a test writes accuracies that depend on seed and depth."""
    ran = []

    def command(work_dir, tool, config, *arguments):
        ran.append((tool, config, *arguments))
        work_dir.mkdir(parents=True, exist_ok=True)
        if tool == 'tools/train.py':
            (work_dir / 'last_checkpoint').write_text('epoch_1.pth')
        else:
            seed, skips = int(work_dir.name.removeprefix('seed')), arguments[4:] or ('',)
            rows = [{'skip': s, 'accuracy/top1': 90.0 + seed - 10 * s.count('T')} for s in skips]
            (work_dir / 'subnets.json').write_text(json.dumps({'subnets': rows}))

    monkeypatch.setattr(study, '_command', command)
    return ran


def test_every_run_is_trained_with_every_seed_once(commands, tmp_path, capsys):
    rows = run_study(SMALL, [0, 1], tmp_path, jobs=2)
    assert len(commands) == 8
    trained = {(c[1], c[-1]) for c in commands if c[0] == 'tools/train.py'}
    assert trained == {(r.train, f'randomness.seed={s}') for r in SMALL.runs.values() for s in (0, 1)}
    assert [(r['run'], r['seed'], r['skip']) for r in rows] == [
        (name, seed, skip)
        for seed in (0, 1)
        for name, skips in (('adaptive', ('FFFF', 'TTTT')), ('stock', ('',)))
        for skip in skips
    ]
    assert '4/4' in capsys.readouterr().out
    run_study(SMALL, [0, 1, 2], tmp_path, jobs=2)
    assert len(commands) == 12  # the third seed only


def test_table_and_report(commands, tmp_path):
    rows = run_study(SMALL, [0, 2], tmp_path / 'runs', jobs=1)
    base = {'run': 'adaptive', 'skip': 'TTTT', 'top-1 %': '51.000 ± 1.414', 'seeds': '2'}
    assert table(rows, SMALL.metrics)[1] == base
    write_report(rows, SMALL, tmp_path / 'out', command='x')
    data = json.loads((tmp_path / 'out/study.json').read_text())
    assert data['results'] == rows and data['command'] == 'x' and 'torch' in data['machine']
    assert (tmp_path / 'out/study.png').read_bytes().startswith(b'\x89PNG')
    assert '51.000 ± 1.414' in (tmp_path / 'out/study.md').read_text()


def test_a_failure_shows_the_end_of_its_log(tmp_path):
    broken = Study(runs={'broken': Run('configs/none.py')}, skips=(), metrics={})
    with pytest.raises(RuntimeError, match='tools/train.py configs/none.py .*failed; .*study.log ends'):
        run_study(broken, [0], tmp_path, jobs=1)


@pytest.mark.parametrize('name', study.STUDIES)
def test_configs_are_there(name):
    root = Path(__file__).resolve().parents[1]
    for run in study.STUDIES[name].runs.values():
        assert (root / run.train).exists() and (run.test is None or (root / run.test).exists())
