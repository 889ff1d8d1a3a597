"""Comparisons of several trainings over several seeds: run in parallel, resumed where they stopped.

Each training and each test is one of the project's own commands in a process of its own. What stands in
the work dir of a seed is not done again.
"""

import itertools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from mmadn.errors import FailedError
from mmadn.evaluation.subnets import is_adaptive
from mmadn.utils.report import BLUE, GREY, VERMILION, machine, markdown_table, replacing, write_json

from .letters import write_letters
from .shapes import write_shapes


@dataclass
class Run:
    """One row of a study.

    Args:
        train (str): The config that is trained.
        test (str, optional): The config that its checkpoints are tested with, where another one is.
        trained (str, optional): The run whose checkpoints are tested; nothing is trained then.
        teacher (str, optional): The run whose checkpoint of the same seed teaches this one, as the config's
            first hook takes it. This and `trained` stand before the run in the study.
        options (tuple[str]): Settings that replace those of `train`, as `--cfg-options` takes them.
    """

    train: str
    test: str | None = None
    trained: str | None = None
    teacher: str | None = None
    options: tuple = ()


@dataclass
class Claim:
    """That one network is at least as good as another one; both as (run, skip).

    Args:
        text (str): In words.
        better, worse (tuple[str, str]): The skip of an ordinary network is empty.
    """

    text: str
    better: tuple
    worse: tuple


@dataclass
class Study:
    """Trainings that are compared.

    Args:
        runs (dict[str, Run]): By the names they have in the tables.
        skips (tuple[str]): The depths that adaptive networks are tested at.
        metrics (dict[str, str]): What is compared, as the evaluator calls it, and as the tables do.
        comparisons (dict[str, tuple[str]]): The runs of each table and picture, by its name; by default one
            of all.
        claims (tuple[Claim]): What is looked at seed by seed, in the first metric.
        prepare (Callable, optional): Writes the data, if they are not there.
    """

    runs: dict
    skips: tuple
    metrics: dict
    comparisons: dict = field(default_factory=dict)
    claims: tuple = ()
    prepare: Callable | None = None

    def __post_init__(self):
        self.comparisons = self.comparisons or {'study': tuple(self.runs)}


LETTERS = 'configs/demo/resnet50{}_letters.py'
LONG = (  # instead of 1000 iterations
    'train_cfg.max_iters=3600',
    'train_cfg.val_interval=400',
    'param_scheduler.0.end=540',
    'param_scheduler.1.begin=540',
    'param_scheduler.1.end=3600',
)


def _ablation(name):
    return Run(f'configs/ablation/resnet50_adn-{name}_letters.py')


def _claim(*sides):
    """That of a study: run and skip of the better network, run and skip of the other one."""
    better, worse = sides[:2], sides[2:]
    return Claim(' over '.join(' '.join(side).strip() for side in (better, worse)), better, worse)


STUDIES = {
    'detection': Study(
        runs={
            'adaptive': Run('configs/demo/mask_rcnn_r50adn_shapes.py'),
            'adaptive, without KL': Run('configs/demo/mask_rcnn_r50adn-no-kl_shapes.py'),
            # As an adaptive network its norms serve both depths: what skipping does without training for it.
            'individual, full': Run(
                'configs/demo/mask_rcnn_r50_shapes.py', test='configs/demo/mask_rcnn_r50adn_shapes.py'
            ),
            'individual, -base': Run('configs/demo/mask_rcnn_r50-base_shapes.py'),
        },
        skips=('FFFF', 'TTTT'),
        metrics={'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP'},
        prepare=partial(write_shapes, 'data/shapes'),
    ),
    'letters': Study(
        runs={
            'adaptive, long': Run(LETTERS.format('_adn'), options=LONG),
            'individual, full, long': Run(LETTERS.format(''), options=LONG),
            'individual, -base, long': Run(LETTERS.format('-base'), options=LONG),
            'distilled, -base, long': Run(
                LETTERS.format('-base_distilled'), teacher='individual, full, long', options=LONG
            ),
            'adaptive': Run(LETTERS.format('_adn')),
            'individual, full': Run(LETTERS.format('')),
            'individual, -base': Run(LETTERS.format('-base')),
            'individual, full, skipped': Run(
                LETTERS.format(''), test=LETTERS.format('_adn'), trained='individual, full'
            ),
            'neither': _ablation('neither'),
            'no self-distillation': _ablation('no-distillation'),
            'shared norms': _ablation('shared-norms'),
            'shared shortcuts': _ablation('shared-shortcuts'),
            'random teacher': _ablation('random-teacher'),
            'random student': _ablation('random-student'),
            'random both': _ablation('random-both'),
            'mandatory 1,1,2,1': _ablation('mandatory1121'),
            'mandatory 2,3,4,2': _ablation('mandatory2342'),
            'with features': _ablation('features'),
        },
        skips=('FFFF', 'TFFF', 'TTFF', 'TTTF', 'TTTT'),
        metrics={'accuracy/top1': 'top-1 (%)'},
        comparisons={
            'individual': (
                'adaptive, long',
                'individual, full, long',
                'individual, -base, long',
                'distilled, -base, long',
            ),
            'table3': (
                'individual, full',
                'individual, -base',
                'individual, full, skipped',
                'neither',
                'no self-distillation',
                'shared norms',
                'shared shortcuts',
                'adaptive',
                'with features',
            ),
            'table4': ('adaptive', 'random teacher', 'random student', 'random both'),
            'table7': ('mandatory 1,1,2,1', 'adaptive', 'mandatory 2,3,4,2'),
        },
        claims=(
            _claim('individual, full', '', 'individual, -base', ''),
            _claim('individual, full, long', '', 'individual, -base, long', ''),
            _claim('adaptive', 'TTTT', 'individual, -base', ''),
            _claim('adaptive', 'FFFF', 'individual, full', ''),
            _claim('adaptive, long', 'TTTT', 'individual, -base, long', ''),
            _claim('adaptive, long', 'FFFF', 'individual, full, long', ''),
            _claim('adaptive', 'TTTT', 'individual, full, skipped', 'TTTT'),
            *(
                _claim('adaptive', skip, run, skip)
                for run in (
                    'no self-distillation',
                    'shared norms',
                    'shared shortcuts',
                    'neither',
                    'random teacher',
                    'random student',
                    'random both',
                    'mandatory 1,1,2,1',
                    'mandatory 2,3,4,2',
                )
                for skip in ('FFFF', 'TTTT')
            ),
        ),
        prepare=partial(write_letters, 'data/letters'),
    ),
}


