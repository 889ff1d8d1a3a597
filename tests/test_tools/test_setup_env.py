"""The error paths and the cache of tools/setup_env.py; nothing is installed here."""

import ast
import errno
import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
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
        'CACHE': tmp_path / 'cache',
    }
    for name, path in paths.items():
        monkeypatch.setattr(module, name, path)
    module.PYTHON.parent.mkdir(parents=True)
    (tmp_path / 'tools').mkdir()
    for name in ('requirements.txt', 'requirements-full.txt', 'setup.py', 'tools/setup_env.py'):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(module.signal, 'signal', lambda *_: None)
    for name in ('FORCE_CUDA', 'CXX', 'MMCV_WHEEL'):
        monkeypatch.delenv(name, raising=False)
    return module


@pytest.fixture
def commands(env, monkeypatch):
    """What a whole set-up runs, without running it; a wheel appears where pip would build it."""
    done = []

    def run(what, *command, **settings):
        done.append(' '.join(map(str, command)))
        if 'wheel' in command:
            Path(command[command.index('-w') + 1], 'onedl_mmcv-2.3.6-built.whl').touch()

    monkeypatch.setattr(env, 'run', run)
    monkeypatch.setattr(env, 'venv_works', lambda: True)
    monkeypatch.setattr(env, 'check_compiler', lambda: 'c++')
    monkeypatch.setattr(env.subprocess, 'check_output', lambda _: b'2.13.0+cpu\n')
    env.PYTHON.touch()
    return done


def raising(error):
    def call(*_, **__):
        raise error

    return call


def test_an_old_python_can_parse_it():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


def test_pins_agree_with_setup_py(env):
    pins = {}
    for name in ('requirements.txt', 'requirements-full.txt'):
        found = re.findall(r'^([\w.-]+)==(\S+)', (ROOT / name).read_text(), re.M)
        assert not pins.keys() & dict(found)
        pins.update(found)
    assert pins['torch'] == env.pinned('torch')
    extras = dict(re.findall(r"'([\w-]+)==([\w.]+)'", (ROOT / 'setup.py').read_text()))
    shared = pins.keys() & extras.keys()
    assert {'onedl-mmcv', 'pytest', 'ruff'} <= shared
    assert {name: pins[name] for name in shared} == {name: extras[name] for name in shared}


@pytest.mark.parametrize('version', [(3, 9, 18), (3, 13, 0)])
def test_wrong_python(env, monkeypatch, capsys, version):
    monkeypatch.setattr(env.sys, 'version_info', version)
    assert env.main(['demo']) == 1
    line = capsys.readouterr().err
    assert line.count('\n') == 1
    assert '{}.{}.{} found'.format(*version) in line


def test_no_venv_module(env, monkeypatch):
    """Debian's python3 without python3-venv fails so; nothing was downloaded yet."""
    monkeypatch.setattr(env, 'check_system', lambda _: None)
    monkeypatch.setattr(env.sys, 'executable', 'false')
    with pytest.raises(env.SetupError, match='making .venv \\(Debian: apt install python3-venv\\) failed'):
        env.set_up('none')


