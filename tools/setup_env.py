"""Sets up the project's own virtual environment in .venv; called by `make setup`.

Needs Python 3.10 to 3.12 and, where no compiled mmcv is cached yet, a C++ compiler. Everything that
is missing is named in one line. Standard library only, and syntax that Python 3.6 parses, so that
a Python that is too old is told so as well.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
LOG = VENV / 'setup.log'
STAMP = VENV / '.mmadn-setup'

OLDEST, NEWEST = (3, 10), (3, 12)
VENV_GB, BUILD_GB = 6, 1  # with torch's CUDA packages; mmcv's object files take 0.3 GB on a CPU
STEPS = 5
HEARTBEAT = 10  # seconds

NETWORK = re.compile(
    'connection broken by|Max retries exceeded|NewConnectionError|ConnectTimeout|ReadTimeout'
    '|NameResolutionError|Connection refused|ProxyError|SSLError|[Ff]ailed to connect'
)


class SetupError(Exception):
    """Says in one line what is missing and what to do."""


def main():
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)
    try:
        check_python()
        if up_to_date():
            say('.venv is up to date')
        else:
            set_up()
        return 0
    except SetupError as error:
        message = str(error)
    except OSError as error:
        message = no_space(error.filename) if error.errno == errno.ENOSPC else str(error)
    except KeyboardInterrupt:
        message = 'interrupted; the next run continues'
    print('setup: ' + message, file=sys.stderr)
    return 1


def set_up():
    """A stamp is written at the very end only, so an interrupted set-up is taken up again."""
    pins = requirements()
    rest = [f'{name}=={pins[name]}' for name in pins if name not in ('torch', 'onedl-mmcv')]
    check_system(pins)
    with contextlib.suppress(FileNotFoundError):
        STAMP.unlink()

    step(1, f'virtual environment .venv (Python {python_version()})')
    if venv_version() != python_version():
        shutil.rmtree(str(VENV), ignore_errors=True)
        VENV.mkdir()
        run('creating .venv', [sys.executable, '-m', 'venv', str(VENV)])
    step(2, f'torch {pins["torch"]}')
    # With its dependencies: a CUDA build needs the nvidia packages that it names.
    pip('install', '-c', 'requirements.txt', 'setuptools', 'wheel', 'ninja', 'psutil', 'torch')
    step(3, f'{len(rest)} packages of requirements.txt')
    # Without: opencv-python (needs libGL) and a second torch must not come in.
    pip('install', '--no-deps', '--no-build-isolation', *rest)
    step(4, f'mmcv {pins["onedl-mmcv"]} with its compiled operators')
    install_mmcv(pins['onedl-mmcv'])
    step(5, 'mmadn itself')
    # By its path: an import hook would lose to the folder of the clone, seen from the folder above it.
    compat = ('--config-settings', 'editable_mode=compat')
    pip('install', '--no-deps', '--no-build-isolation', *compat, '-e', '.')

    STAMP.write_text(f'{fingerprint()} {operators()}\n')
    say(f'done; the full output is in {LOG}')


# What is there already


def requirements():
    """Name to version, as pinned in requirements.txt."""
    text = (ROOT / 'requirements.txt').read_text()
    return dict(re.findall(r'^([\w.-]+)==(\S+)', text, re.M))


def python_version():
    return '{}.{}'.format(*sys.version_info)


def venv_version():
    """Python version of .venv, or None where there is none that runs and has pip."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return venv_python('import pip, sys; print("{}.{}".format(*sys.version_info))')


def venv_python(code):
    command = [str(PYTHON), '-c', code]
    return subprocess.check_output(command, stderr=subprocess.DEVNULL).decode().strip()


def fingerprint():
    digest = hashlib.sha256(f'{ROOT} {python_version()}'.encode())
    for name in ('requirements.txt', 'setup.py', 'tools/setup_env.py'):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def operators():
    """'cuda' where the user asked for mmcv's CUDA operators, else 'cpu'."""
    return 'cuda' if os.environ.get('FORCE_CUDA') == '1' else 'cpu'