def default_jobs() -> int:
    """Trainings at a time: one a core, and at most four a GPU, if there is one."""
    gpus = torch.cuda.device_count()
    return min(os.cpu_count(), 4 * gpus) if gpus else os.cpu_count()


def run_study(study: Study, seeds, folder, jobs=None, budget=None) -> list[dict]:
    """Trains and tests every run with every seed, and shows what is done.

    Args:
        seeds (Sequence[int]): Of the trainings.
        folder (str | Path): Where the work dirs are, by run and seed.
        jobs (int, optional): How many trainings at a time, each on one thread; see `default_jobs`.
        budget (float, optional): Minutes. What would probably end later, by the longest run so far, is not
            begun; the next call begins it.

    Returns:
        list[dict]: For each run, seed and depth `run`, `seed`, `skip` (empty where there is one depth) and
        the metrics; of what the budget left out, nothing.

    Raises:
        RuntimeError: A training or a test failed; what its log file ends with.
    """
    if study.prepare:
        study.prepare()
    work = _Work(study, Path(folder), budget)
    tasks = [(name, seed) for seed in seeds for name in study.runs]
    done = 0
    with ThreadPoolExecutor(jobs or default_jobs()) as pool:
        for task in tasks:
            work.futures[task] = pool.submit(work.run, *task)
        tasks_of = {future: task for task, future in work.futures.items()}
        try:
            for future in as_completed(tasks_of):
                name, seed = tasks_of[future]
                done += 1
                state = '' if future.result() else ': left for later'
                minutes = (time.monotonic() - work.start) / 60
                print(f'{done}/{len(tasks)} {name}, seed {seed}{state} ({minutes:.1f} min)', flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [
        {'run': name, 'seed': seed, 'skip': row['skip'], **{m: row[m] for m in study.metrics}}
        for name, seed in tasks
        for row in work.futures[name, seed].result() or ()
    ]


class _Work:
    """What the threads of `run_study` share."""

    def __init__(self, study, folder, budget):
        self.study, self.folder = study, folder
        self.start, self.longest = time.monotonic(), 0
        self.end = math.inf if budget is None else self.start + 60 * budget
        self.futures, self.numbers = {}, itertools.count()

    def run(self, name, seed):
        run, work_dir = self.study.runs[name], self._work_dir(name, seed)
        report = work_dir / 'subnets.json'
        # What a run waits for was begun before it: nobody waits for what waits for a thread.
        there = all([self.futures[other, seed].result() for other in (run.trained, run.teacher) if other])
        if not report.exists():
            began = time.monotonic()
            if not there or began + self.longest > self.end:
                return None
            self._train_and_test(run, seed, work_dir)
            self.longest = max(self.longest, time.monotonic() - began)
        return json.loads(report.read_text())['subnets']

    def _train_and_test(self, run, seed, work_dir):
        gpus = torch.cuda.device_count()
        device = {'CUDA_VISIBLE_DEVICES': str(next(self.numbers) % gpus)} if gpus > 1 else {}
        trained = self._work_dir(run.trained, seed) if run.trained else work_dir
        if not run.trained:
            options = [f'randomness.seed={seed}', *run.options]
            if run.teacher:
                teacher = find_latest_checkpoint(self._work_dir(run.teacher, seed))
                options.append(f'custom_hooks.0.teacher.checkpoint={teacher}')
            arguments = ['--work-dir', work_dir, '--resume', '--cfg-options', *options]
            _command(work_dir, 'tools/train.py', run.train, *arguments, **device)
        test = run.test or run.train
        chosen = ['--skips', *self.study.skips] if is_adaptive(Config.fromfile(test)) else []
        arguments = [find_latest_checkpoint(trained), '--work-dir', work_dir, *chosen]
        _command(work_dir, 'tools/test_subnets.py', test, *arguments, **device)

    def _work_dir(self, name, seed):
        return self.folder / folder_name(name) / f'seed{seed}'


def folder_name(run: str) -> str:
    """What the folder of a run is called."""
    return re.sub(r'\W+', '-', run)


def _command(work_dir, *command, **environment):
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / 'study.log', 'a') as log:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'OMP_NUM_THREADS': '1', **environment},
        )
    if done.returncode:
        lines = (work_dir / 'study.log').read_text().splitlines()[-5:]
        raise FailedError('\n'.join([f'{" ".join(map(str, command))} failed; {log.name} ends:', *lines]))


