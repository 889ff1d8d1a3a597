import importlib.util
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from projects.paper.studies import STUDIES
from projects.paper.study import folder_name

ROOT = Path(__file__).resolve().parents[2]
MAP = ROOT / 'docs/evidence/README.md'
WORK = 'work_dirs/study'


@pytest.fixture(scope='module')
def evidence():
    spec = importlib.util.spec_from_file_location('evidence', ROOT / 'tools/evidence.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_commands_are_of_this_project_and_read_what_the_studies_write(evidence):
    seeds = set()
    for part in evidence.analyses([0, 2], WORK):
        assert (ROOT / part.command[0]).exists()
        for config in (word for word in map(str, part.command) if word.endswith('.py') and '/' in word):
            assert (ROOT / config).exists()
        for path in part.needs:
            name, run, seed, file = path.relative_to(WORK).parts
            assert run in {folder_name(run) for run in STUDIES[name].runs}
            assert file in ('subnets.json', evidence.CHECKPOINT)
            seeds.add(seed)
    assert seeds == {'seed0', 'seed2'}


def test_every_training_that_a_command_names_is_among_its_needs(evidence):
    for part in evidence.analyses([0, 2], WORK):
        words = re.split('[ =,]', ' '.join(map(str, part.command)))
        named = {Path(word) for word in words if word.startswith(f'{WORK}/')}
        assert {path if path in part.needs else path / evidence.REPORT for path in named} == set(part.needs)


def test_the_checkpoint_is_the_last_one_of_the_long_trainings(evidence):
    for name in ('adaptive, long', 'individual, full, long'):
        config = Config.fromfile(ROOT / STUDIES['letters'].runs[name].config)
        assert evidence.CHECKPOINT == f'iter_{config.train_cfg.max_iters}.pth'


def test_what_lacks_its_trainings_is_left_out(evidence, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evidence.Part, 'run', lambda part: pytest.fail('must not run'))
    for part in evidence.analyses([0], str(tmp_path)):
        if part.name != 'table2':  # which needs none
            assert evidence.run(part)['done'] == 'no'
            assert 'left out, as the trainings are not all done' in capsys.readouterr().out


def test_a_command_runs_where_its_trainings_are_done(evidence, tmp_path, capfd):
    (tmp_path / 'subnets.json').write_text('{}')
    part = evidence.Part('fig5', ['tools/analysis/curves.py', tmp_path], [tmp_path / 'subnets.json'])
    with pytest.raises(RuntimeError, match='fig5 failed: python tools/analysis/curves.py'):
        evidence.run(part)
    assert 'error: ' in capfd.readouterr().err  # the tool's own: there is no log
    row = evidence.run(evidence.Part('help', ['tools/analysis/curves.py', '--help']))
    assert row == {'part': 'help', 'done': 'yes', 'command': 'python tools/analysis/curves.py --help'}


def test_the_map_names_what_is_there():
    text = MAP.read_text()
    links = re.findall(r'\]\(([^)#]+)\)', text)
    missing = [link for link in links if '://' not in link and not (MAP.parent / link).exists()]
    assert links and not missing
    tools = set(re.findall(r'tools/[\w/]+\.(?:py|sh)', text))
    assert {f'tools/analysis/{p.name}' for p in (ROOT / 'tools/analysis').glob('*.py')} <= tools
    configs = set(re.findall(r'(?:projects/paper/)?configs/[\w/.-]+\.py', text))
    assert configs and not [path for path in tools | configs if not (ROOT / path).exists()]
