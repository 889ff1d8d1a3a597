"""Sets up the project's own virtual environment in .venv; called by the Makefile.

`setup_env.py demo` installs what classifiers need, and `setup_env.py` everything, with mmcv's operators,
which are compiled once. What is missing is named in one line. Standard library only, and syntax that
Python 3.6 parses, so that a Python that is too old is told so as well.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
LOG = VENV / 'setup.log'
STAMP = VENV / '.mmadn-setup'
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mmadn'

VERSION = '{}.{}'.format(*sys.version_info)
OPERATORS = ['none', 'cpu', 'cuda']  # of mmcv: each also serves who asks for one before it
GB = 7  # with torch's CUDA packages and, for a while, mmcv's object files
HEARTBEAT = 10  # seconds
# The lines of pip and ninja that say how far they are.
PROGRESS = re.compile(r'\s*(?:(\[\d+/\d+\])|((?:Collecting|Building|Installing|Preparing) .*))')


class SetupError(Exception):
    """Says in one line what is missing and what to do."""


def main(arguments):
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)
    try:
        check_python()
        operators = 'none' if arguments == ['demo'] else wanted_operators()
        if not up_to_date(operators):
            with locked():
                set_up(operators)
        return 0
    except SetupError as error:
        message = str(error)
    except OSError as error:
        message = no_space(error.filename) if error.errno == errno.ENOSPC else str(error)
    except KeyboardInterrupt:
        message = 'interrupted; the next run continues'
    print('setup: ' + message, file=sys.stderr)
    return 1


def set_up(operators):
    """The stamp is written at the very end only, and pip passes over what an interrupted run installed."""
    if up_to_date(operators):  # by the run that this one waited for
        return
    check_system(operators)
    if STAMP.exists():
        STAMP.unlink()
    if not venv_works():
        say(f'making .venv with Python {VERSION}')
        shutil.rmtree(str(VENV), ignore_errors=True)
        VENV.mkdir()
        hint = ' (Debian: apt install python3-venv)'
        run('making .venv' + hint, sys.executable, '-m', 'venv', VENV)
    say('installing torch, OpenMMLab and what they need')
    # In pip's build isolation mmcv sees no torch, and is built without operators.
    pip('install', '--no-deps', '-r', 'requirements.txt')
    # A CUDA build of torch needs the nvidia packages that it names, a CPU build nothing more.
    pip('install', '-c', 'requirements.txt', 'torch')
    if operators != 'none':
        say('installing what detectors and tests need')
        pip('install', '--no-deps', '--no-build-isolation', '-r', 'requirements-full.txt')
        install_operators(operators)
    # By its path: an import hook would lose to the folder of the clone, seen from the folder above it.
    compat = ('--config-settings', 'editable_mode=compat')
    pip('install', '--no-deps', '--no-build-isolation', *compat, '-e', '.')
    # pip was told not to compile Python files, one by one: for the demo the imported ones are enough.
    run('importing mmadn', PYTHON, '-c', 'import mmadn.evaluation.subnets')
    if operators != 'none':
        compile_all = f'import compileall; compileall.compile_dir({str(VENV / "lib")!r}, quiet=2, workers=0)'
        run('compiling Python files', PYTHON, '-c', compile_all)
    STAMP.write_text(f'{fingerprint()} {operators}\n')
    say(f'done; the full output is in {LOG}')


# What is there already, and what is asked for


def fingerprint():
    digest = hashlib.sha256(f'{ROOT} {VERSION}'.encode())
    for name in ('requirements.txt', 'requirements-full.txt', 'setup.py', 'tools/setup_env.py'):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def wanted_operators():
    """One of OPERATORS, or the path of the user's own wheel, which has operators of some kind."""
    if not os.environ.get('MMCV_WHEEL'):
        return 'cuda' if os.environ.get('FORCE_CUDA') == '1' else 'cpu'
    wheel = Path(os.environ['MMCV_WHEEL']).expanduser().resolve()
    name = 'onedl_mmcv-' + pinned('onedl-mmcv')
    if not (wheel.is_file() and wheel.name.startswith(name)):
        raise SetupError(f'MMCV_WHEEL={wheel} does not serve: give the path of a wheel {name}*.whl')
    return str(wheel)


def up_to_date(operators):
    if not (STAMP.is_file() and PYTHON.exists()):
        return False
    stamp, _, found = STAMP.read_text().strip().partition(' ')
    serves = found == operators
    if operators in OPERATORS:  # a wheel of the user's own serves everybody who does not name another
        serves = found not in OPERATORS[: OPERATORS.index(operators)]
    return serves and stamp == fingerprint()


def pinned(name):
    return re.search(f'^{name}==(.+)$', (ROOT / 'requirements.txt').read_text(), re.M).group(1)


def venv_works():
    code = f'import pip, sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})'
    return PYTHON.exists() and not subprocess.call([str(PYTHON), '-c', code], stderr=subprocess.DEVNULL)


def check_python():
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        raise SetupError(
            'Python {}.{}.{} found, but mmadn needs 3.10, 3.11 or 3.12: install one and name it, '
            'as in `make setup PYTHON=python3.11`'.format(*sys.version_info)
        )


def check_system(operators):
    """Before the downloads, when it is not known yet which build of torch will come."""
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    if free < GB and not any(VENV.glob('lib/python*/site-packages/torch')):
        raise SetupError(f'{ROOT} has {free:.1f} GB of free disk space, and about {GB} GB are needed')
    if operators in ('cpu', 'cuda') and not cached_wheel(pinned('torch') + '*', operators):
        check_compiler()


