"""Runs the scripts of this repository, each in a process of its own that need not import torch again."""

import multiprocessing
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

# A server imports what takes long, once, and every script runs in a fork of it.
_server = multiprocessing.get_context('forkserver')
_server.set_forkserver_preload(['mmadn', 'mmdet.apis', 'mmpretrain', 'mmadn.cli'])


class Done(NamedTuple):
    stdout: str
    stderr: str


def run(*command: object, code: int = 0, timeout: float = 300) -> Done:
    """Runs `python COMMAND` in the root of the repository, on one thread.

    Args:
        *command: The script and its arguments.
        code: The exit code that it must have.
        timeout: Seconds, after which it is killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder, name) for name in ('out', 'err'))
        process = _start(command, out, err)
        process.join(timeout)
        process.kill()
        process.join()
        done = Done(out.read_text(), err.read_text())
    assert process.exitcode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def kill_when(happened: Callable[[], bool], *command: object, timeout: float = 200) -> None:
    """Runs a script and kills it as soon as something has happened, which must be before it ends."""
    process, give_up = _start(command, Path(os.devnull), Path(os.devnull)), time.monotonic() + timeout
    try:
        while not happened():
            assert process.is_alive() and time.monotonic() < give_up
            time.sleep(0.1)
    finally:
        process.kill()
        process.join()


def _start(command: tuple, out: Path, err: Path) -> BaseProcess:
    process = _server.Process(target=_run, args=([*map(str, command)], dict(os.environ), out, err))
    process.start()
    return process


def _run(command: list[str], environment: dict[str, str], out: Path, err: Path) -> None:
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    sys.argv = command
    sys.path.insert(0, str(ROOT / command[0]).rpartition('/')[0])
    runpy.run_path(command[0], run_name='__main__')