def test_no_compiler(env, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(env.SetupError, match='no C\\+\\+ compiler c\\+\\+ found.*apt install g\\+\\+'):
        env.check_compiler()
    monkeypatch.setenv('CXX', 'no-such-compiler -O2')
    with pytest.raises(env.SetupError, match='no C\\+\\+ compiler no-such-compiler -O2 found'):
        env.check_compiler()


def test_no_headers(env, monkeypatch, tmp_path):
    monkeypatch.setenv('CXX', sys.executable)
    monkeypatch.setattr(env.sysconfig, 'get_path', lambda _: str(tmp_path))
    with pytest.raises(env.SetupError, match='python3-dev'):
        env.check_compiler()


def test_the_compiler_is_looked_for_before_the_downloads_and_only_where_it_is_needed(env, monkeypatch):
    monkeypatch.setattr(env, 'check_compiler', raising(env.SetupError('no compiler')))
    monkeypatch.setattr(env, 'GB', 0)
    with pytest.raises(env.SetupError, match='no compiler'):
        env.check_system('cpu')
    env.check_system('none')
    env.check_system('/path/to/onedl_mmcv.whl')
    folder = env.wheel_folder('2.13.0+cpu', 'cpu')
    folder.mkdir(parents=True)
    (folder / 'onedl_mmcv.whl').touch()
    env.check_system('cpu')
    with pytest.raises(env.SetupError, match='no compiler'):
        env.check_system('cuda')


def test_full_disk(env, monkeypatch, capsys):
    monkeypatch.setattr(env, 'GB', 1e9)
    with pytest.raises(env.SetupError, match='GB of free disk space'):
        env.check_system('none')
    monkeypatch.setattr(env, 'set_up', raising(OSError(errno.ENOSPC, 'full', '/some/file')))
    assert env.main(['demo']) == 1
    assert 'no space left on the disk of /some/file' in capsys.readouterr().err


def test_interrupted(env, monkeypatch, capsys):
    monkeypatch.setattr(env, 'set_up', raising(KeyboardInterrupt()))
    assert env.main(['demo']) == 1
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
        env.run('luck', 'sh', '-c', 'echo ERROR: no luck; exit 3')
    assert 'no luck' in env.LOG.read_text()


@pytest.mark.parametrize(
    'output, shown',
    [
        ('  [12/78] c++ -MMD\n  warning: x\n      |   ^', '[12/78] files compiled'),
        ('Collecting addict==2.4.0 (from -r requirements.txt)\n  WARNING: y', 'Collecting addict==2.4.0'),
        ('nothing of the kind', ''),
    ],
)
def test_the_screen_shows_the_time_and_how_far_it_is(env, monkeypatch, capsys, output, shown):
    monkeypatch.setattr(env, 'HEARTBEAT', 0.05)
    env.run('compiling', 'sh', '-c', f'echo "{output}"; sleep 0.3')
    assert f'  0:00 {shown}\n' in capsys.readouterr().out


def test_an_interrupted_command_is_stopped_with_all_that_it_started(env, monkeypatch):
    monkeypatch.setattr(env, 'HEARTBEAT', 0.05)
    monkeypatch.setattr(env, 'progress', raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        env.run('compiling', 'sh', '-c', 'sleep 60 & echo $! >pid; wait')
    child = Path(f'/proc/{int((env.ROOT / "pid").read_text())}/stat')
    for _ in range(100):
        if not child.exists() or child.read_text().split()[2] == 'Z':
            break
        time.sleep(0.02)
    else:
        raise AssertionError('still running')


def test_a_second_set_up_waits_for_the_first(env, capsys):
    def second():
        with env.locked():
            order.append('second')

    order = []
    with env.locked():
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        order.append('first')
    waiting.join()
    assert order == ['first', 'second'] and 'waiting for another set-up' in capsys.readouterr().out


def test_the_demo_gets_no_operators_and_no_compiler(env, commands, monkeypatch):
    monkeypatch.setattr(env, 'check_compiler', raising(env.SetupError('no compiler')))
    assert env.main(['demo']) == 0
    assert not any('requirements-full.txt' in command or 'mmcv' in command for command in commands)
    assert not any('--no-build-isolation' in command for command in commands if 'requirements.txt' in command)


def test_operators_are_compiled_once_and_replace_the_light_mmcv(env, commands):
    assert env.main(['demo']) == 0
    assert env.main([]) == 0
    (build,) = (
        command for command in commands if 'pip wheel' in command.replace('--disable-pip-version-check ', '')
    )
    assert '--no-cache-dir' in build, "pip's cache has the light one under the same version"
    (install,) = (command for command in commands if 'force-reinstall' in command)
    wheel = env.wheel_folder('2.13.0+cpu', 'cpu') / 'onedl_mmcv-2.3.6-built.whl'
    assert install.endswith(str(wheel)) and wheel.is_file()
    assert [path.name for path in wheel.parent.iterdir()] == [wheel.name]

    commands.clear()
    assert env.main([]) == env.main(['demo']) == 0
    assert not commands, 'up to date'
    env.STAMP.unlink()
    assert env.main([]) == 0
    assert not any(' wheel ' in command for command in commands), 'cached'


def test_a_ready_wheel(env, commands, monkeypatch, capsys):
    wheel = env.ROOT / 'onedl_mmcv-2.3.6+cu130-cp311.whl'
    monkeypatch.setenv('MMCV_WHEEL', str(wheel))
    assert env.main([]) == 1
    assert 'give the path of a wheel onedl_mmcv-2.3.6*.whl' in capsys.readouterr().err
    assert env.main(['demo']) == 0
    wheel.touch()
    assert env.main([]) == 0
    assert any(command.endswith(f'--force-reinstall {wheel}') for command in commands)
    assert not any(' wheel ' in command for command in commands)
    monkeypatch.delenv('MMCV_WHEEL')
    commands.clear()
    assert env.main([]) == env.main(['demo']) == 0
    assert not commands, 'it serves later runs that do not name it'


def test_cache_key_names_what_the_wheel_depends_on(env):
    python = 'cp{}{}'.format(*sys.version_info)
    key = f'mmcv2.3.6-torch2.13.0+cpu-{python}-{os.uname().machine}-cuda'
    assert env.wheel_folder('2.13.0+cpu', 'cuda').name == key


def test_a_failed_build_leaves_nothing(env, monkeypatch):
    folder = env.wheel_folder('2.13.0', 'cpu')
    (folder / 'build').mkdir(parents=True)
    (folder / 'build' / 'killed').touch()

    def pip(*_, **env):
        assert not list(Path(env['TMPDIR']).iterdir())
        (Path(env['TMPDIR']) / 'half-written').touch()
        assert env['CUDA_VISIBLE_DEVICES'] == ''
        raise KeyboardInterrupt

    monkeypatch.setattr(env, 'pip', pip)
    monkeypatch.setattr(env, 'check_compiler', lambda: 'c++')
    with pytest.raises(KeyboardInterrupt):
        env.build_wheel('2.13.0', 'cpu')
    assert not list(folder.iterdir())


@pytest.mark.parametrize('own', [False, True])
def test_a_wheel_that_does_not_load(env, commands, monkeypatch, own):
    wheel = env.wheel_folder('2.13.0+cpu', 'cpu') / 'bad.whl'
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    monkeypatch.setattr(env, 'run', raising(env.SetupError('no _ext')))
    remedy = 'give another' if own else 'it was removed, and the next run builds it anew'
    with pytest.raises(env.SetupError, match=f'does not fit torch 2.13.0.cpu: {remedy} .no _ext'):
        env.install_operators(str(wheel) if own else 'cpu')
    assert wheel.exists() == own


def test_an_interrupted_set_up_is_taken_up_again(env, commands, monkeypatch):
    run = env.run
    monkeypatch.setattr(env, 'run', raising(KeyboardInterrupt()))
    assert env.main(['demo']) == 1
    monkeypatch.setattr(env, 'run', run)
    assert env.main(['demo']) == 0 and commands
    commands.clear()
    assert env.main(['demo']) == 0 and not commands


def test_stamp(env, monkeypatch):
    assert not env.up_to_date('none')
    env.STAMP.write_text(env.fingerprint() + ' cpu\n')
    assert not env.up_to_date('cpu'), 'no python in .venv'
    env.PYTHON.touch()
    assert env.up_to_date('none') and env.up_to_date('cpu') and not env.up_to_date('cuda')
    env.STAMP.write_text(env.fingerprint() + ' cuda\n')
    assert env.up_to_date('cpu'), 'CUDA operators serve a run that does not ask for them'
    env.STAMP.write_text(env.fingerprint() + ' none\n')
    assert env.up_to_date('none') and not env.up_to_date('cpu')
    monkeypatch.setenv('FORCE_CUDA', '1')
    assert env.wanted_operators() == 'cuda'

    with open(env.ROOT / 'requirements-full.txt', 'a') as file:
        file.write('another==1.0\n')
    assert not env.up_to_date('none')


def test_a_venv_of_another_python_or_a_broken_one_is_made_anew(env):
    env.PYTHON.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    env.PYTHON.chmod(0o755)
    assert env.venv_works()
    env.PYTHON.write_text('#!/bin/sh\nexit 1\n')
    assert not env.venv_works()


def test_make_names_a_missing_python():
    command = ['make', '-C', str(ROOT), 'setup', 'PYTHON=no-such-python']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode
    assert 'no-such-python not found: install Python 3.10' in done.stderr
