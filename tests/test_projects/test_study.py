import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config, DictAction

from mmadn.evaluation.subnets import is_adaptive
from mmadn.utils.cores import available_cores
from mmadn.utils.report import machine
from projects.paper import study
from projects.paper.studies import STUDIES
from projects.paper.study import Claim, Run, Study, run_study
from projects.paper.study_report import claims_table, depths_table, table, write_report

CONFIGS = 'projects/paper/configs'

SMALL = Study(
    runs={
        'adaptive': Run('configs/demo/resnet50_adn_digits.py'),
        'stock': Run('configs/demo/resnet50_digits.py'),
    },
    skips=('FFFF', 'TTTT'),
    metrics={'accuracy/top1': 'top-1 %'},
)


class Ran(list):
    """The commands; `environments` has what was set for each."""


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """What would run; a test writes accuracies that depend on seed and depth."""
    ran, environments = Ran(), []
    ran.environments = environments

    def command(work_dir, tool, config, *arguments, **environment):
        ran.append((tool, config, *arguments))
        environments.append((tool, config, environment))
        work_dir.mkdir(parents=True, exist_ok=True)
        if tool == 'tools/train.py':
            (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
        elif tool == 'tools/test_subnets.py':
            seed, skips = int(work_dir.name.removeprefix('seed')), arguments[4:] or ('',)
            rows = [
                {'skip': s, 'gflops': 1 - s.count('T') / 8, 'accuracy/top1': 90.0 + seed - 10 * s.count('T')}
                for s in skips
            ]
            (work_dir / 'subnets.json').write_text(json.dumps({'subnets': rows}))

    monkeypatch.setattr(study, '_command', command)
    return ran


def test_an_adaptive_network_is_trained_and_tested_at_one_depth_alone(commands, tmp_path):
    config = 'configs/demo/rtmdet_adn_shapes.py'
    small = replace(SMALL, runs={'all': Run(config), 'TTF': Run(config, alone='TTF')}, skips=None)
    rows = run_study(small, [0], tmp_path, jobs=1)
    train, test = [command for command in commands if str(tmp_path / 'TTF') in str(command)]
    cfg = Config.fromfile(config)
    options = train[train.index('--cfg-options') + 1 :]
    cfg.merge_from_dict(vars(_options(options))['cfg_options'])
    assert cfg.model.backbone.skip == 'TTF' and cfg.model.backbone.fixed is True
    assert cfg.custom_hooks == [] and cfg.val_cfg.skips == ['TTF']
    assert test[test.index('--skips') + 1 :] == ('TTF',)
    assert [row['skip'] for row in rows if row['run'] == 'TTF'] == ['']  # as any individual network


def _options(given):
    parser = argparse.ArgumentParser()
    parser.add_argument('cfg_options', nargs='+', action=DictAction)
    return parser.parse_args(given)


def test_every_run_is_trained_with_every_seed_once(commands, tmp_path, capsys):
    rows = run_study(SMALL, [0, 1], tmp_path, jobs=2)
    assert len(commands) == 8
    trained = {(c[1], c[-1]) for c in commands if c[0] == 'tools/train.py'}
    assert trained == {(r.config, f'randomness.seed={s}') for r in SMALL.runs.values() for s in (0, 1)}
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
    base = {'run': 'adaptive', 'skip': 'TTTT', 'top-1 %': '51.00 ± 1.41', 'seeds': '2'}
    assert table(rows, SMALL.metrics)[1] == base
    write_report(rows, SMALL, tmp_path / 'out', command='x')
    data = json.loads((tmp_path / 'out/study.json').read_text())
    assert data['results'] == rows and data['command'] == 'x' and 'torch' in data['machine']
    assert (tmp_path / 'out/study.png').read_bytes().startswith(b'\x89PNG')
    assert '51.00 ± 1.41' in (tmp_path / 'out/study.md').read_text()


CHAINED = Study(
    runs={
        'teacher': Run(f'{CONFIGS}/resnet50_letters.py'),
        'skipped': Run(f'{CONFIGS}/resnet50_adn_letters.py', weights_of='teacher'),
        'taught': Run(f'{CONFIGS}/resnet50-base-long_distilled_letters.py', teacher='teacher'),
    },
    skips=('FFFF', 'TTTT'),
    metrics={'accuracy/top1': 'top-1 %'},
)


def test_a_checkpoint_is_calibrated_before_its_test(commands, tmp_path):
    adaptive = SMALL.runs['adaptive']
    runs = {'as trained': adaptive, 'calibrated': Run(adaptive.config, None, 'as trained', calibrated=True)}
    run_study(Study(runs, ('FFFF',), SMALL.metrics), [0], tmp_path, jobs=1)
    trained, calibrated = (
        tmp_path / 'as-trained/seed0/epoch_1.pth',
        tmp_path / 'calibrated/seed0/calibrated.pth',
    )
    assert [tuple(map(str, command[:4])) for command in commands[2:]] == [
        ('tools/calibrate_norms.py', adaptive.config, str(trained), str(calibrated)),
        ('tools/test_subnets.py', adaptive.config, str(calibrated), '--work-dir'),
    ]


def test_a_part_of_a_study_has_all_that_it_needs():
    runs = {**CHAINED.runs, 'alone': SMALL.runs['stock']}
    whole = replace(
        CHAINED,
        runs=runs,
        comparisons={'a': ('skipped',), 'b': ('alone',)},
        claims=[Claim(('skipped', 'TTTT'), ('teacher', '')), Claim(('alone', ''), ('teacher', ''))],
    )
    part = whole.only(['a'])
    assert list(part.runs) == ['teacher', 'skipped'] and list(part.comparisons) == ['a']
    assert part.claims == whole.claims[:1]
    with pytest.raises(ValueError, match="no comparison 'c': choose from a, b"):
        whole.only(['c'])


def test_the_summary_of_all_depths():
    """Two stages: the line between the ends is at 88 in the middle, and FT lies 6 below it, TF 2 above."""
    values = {'FF': (4, 90.0), 'FT': (3, 82.0), 'TF': (3, 90.0), 'TT': (2, 86.0)}
    rows = [
        {'run': 'a', 'seed': seed, 'skip': skip, 'gflops': gflops, 'x': value + seed}
        for seed in (0, 2)
        for skip, (gflops, value) in values.items()
    ]
    stock = [{'run': 'stock', 'seed': 0, 'skip': '', 'gflops': 4, 'x': 90.0}]
    ends = [{**row, 'run': 'ends'} for row in rows if row['skip'] in ('FF', 'TT')]
    (row,) = depths_table([*rows, *stock, *ends], {'x': 'top-1 (%)'})
    assert row == {
        'run': 'a',
        'super-net': '91.00 ± 1.41',
        'base-net': '87.00 ± 1.41',
        'mean between': '87.00 ± 1.41',
        'worst between': '83.00 ± 1.41',
        'below the line': '6.00 ± 0.00',
        'seeds': '2',
    }


def test_comparisons_show_the_depths_that_they_are_about(commands, tmp_path):
    shown = Study(SMALL.runs, SMALL.skips, SMALL.metrics, shown=('TTTT',))
    write_report(run_study(shown, [0], tmp_path / 'runs', jobs=1), shown, tmp_path / 'out')
    text = (tmp_path / 'out/study.md').read_text()
    assert 'TTTT' in text and 'stock' in text and 'FFFF' not in text


@pytest.mark.parametrize('jobs', [1, 3])
def test_runs_use_the_checkpoints_of_others_of_their_seed(commands, tmp_path, jobs):
    rows = run_study(CHAINED, [0, 1], tmp_path, jobs=jobs)
    assert [row['skip'] for row in rows] == 2 * ['', 'FFFF', 'TTTT', '']
    trained = [(c, e.get('TEACHER')) for tool, c, e in commands.environments if tool == 'tools/train.py']
    assert sorted(trained, key=str) == sorted(
        pair
        for seed in (0, 1)
        for pair in (
            (f'{CONFIGS}/resnet50_letters.py', None),
            (
                f'{CONFIGS}/resnet50-base-long_distilled_letters.py',
                f'{tmp_path}/teacher/seed{seed}/epoch_1.pth',
            ),
        )
    )
    tested = {(c[1], str(c[2])) for c in commands if c[0] == 'tools/test_subnets.py'}
    for seed in (0, 1):
        checkpoint = f'{tmp_path}/teacher/seed{seed}/epoch_1.pth'
        assert (f'{CONFIGS}/resnet50_letters.py', checkpoint) in tested
        assert (f'{CONFIGS}/resnet50_adn_letters.py', checkpoint) in tested
    assert len(tested) == 6


def test_what_does_not_fit_the_budget_is_left_for_the_next_call(commands, tmp_path, capsys):
    assert run_study(CHAINED, [0], tmp_path, jobs=1, budget=0) == [] and not commands
    assert 'taught, seed 0: left for later' in capsys.readouterr().out
    assert len(run_study(CHAINED, [0], tmp_path, jobs=1, budget=60)) == 4
    ran = len(commands)
    assert len(run_study(CHAINED, [0], tmp_path, jobs=1, budget=0)) == 4  # what is done counts
    assert len(commands) == ran


def test_data_are_prepared_first(commands, tmp_path):
    seen = []
    data = Study({'a': CHAINED.runs['teacher']}, (), {}, prepare=lambda: seen.append(len(commands)))
    run_study(data, [0], tmp_path)
    assert seen == [0] and commands


def test_claims_are_judged_seed_by_seed():
    values = {('a', 0): 90.0, ('a', 1): 92.0, ('a', 2): 91.0, ('b', 0): 89.0, ('b', 1): 92.5, ('b', 2): 89.5}
    rows = [{'run': run, 'seed': seed, 'skip': '', 'x': value} for (run, seed), value in values.items()]
    claims = [Claim(('a', ''), ('b', '')), Claim(('a', ''), ('c', ''))]
    (row,) = claims_table(rows, claims, {'x': 'top-1 (%)'})  # of c there is nothing
    assert row == {
        'claim': 'a over b',
        'difference in top-1 (%)': '+0.67 ± 1.04',
        'holds in': '2 of 3 seeds',
    }


def test_every_comparison_has_its_table_and_picture_in_its_order(commands, tmp_path):
    study_ = Study(
        SMALL.runs,
        SMALL.skips,
        SMALL.metrics,
        comparisons={'one': ('stock',), 'two': ('stock', 'adaptive')},
        claims=[Claim(('adaptive', 'FFFF'), ('adaptive', 'TTTT'))],
    )
    write_report(run_study(study_, [0], tmp_path / 'runs', jobs=1), study_, tmp_path / 'out')
    lines = (tmp_path / 'out/two.md').read_text().splitlines()
    assert [line.split('|')[1].strip() for line in lines[2:]] == ['stock', 'adaptive', 'adaptive']
    assert 'adaptive' not in (tmp_path / 'out/one.md').read_text()
    assert (
        '| adaptive FFFF over adaptive TTTT | +40.00 | 1 of 1 seeds |'
        in (tmp_path / 'out/claims.md').read_text()
    )
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {'study.json', 'one.md', 'one.png', 'two.md', 'two.png', 'claims.md'}


def test_a_failure_shows_the_end_of_its_log(tmp_path):
    broken = Study(runs={'broken': Run('configs/none.py')}, skips=(), metrics={})
    with pytest.raises(RuntimeError, match='tools/train.py configs/none.py .*failed; .*study.log ends'):
        run_study(broken, [0], tmp_path, jobs=1)


@pytest.mark.parametrize('name', STUDIES)
def test_configs_are_there(name):
    root, chosen = Path(__file__).resolve().parents[2], STUDIES[name]
    for run in chosen.runs.values():
        assert (root / run.config).exists() and (run.test_config is None or (root / run.test_config).exists())
    folders = {study.folder_name(run) for run in chosen.runs}
    assert len(folders) == len(chosen.runs)
    compared = {run for runs in chosen.comparisons.values() for run in runs}
    assert compared == set(chosen.runs)
    for claim in chosen.claims:
        for run, skip in (claim.better, claim.worse):
            config = Config.fromfile(root / (chosen.runs[run].test_config or chosen.runs[run].config))
            depths = chosen.skips or ('FFFF', 'TTTT')  # of all of them, the ends
            assert skip in (depths if is_adaptive(config) else ('',)), claim


def test_a_teacher_is_given_by_name(monkeypatch):
    root = Path(__file__).resolve().parents[2]
    taught = [run.config for each in STUDIES.values() for run in each.runs.values() if run.teacher]
    assert taught
    for path in taught:
        monkeypatch.delenv('TEACHER', raising=False)
        config = Config.fromfile(root / path)
        teachers = [hook.teacher for hook in config.custom_hooks if 'teacher' in hook]
        assert teachers or config.load_from
        theirs = Config.fromfile(root / CONFIGS / 'resnet50-long_letters.py')
        last = f'{theirs.work_dir}/iter_{theirs.train_cfg.max_iters}.pth'
        assert {config.get('load_from') or last, *(teacher.checkpoint for teacher in teachers)} == {last}
        monkeypatch.setenv('TEACHER', '/elsewhere/a.pth')
        config = Config.fromfile(root / path)
        teachers = [hook.teacher.checkpoint for hook in config.custom_hooks if 'teacher' in hook]
        assert {config.get('load_from') or '/elsewhere/a.pth', *teachers} == {'/elsewhere/a.pth'}


@pytest.mark.parametrize('gpus, jobs', [(0, 3), (1, 3), (2, 3)])
def test_jobs_are_counted_by_the_cores_that_the_process_may_use(monkeypatch, gpus, jobs):
    monkeypatch.setattr('os.cpu_count', lambda: 64)
    monkeypatch.setattr('os.sched_getaffinity', lambda process: {0, 5, 6}, raising=False)
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    assert study.default_jobs() == jobs and available_cores() == machine()['cores'] == 3


def test_at_most_four_jobs_share_a_gpu(monkeypatch):
    monkeypatch.setattr('os.sched_getaffinity', lambda process: set(range(64)), raising=False)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    assert study.default_jobs() == 8


@pytest.mark.parametrize(
    'visible, expected', [(None, ['0', '1']), ('2,5', ['2', '5']), ('GPU-a,GPU-b', ['GPU-a', 'GPU-b'])]
)
def test_trainings_share_the_gpus_that_are_visible(commands, tmp_path, monkeypatch, visible, expected):
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    run_study(SMALL, [0, 1], tmp_path, jobs=1)
    used = [environment['CUDA_VISIBLE_DEVICES'] for *_, environment in commands.environments]
    assert used == [gpu for gpu in 2 * expected for _ in ('train', 'test')]