def up_to_date():
    """CUDA operators, once asked for, also serve a later run that does not ask."""
    stamps = [f'{fingerprint()} {kind}' for kind in {operators(), 'cuda'}]
    return STAMP.is_file() and STAMP.read_text().strip() in stamps and venv_version() == python_version()


# What the machine must have


def check_python():
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise SetupError(
            'Python {}.{}.{} found, but mmadn needs 3.10, 3.11 or 3.12: install one and name it, '
            'as in `make setup PYTHON=python3.11`'.format(*sys.version_info)
        )


def check_system(pins):
    if not (importlib.util.find_spec('venv') and importlib.util.find_spec('ensurepip')):
        raise SetupError(
            f'the venv module of {sys.executable} is incomplete: install it '
            '(Debian: apt install python3-venv)'
        )
    if not any(VENV.glob('lib/python*/site-packages/torch')):
        check_space(ROOT, VENV_GB)
    # The full version of torch is not known yet: early is better than after the download.
    if find_wheel(cache_folder(pins['onedl-mmcv'], pins['torch'] + '*')) is None:
        check_compiler()


def check_compiler():
    """Returns the C++ compiler."""
    asked = os.environ.get('CXX')
    compiler = asked or next(filter(shutil.which, ('c++', 'g++')), None)
    if compiler is None:
        raise SetupError(
            "no C++ compiler found, and mmcv's operators must be compiled: install one "
            '(Debian: apt install g++) or set CXX'
        )
    if not shutil.which(shlex.split(compiler)[0]):
        raise SetupError(f'the C++ compiler of CXX was not found: {compiler}')
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        raise SetupError(
            f"Python.h of Python {python_version()} not found, and mmcv's operators must be "
            'compiled: install the headers (Debian: apt install python3-dev)'
        )
    return compiler


def check_space(folder, wanted):
    free = shutil.disk_usage(str(folder)).free / 1e9
    if free < wanted:
        raise SetupError(
            f'not enough disk space: {folder} has {free:.1f} GB free, and about {wanted} GB are needed'
        )


# mmcv


def install_mmcv(version):
    try:
        torch_version = venv_python('import torch; print(torch.__version__)')
    except subprocess.CalledProcessError:
        raise SetupError('torch cannot be imported in .venv: delete .venv and run it again') from None
    wheel = cached_wheel(version, torch_version)
    pip('install', '--no-deps', '--no-index', '--force-reinstall', str(wheel))
    try:
        run('importing mmcv._ext', [str(PYTHON), '-c', 'import torch, mmcv._ext'])
    except SetupError:
        wheel.unlink()
        raise SetupError(
            f'mmcv._ext cannot be imported ({LOG} says why): its wheel was removed from '
            f'{wheel.parent}, and the next run builds it anew'
        ) from None


def cached_wheel(version, torch_version):
    """The compiled wheel of the per-user cache, built if it is not there yet."""
    folder = cache_folder(version, torch_version)
    wheel = find_wheel(folder)
    if wheel is None:
        compiler = check_compiler()
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            wheel = find_wheel(folder) or build_wheel(version, folder, compiler)
    say(f'      {wheel}')
    return wheel


def cache_folder(version, torch_version):
    """Named by everything that a compiled wheel depends on; the build never sees another's."""
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    tag = 'cp{}{}'.format(*sys.version_info)
    key = f'mmcv{version}-torch{torch_version}-{tag}-{platform.machine()}-{operators()}'
    return Path(cache) / 'mmadn' / 'wheels' / key


def find_wheel(folder):
    """The wheel in a folder whose name may hold a `*`."""
    return next(folder.parent.glob(f'{folder.name}/*.whl'), None)