def table(rows: list[dict], metrics: dict, runs=None) -> list[dict]:
    """Mean and standard deviation over the seeds, for each depth of each run, or of `runs` in their order."""
    groups = {}
    for row in _of(rows, runs):
        groups.setdefault((row['run'], row['skip']), []).append(row)
    return [
        {
            'run': name,
            'skip': skip,
            **{
                label: _mean_and_spread([row[metric] for row in group], label)
                for metric, label in metrics.items()
            },
            'seeds': str(len(group)),
        }
        for (name, skip), group in groups.items()
    ]


def _of(rows, runs):
    """The rows of `runs` in their order, or all."""
    return rows if runs is None else [row for run in runs for row in rows if row['run'] == run]


def _mean_and_spread(values, label, sign=''):
    digits = 2 if '%' in label else 3
    spread = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):{sign}.{digits}f}{spread}'


def judge(rows: list[dict], claims, metrics: dict) -> list[dict]:
    """How far each claim holds: the difference of its two sides, paired by seed, in the first metric."""
    metric, label = next(iter(metrics.items()))
    values = {((row['run'], row['skip']), row['seed']): row[metric] for row in rows}
    judged = []
    for claim in claims:
        differences = [
            value - values[claim.worse, seed]
            for (side, seed), value in values.items()
            if side == claim.better and (claim.worse, seed) in values
        ]
        if differences:
            held = sum(d >= 0 for d in differences)
            judged.append(
                {
                    'claim': claim.text,
                    f'difference in {label}': _mean_and_spread(differences, label, '+'),
                    'holds in': f'{held} of {len(differences)} seeds',
                }
            )
    return judged


def plot(rows: list[dict], metrics: dict, path) -> None:
    """Draws every seed as a dot and the means as bars, one panel a metric, as a PNG."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys((row['run'], row['skip']) for row in rows))
    figure = Figure(figsize=(5 * len(metrics) + 2, 1.2 + 0.28 * len(names)), layout='constrained')
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, (metric, label) in zip(panels, metrics.items(), strict=True):
        for place, key in enumerate(names):
            values = [row[metric] for row in rows if (row['run'], row['skip']) == key]
            axes.plot(values, [place] * len(values), 'o', color=BLUE, alpha=0.6, label='one seed')
            axes.plot([statistics.mean(values)], [place], '|', ms=12, mew=2, color=VERMILION, label='mean')
        for place in range(1, len(names)):
            if names[place][0] != names[place - 1][0]:
                axes.axhline(place - 0.5, color=GREY, lw=0.5)
        axes.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
        axes.set_yticks(range(len(names)), [f'{name} {skip}'.strip() for name, skip in names])
        axes.grid(axis='x', alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[:2], labels[:2], loc='outside upper right', ncols=2, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def write_report(rows: list[dict], study: Study, out, **about) -> None:
    """Writes `study.json`, a table and a picture of each comparison and `claims.md` into the folder `out`."""
    out = Path(out)
    write_json(out / 'study.json', {**about, 'machine': machine(), 'results': rows})
    for name, runs in study.comparisons.items():
        if chosen := _of(rows, runs):
            with replacing(out / f'{name}.md') as path:
                path.write_text(markdown_table(table(chosen, study.metrics)) + '\n')
            plot(chosen, study.metrics, out / f'{name}.png')
    if judged := judge(rows, study.claims, study.metrics):
        with replacing(out / 'claims.md') as path:
            path.write_text(markdown_table(judged) + '\n')
