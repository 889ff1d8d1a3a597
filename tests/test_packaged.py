"""What comes with an installed package: commands, configs by name, models by name."""

import ast
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT
from mmengine import hub
from mmengine.config import Config
from scripts import run

import mmadn_command
from mmadn import ADNResNet
from mmadn.checkpoint.files import build_model
from mmadn.cli import config_path

FILES = {path.stem: path for path in (ROOT / 'tools').glob('*.py')}
COMMANDS = {name.replace('-', '_') for name in mmadn_command.COMMANDS}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition('.')[0]
        elif isinstance(node, ast.Import):
            yield from (name.name.partition('.')[0] for name in node.names)


def test_every_tool_is_a_command_unless_it_needs_the_clone():
    rooms = {'projects', 'benchmarks'}
    bound = {name for name, path in FILES.items() if rooms & set(imported(path))}
    assert bound | {'setup_env'} == FILES.keys() - COMMANDS


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Unpacked, as an installation would; the build folder is not the clone's, which may hold old files."""
    folder = tmp_path_factory.mktemp('wheel')
    build = [
        'egg_info',
        '--egg-base',
        folder,
        'build',
        '--build-base',
        folder / 'build',
        'bdist_wheel',
        '-d',
        folder,
    ]
    run('setup.py', '-q', *build)
    (built,) = folder.glob('*.whl')
    zipfile.ZipFile(built).extractall(folder / 'site')
    return folder / 'site'


def test_the_wheel_brings_configs_and_tools(wheel):
    mim = wheel / 'mmadn' / '.mim'
    configs = {
        path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.*') if path.suffix in ('.py', '.yml')
    }
    assert {path.relative_to(mim) for path in (mim / 'configs').rglob('*.*')} == configs
    assert {path.stem for path in (mim / 'tools').iterdir()} == COMMANDS
    assert (mim / 'model-index.yml').is_file()
    assert {path.name for path in wheel.iterdir() if path.suffix != '.dist-info'} == {
        'mmadn',
        'mmadn_command.py',
    }


def test_help_comes_without_torch_and_from_the_wheel(wheel, tmp_path):
    code = (
        'import sys; sys.argv = ["mmadn", "--help"]; import mmadn_command; mmadn_command.main(); '
        'assert "torch" not in sys.modules'
    )
    command = [sys.executable, '-c', code]
    shown = subprocess.run(command, cwd=wheel, capture_output=True, text=True, check=True, env={}).stdout
    assert all(f'  {name} ' in shown for name in mmadn_command.COMMANDS)
    assert str(wheel / 'mmadn' / '.mim' / 'configs') in shown


@pytest.mark.parametrize('name', ['train', 'test-subnets', 'test_subnets'])
def test_a_command_runs_its_tool(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, 'argv', ['mmadn', name, '--help'])
    with pytest.raises(SystemExit) as ended:
        mmadn_command.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: mmadn {name.replace("_", "-")} ')


def test_an_unknown_command_names_those_there_are(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['mmadn', 'trian'])
    with pytest.raises(SystemExit, match="no command 'trian'; give train, test, "):
        mmadn_command.main()


@pytest.mark.parametrize('name', ['adn/resnet50_adn_in1k.py', 'configs/adn/resnet50_adn_in1k.py'])
def test_a_config_is_found_by_its_name_from_anywhere(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(config_path(name))
    assert cfg.model.backbone.type == 'mmadn.ADNResNet'
    (tmp_path / 'child.py').write_text("_base_ = 'mmadn::adn/resnet50_adn_in1k.py'\n")
    child = Config.fromfile(tmp_path / 'child.py')
    assert child.model == cfg.model
    assert isinstance(build_model(child).backbone, ADNResNet), 'in the scope that the base says'
    assert hub.get_config('mmadn::adn/resnet50_adn_in1k.py').model == cfg.model


def test_a_file_of_the_users_own_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert config_path('absent.py') == 'absent.py'
    (tmp_path / 'adn').mkdir()
    (tmp_path / 'adn' / 'resnet50_adn_in1k.py').touch()
    assert config_path('adn/resnet50_adn_in1k.py') == 'adn/resnet50_adn_in1k.py'