@contextlib.contextmanager
def locked(folder):
    """One build at a time; the system drops the lock of a process that was killed."""
    with open(str(folder / '.lock'), 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('      another set-up is building it; waiting')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_wheel(version, folder, compiler):
    """Called with the folder locked, so any other build folder is what a killed build left."""
    for left in folder.glob('build-*'):
        shutil.rmtree(str(left), ignore_errors=True)
    check_space(folder, BUILD_GB)
    cores = len(os.sched_getaffinity(0))
    say(f'      compiling on {cores} cores; on two it takes about 9 minutes, once')

    build = Path(tempfile.mkdtemp(prefix='build-', dir=str(folder)))
    env = dict(
        os.environ,
        PATH=f'{PYTHON.parent}{os.pathsep}{os.environ["PATH"]}',  # for ninja
        TMPDIR=str(build),
        CXX=compiler,
        MMCV_WITH_OPS='1',
        MAX_JOBS=os.environ.get('MAX_JOBS', str(cores)),
    )
    if operators() == 'cpu':
        # A visible GPU alone makes mmcv ask for nvcc.
        env.update(FORCE_CUDA='0', CUDA_VISIBLE_DEVICES='')
    # pip's own cache does not know with which operators a wheel was built.
    options = ['--no-deps', '--no-build-isolation', '--no-cache-dir', '--no-binary=onedl-mmcv']
    try:
        wheels = build / 'wheels'
        requirement = f'onedl-mmcv=={version}'
        progress = functools.partial(compiled, build)
        pip('wheel', *options, '-w', str(wheels), requirement, env=env, progress=progress)
        (wheel,) = wheels.glob('*.whl')
        final = folder / wheel.name
        os.replace(str(wheel), str(final))
        return final
    finally:
        shutil.rmtree(str(build), ignore_errors=True)


def compiled(build):
    """', 12 of 78 files compiled', or nothing before ninja starts."""
    for plan in build.glob('**/build.ninja'):
        total = len(re.findall(r'^build .*\.o:', plan.read_text(), re.M))
        return f', {len(list(plan.parent.glob("**/*.o")))} of {total} files compiled'
    return ''


# Running things


def step(number, text):
    say(f'[{number}/{STEPS}] {text}')


def say(text):
    print(text, flush=True)


def interrupt(signum, frame):
    raise KeyboardInterrupt


def pip(verb, *arguments, env=None, progress=None):
    command = [str(PYTHON), '-m', 'pip', '--disable-pip-version-check', verb, *arguments]
    run('pip ' + verb, command, env, progress)


def run(what, command, env=None, progress=None):
    """Runs with all output in the log, and a line on the screen every 10 seconds."""
    with open(str(LOG), 'ab+') as log:
        log.write('\n$ {}\n'.format(' '.join(command)).encode())
        log.flush()
        begin = log.tell()
        start = time.time()
        process = subprocess.Popen(
            command,
            cwd=str(ROOT),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that stop() reaches ninja too
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(HEARTBEAT)
                except subprocess.TimeoutExpired:
                    minutes, seconds = divmod(int(time.time() - start), 60)
                    say(f'      {minutes}:{seconds:02d}{progress() if progress else ""}')
        finally:
            stop(process)
        if process.returncode:
            log.seek(begin)
            raise SetupError(explain(what, log.read().decode(errors='replace')))


def stop(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)  # ninja, told so, ends its compilers
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def explain(what, output):
    """One line for the pages that pip printed."""
    if 'No space left on device' in output:
        return no_space()
    if NETWORK.search(output) and 'Failed to build' not in output:
        return (
            'the package index could not be reached: check the network, the proxy or '
            f'PIP_INDEX_URL (full output: {LOG})'
        )
    errors = re.findall(r'^\s*(?:ERROR|[Ff]atal error|error): *(\S.*)', output, re.M)
    reason = f' ({errors[-1].strip()})' if errors else ''
    return f'{what} failed{reason}; full output: {LOG}'


def no_space(place=None):
    return 'no space left on the disk of {}: a set-up needs about {} GB, a build {} GB more'.format(
        place or f'{ROOT} or {tempfile.gettempdir()}', VENV_GB, BUILD_GB
    )


if __name__ == '__main__':
    sys.exit(main())
