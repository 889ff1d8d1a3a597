"""Comparisons of several trainings over several seeds: run in parallel, and resumed where they stopped.

Each training and each test is one of the project's own commands in a process of its own, started in the
repository's root. What stands in the work dir of a run and a seed is not done again.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from mmadn.errors import FailedError, InputError
from mmadn.evaluation.subnets import is_adaptive
from mmadn.utils.cores import available_cores


@dataclass(frozen=True)
class Run:
    """A network of a study: one row of its tables for each depth.

    Args:
        config: What is trained and tested.
        test_config: What the checkpoint is tested with instead.
        weights_of: The run whose checkpoint of the same seed is tested; nothing is trained then.
        calibrated: Whether the norms of that checkpoint are calibrated for every depth before the test.
        teacher: The run whose checkpoint of the same seed teaches or starts this one. The config finds its
            path in the environment variable TEACHER.
        alone: The depth at which the adaptive backbone of `config` is trained and tested, as an individual
            network of its own.
    """

    config: str
    test_config: str | None = None
    weights_of: str | None = None
    calibrated: bool = False
    teacher: str | None = None
    alone: str | None = None


@dataclass(frozen=True)
class Claim:
    """That one network is at least as good as another one, each given as (run, skip).

    The skip of an ordinary network is empty.
    """

    better: tuple[str, str]
    worse: tuple[str, str]

    def __str__(self) -> str:
        return ' over '.join(' '.join(side).strip() for side in (self.better, self.worse))


@dataclass(frozen=True)
class Study:
    """Trainings that are compared.

    Args:
        runs: By the names that they have in the tables. One that another run needs stands before it.
        skips: The depths at which adaptive networks are tested; None for all.
        metrics: What is compared: as the evaluator calls it, and as the tables do.
        comparisons: The runs of each table and picture, by its name; by default one, "study", of all runs.
        shown: The depths of adaptive networks that the comparisons show; by default those that are tested.
        claims: What is looked at seed by seed, in the first metric.
        prepare: Writes the data if they are missing.
    """

    runs: dict[str, Run]
    skips: tuple[str, ...] | None
    metrics: dict[str, str]
    comparisons: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shown: tuple[str, ...] | None = None
    claims: Sequence[Claim] = ()
    prepare: Callable[[], None] = lambda: None

    def __post_init__(self):
        object.__setattr__(self, 'comparisons', self.comparisons or {'study': tuple(self.runs)})

    def only(self, comparisons: Sequence[str]) -> 'Study':
        """The part of the study that makes some of its comparisons.

        Raises:
            ValueError: There is no such comparison.
        """
        for name in comparisons:
            if name not in self.comparisons:
                raise InputError(f'no comparison {name!r}: choose from {", ".join(self.comparisons)}')
        needed = {run for name in comparisons for run in self.comparisons[name]}
        for name in reversed(self.runs):  # what a run needs stands before it
            if name in needed:
                needed |= {self.runs[name].weights_of, self.runs[name].teacher}
        return replace(
            self,
            runs={name: run for name, run in self.runs.items() if name in needed},
            comparisons={name: self.comparisons[name] for name in comparisons},
            claims=[claim for claim in self.claims if {claim.better[0], claim.worse[0]} <= needed],
        )


def default_jobs() -> int:
    """Trainings at a time: one for each core, and at most four for each GPU where there are any."""
    return min(available_cores(), 4 * torch.cuda.device_count() or available_cores())


def folder_name(run: str) -> str:
    """The folder of a run in the work dir of its study."""
    return re.sub(r'\W+', '-', run)


def run_study(
    study: Study,
    seeds: Sequence[int],
    folder: str | Path,
    jobs: int | None = None,
    budget: float | None = None,
) -> list[dict]:
    """Trains and tests every run with every seed, and prints a line for each that is done.

    Args:
        seeds: Of the trainings.
        folder: Where the work dirs are, by run and seed.
        jobs: How many trainings at a time, each on one thread; see `default_jobs`.
        budget: Minutes. A training that would probably end later, judged by the longest one so far, is not
            begun; the next call begins it.

    Returns:
        For each run, seed and depth `run`, `seed`, `skip` (empty where there is one depth), `gflops` and the
        metrics; nothing of what the budget left out.

    Raises:
        RuntimeError: A training or a test failed; the message has the end of its log file.
    """
    study.prepare()
    work = _Work(study, Path(folder), _Budget(budget))
    futures: dict[tuple[str, int], Future] = {}
    with ThreadPoolExecutor(jobs or default_jobs()) as pool:
        for seed in seeds:
            for name, run in study.runs.items():
                # What a run needs was submitted before it: no thread waits for a run that has no thread yet.
                needed = [futures[other, seed] for other in (run.weights_of, run.teacher) if other]
                futures[name, seed] = pool.submit(work.results, name, seed, needed)
        try:
            _show_progress(futures, work.budget)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [
        {
            'run': name,
            'seed': seed,
            'skip': '' if study.runs[name].alone else row['skip'],
            **{key: row[key] for key in ('gflops', *study.metrics)},
        }
        for (name, seed), future in futures.items()
        for row in future.result() or ()
    ]


def _show_progress(futures: dict, budget: '_Budget') -> None:
    names = {future: f'{name}, seed {seed}' for (name, seed), future in futures.items()}
    for done, future in enumerate(as_completed(names), 1):
        state = ': left for later' if future.result() is None else ''
        print(f'{done}/{len(names)} {names[future]}{state} ({budget.elapsed():.1f} min)', flush=True)


class _Budget:
    """Tells whether one more training would probably end within some minutes from now on."""

    def __init__(self, minutes: float | None):
        self.minutes, self.start, self.longest = minutes, time.monotonic(), 0.0

    def elapsed(self) -> float:
        """Minutes."""
        return (time.monotonic() - self.start) / 60

    def allows_another(self) -> bool:
        return self.minutes is None or self.elapsed() + self.longest < self.minutes


class _Work:
    """What the threads of `run_study` do."""

    def __init__(self, study: Study, folder: Path, budget: _Budget):
        self.study, self.folder, self.budget, self.gpus = study, folder, budget, cycle(_gpus())

    def results(self, name: str, seed: int, needed: list[Future]) -> list[dict] | None:
        """The tests of a run and a seed, made now if they are missing; None if the budget forbids that."""
        needs_are_met = all([future.result() is not None for future in needed])  # waits for every one
        report = self.work_dir(name, seed) / 'subnets.json'  # which is written last
        if not report.exists():
            if not needs_are_met or not self.budget.allows_another():
                return None
            start = self.budget.elapsed()
            self.train_and_test(name, seed)
            self.budget.longest = max(self.budget.longest, self.budget.elapsed() - start)
        return json.loads(report.read_text())['subnets']

    def train_and_test(self, name: str, seed: int) -> None:
        run, work_dir, gpu = self.study.runs[name], self.work_dir(name, seed), next(self.gpus)
        device = {} if gpu is None else {'CUDA_VISIBLE_DEVICES': gpu}
        common = ['--work-dir', str(work_dir)]
        if not run.weights_of:
            teacher = {'TEACHER': self.checkpoint(run.teacher, seed)} if run.teacher else {}
            options = [*common, '--resume', '--cfg-options', f'randomness.seed={seed}', *_alone(run)]
            _command(work_dir, 'tools/train.py', run.config, *options, **device, **teacher)
        config = run.test_config or run.config
        depths = (run.alone,) if run.alone else self.study.skips
        chosen = depths is not None and is_adaptive(Config.fromfile(config))
        skips = ['--skips', *depths] if chosen else []
        checkpoint = self.checkpoint(run.weights_of or name, seed)
        if run.calibrated:
            trained, checkpoint = checkpoint, str(work_dir / 'calibrated.pth')
            _command(work_dir, 'tools/calibrate_norms.py', config, trained, checkpoint, **device)
        _command(work_dir, 'tools/test_subnets.py', config, checkpoint, *common, *skips, **device)

    def checkpoint(self, name: str, seed: int) -> str:
        return find_latest_checkpoint(self.work_dir(name, seed))

    def work_dir(self, name: str, seed: int) -> Path:
        return self.folder / folder_name(name) / f'seed{seed}'


def _alone(run: Run) -> list[str]:
    """What `mmengine.Config` is given to train one depth, as the detection configs named -base do."""
    if not run.alone:
        return []
    backbone = [f'model.backbone.skip={run.alone}', 'model.backbone.fixed=True']
    return [*backbone, 'custom_hooks=[]', f'val_cfg.skips=[{run.alone}]']


def _gpus() -> list[str | None]:
    """Values of CUDA_VISIBLE_DEVICES that trainings get in turn; None leaves it as it is."""
    count, visible = torch.cuda.device_count(), os.environ.get('CUDA_VISIBLE_DEVICES')
    return (visible.split(',') if visible else list(map(str, range(count)))) if count > 1 else [None]


def _command(work_dir: Path, *command: str, **environment: str) -> None:
    work_dir.mkdir(parents=True, exist_ok=True)
    log = work_dir / 'study.log'
    with open(log, 'a') as file:
        done = subprocess.run(
            [sys.executable, *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'OMP_NUM_THREADS': '1', **environment},
        )
    if done.returncode:
        lines = log.read_text().splitlines()[-5:]
        raise FailedError('\n'.join([f'{" ".join(command)} failed; {log} ends:', *lines]))