def check_compiler():
    """Returns the C++ compiler."""
    needed = "mmcv's operators must be compiled"
    compiler = os.environ.get('CXX') or 'c++'
    if not shutil.which(shlex.split(compiler)[0]):
        install = 'install one (Debian: apt install g++) or set CXX'
        raise SetupError(f'no C++ compiler {compiler} found, and {needed}: {install}')
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        install = 'install the headers (Debian: apt install python3-dev)'
        raise SetupError(f'Python.h of Python {VERSION} not found, and {needed}: {install}')
    return compiler


# mmcv's operators


def install_operators(operators):
    own = operators not in OPERATORS
    torch = subprocess.check_output([str(PYTHON), '-c', 'import torch; print(torch.__version__)'])
    torch = torch.decode().strip()
    wheel = operators if own else cached_wheel(torch, operators) or build_wheel(torch, operators)
    say(f'installing {wheel}')
    try:
        pip('install', '--no-deps', '--no-index', '--force-reinstall', wheel)
        run('importing mmcv._ext', PYTHON, '-c', 'import torch, mmcv._ext')
    except SetupError as error:
        if not own:
            wheel.unlink()
        remedy = 'give another' if own else 'it was removed, and the next run builds it anew'
        raise SetupError(f'the wheel {wheel} does not fit torch {torch}: {remedy} ({error})') from None


def wheel_folder(torch, operators):
    """Named by everything that a compiled wheel depends on."""
    python = 'cp' + VERSION.replace('.', '')
    key = f'mmcv{pinned("onedl-mmcv")}-torch{torch}-{python}-{platform.machine()}-{operators}'
    return CACHE / 'wheels' / key


def cached_wheel(torch, operators):
    """For a version of torch, which may hold a `*`; None if there is none."""
    folder = wheel_folder(torch, operators)
    return next(folder.parent.glob(f'{folder.name}/*.whl'), None)


def build_wheel(torch, operators):
    compiler, folder = check_compiler(), wheel_folder(torch, operators)
    build = folder / 'build'
    shutil.rmtree(str(build), ignore_errors=True)  # what a killed build left
    build.mkdir(parents=True)
    cores = len(os.sched_getaffinity(0))
    say(f"compiling mmcv's operators on {cores} cores; on two it takes about 9 minutes, once")
    env = {
        'PATH': f'{PYTHON.parent}:{os.environ["PATH"]}',  # for ninja
        'TMPDIR': str(build),
        'CXX': compiler,
        'MMCV_WITH_OPS': '1',
        'MAX_JOBS': os.environ.get('MAX_JOBS', str(cores)),
    }
    if operators == 'cpu':  # a visible GPU alone makes mmcv ask for nvcc
        env.update(FORCE_CUDA='0', CUDA_VISIBLE_DEVICES='')
    # Neither from nor into pip's own cache, which does not know with which operators a wheel was built.
    options = ('--no-deps', '--no-build-isolation', '--no-cache-dir', '--no-binary=onedl-mmcv', '--verbose')
    try:
        pip('wheel', *options, '-w', build, 'onedl-mmcv==' + pinned('onedl-mmcv'), **env)
        (wheel,) = build.glob('*.whl')
        return wheel.replace(folder / wheel.name)
    finally:
        shutil.rmtree(str(build), ignore_errors=True)


# Running things


def say(text):
    print('setup: ' + text, flush=True)


def interrupt(signum, frame):
    raise KeyboardInterrupt


@contextlib.contextmanager
def locked():
    """One set-up of a user at a time; the system drops the lock of a process that was killed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(str(CACHE / 'lock'), 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('waiting for another set-up')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pip(verb, *arguments, **env):
    command = (PYTHON, '-m', 'pip', '--disable-pip-version-check', verb)
    run(f'pip {verb}', *command, *arguments, PIP_NO_COMPILE='1', **env)


def run(what, *command, **env):
    """Runs with all output in the log, and every 10 seconds a line on how far it is."""
    command = [str(word) for word in command]
    env = dict(os.environ, **env)
    env.pop('PYTHONDONTWRITEBYTECODE', None)
    with open(str(LOG), 'a+', errors='replace') as log:
        print('\n$', *command, file=log, flush=True)
        begin, start = log.tell(), time.time()
        process = subprocess.Popen(
            command,
            cwd=str(ROOT),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group that can be stopped whole, ninja and its compilers too
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(HEARTBEAT)
                    break
                minutes, seconds = divmod(int(time.time() - start), 60)
                print(f'  {minutes}:{seconds:02d} {progress(log, begin)}', flush=True)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
        log.seek(begin)
        if process.returncode:
            raise SetupError(explain(what, log.read()))


def progress(log, begin):
    log.seek(begin)
    found = [match for match in map(PROGRESS.match, log) if match]
    if not found:
        return ''
    compiled, step = found[-1].groups()
    return f'{compiled} files compiled' if compiled else step.partition(' (')[0][:70]


def explain(what, output):
    """One line for the pages that pip printed."""
    if 'No space left on device' in output:
        return no_space()
    if 'connection broken by' in output and 'Failed to build' not in output:  # pip's words for any cause
        remedy = 'check the network, the proxy or PIP_INDEX_URL'
        return f'the package index could not be reached: {remedy} (full output: {LOG})'
    errors = re.findall(r'^\s*(?:ERROR|[Ff]atal error|error): *(\S.*)', output, re.M)
    reason = f' ({errors[-1].strip()})' if errors else ''
    return f'{what} failed{reason}; full output: {LOG}'


def no_space(place=None):
    return f'no space left on the disk of {place or f"{ROOT} or {CACHE}"}: a set-up needs about {GB} GB'


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
