"""The error paths and the cache of tools/setup_env.py; nothing is installed here."""

import ast
import errno
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'tools' / 'setup_env.py'


@pytest.fixture
def env(tmp_path, monkeypatch):
    """The script as a module, on a project of its own."""
    spec = importlib.util.spec_from_file_location('setup_env', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / '.venv'
    paths = {
        'ROOT': tmp_path,
        'VENV': venv,
        'PYTHON': venv / 'bin' / 'python',
        'LOG': venv / 'setup.log',
        'STAMP': venv / '.mmadn-setup',
    }
    for name, path in paths.items():
        monkeypatch.setattr(module, name, path)
    module.PYTHON.parent.mkdir(parents=True)
    (tmp_path / 'tools').mkdir()
    for name in ('requirements.txt', 'setup.py', 'tools/setup_env.py'):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(module.signal, 'signal', lambda *_: None)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('FORCE_CUDA', raising=False)
    monkeypatch.delenv('CXX', raising=False)
    return module


def use_this_python(env):
    env.PYTHON.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    env.PYTHON.chmod(0o755)


def raising(error):
    def call(*_):
        raise error

    return call


def test_an_old_python_can_parse_it():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


def test_pins_agree_with_setup_py(env):
    pins = env.requirements()
    extras = dict(re.findall(r"'([\w-]+)==([\w.]+)'", (ROOT / 'setup.py').read_text()))
    shared = pins.keys() & extras.keys()
    assert {'onedl-mmcv', 'pytest', 'ruff'} <= shared
    assert {name: pins[name] for name in shared} == {name: extras[name] for name in shared}


@pytest.mark.parametrize('version', [(3, 9, 18), (3, 13, 0)])
def test_wrong_python(env, monkeypatch, capsys, version):
    monkeypatch.setattr(env.sys, 'version_info', version)
    assert env.main() == 1
    line = capsys.readouterr().err
    assert line.count('\n') == 1
    assert '{}.{}.{} found'.format(*version) in line


def test_no_venv_module(env, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(env.importlib.util, 'find_spec', lambda name: name != 'ensurepip' and find_spec(name))
    with pytest.raises(env.SetupError, match='python3-venv'):
        env.check_system(env.requirements())


def test_no_compiler(env, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(env.SetupError, match='g\\+\\+'):
        env.check_compiler()
    monkeypatch.setenv('CXX', 'no-such-compiler -O2')
    with pytest.raises(env.SetupError, match='CXX was not found: no-such-compiler'):
        env.check_compiler()


def test_no_headers(env, monkeypatch, tmp_path):
    monkeypatch.setenv('CXX', sys.executable)
    monkeypatch.setattr(env.sysconfig, 'get_path', lambda _: str(tmp_path))
    with pytest.raises(env.SetupError, match='python3-dev'):
        env.check_compiler()


def test_a_cached_wheel_needs_no_compiler(env, monkeypatch):
    def no_compiler():
        raise env.SetupError('no compiler')

    monkeypatch.setattr(env, 'check_space', lambda *_: None)
    monkeypatch.setattr(env, 'check_compiler', no_compiler)
    pins = env.requirements()
    with pytest.raises(env.SetupError):
        env.check_system(pins)
    folder = env.cache_folder(pins['onedl-mmcv'], pins['torch'] + '+cpu')
    folder.mkdir(parents=True)
    (folder / 'onedl_mmcv.whl').touch()
    env.check_system(pins)
    assert env.cached_wheel(pins['onedl-mmcv'], pins['torch'] + '+cpu').parent == folder


def test_full_disk(env, monkeypatch, capsys):
    with pytest.raises(env.SetupError, match='GB free'):
        env.check_space(env.ROOT, 1e9)
    monkeypatch.setattr(env, 'set_up', raising(OSError(errno.ENOSPC, 'full', '/some/file')))
    assert env.main() == 1
    assert 'no space left on the disk of /some/file' in capsys.readouterr().err


def test_interrupted(env, monkeypatch, capsys):
    monkeypatch.setattr(env, 'set_up', raising(KeyboardInterrupt()))
    assert env.main() == 1
    assert capsys.readouterr().err == 'setup: interrupted; the next run continues\n'


@pytest.mark.parametrize(
    'output, line',
    [
        ("WARNING: Retrying after connection broken by 'X'\nERROR: No match", 'PIP_INDEX_URL'),
        ('ERROR: [Errno 28] No space left on device', 'no space left'),
        ('long story\nERROR: No matching distribution\nhint', 'failed (No matching distribution);'),
        (
            "'Connection refused'\nerror: y\nERROR: Failed to build x",
            '(Failed to build x)',
        ),
        ('', 'pip failed; full output: '),
    ],
)
def test_a_page_of_pip_becomes_a_line(env, output, line):
    explained = env.explain('pip', output)
    assert line in explained
    assert '\n' not in explained


def test_a_failing_command_is_logged(env):
    with pytest.raises(env.SetupError, match='failed \\(no luck\\)'):
        env.run('luck', ['sh', '-c', 'echo ERROR: no luck; exit 3'])
    assert 'no luck' in env.LOG.read_text()


def test_cache_key_names_what_the_wheel_depends_on(env, monkeypatch):
    key = env.cache_folder('2.3.6', '2.13.0+cpu').name
    python = 'cp{}{}'.format(*sys.version_info)
    assert key == f'mmcv2.3.6-torch2.13.0+cpu-{python}-{os.uname().machine}-cpu'
    monkeypatch.setenv('FORCE_CUDA', '1')
    assert env.cache_folder('2.3.6', '2.13.0+cpu').name == key[: -len('cpu')] + 'cuda'


def test_a_failed_build_leaves_nothing(env, monkeypatch):
    folder = env.cache_folder('2.3.6', '2.13.0')
    (folder / 'build-killed').mkdir(parents=True)

    def pip(*_, env, **__):
        (Path(env['TMPDIR']) / 'half-written').touch()
        assert env['CUDA_VISIBLE_DEVICES'] == ''
        raise KeyboardInterrupt

    monkeypatch.setattr(env, 'pip', pip)
    monkeypatch.setattr(env, 'check_space', lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        env.build_wheel('2.3.6', folder, 'c++')
    assert not list(folder.iterdir())


def test_a_wheel_that_does_not_load_leaves_the_cache(env, monkeypatch):
    wheel = env.VENV / 'bad.whl'
    wheel.touch()
    monkeypatch.setattr(env, 'venv_python', lambda _: '2.13.0')
    monkeypatch.setattr(env, 'cached_wheel', lambda *_: wheel)
    monkeypatch.setattr(env, 'pip', lambda *_: None)
    monkeypatch.setattr(env, 'run', raising(env.SetupError('no _ext')))
    with pytest.raises(env.SetupError, match='mmcv._ext cannot be imported'):
        env.install_mmcv('2.3.6')
    assert not wheel.exists()


def test_stamp(env, monkeypatch):
    assert not env.up_to_date()
    env.STAMP.write_text(env.fingerprint() + ' cpu\n')
    assert not env.up_to_date(), 'no python in .venv'
    use_this_python(env)
    assert env.up_to_date()

    monkeypatch.setenv('FORCE_CUDA', '1')
    assert not env.up_to_date()
    env.STAMP.write_text(env.fingerprint() + ' cuda\n')
    monkeypatch.delenv('FORCE_CUDA')
    assert env.up_to_date(), 'CUDA operators serve a run that does not ask for them'

    with open(env.ROOT / 'requirements.txt', 'a') as file:
        file.write('another==1.0\n')
    assert not env.up_to_date()


def test_make_names_a_missing_python():
    command = ['make', '-C', str(ROOT), 'setup', 'PYTHON=no-such-python']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode
    assert 'no-such-python not found: install Python 3.10' in done.stderr
