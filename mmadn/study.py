"""Comparisons of several trainings over several seeds: run in parallel, resumed where they stopped.

Each training and each test is one of the project's own commands in a process of its own. What stands in
the work dir of a seed is not done again.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from .report import machine, markdown_table, replacing, write_json
from .subnets import is_adaptive


@dataclass
class Run:
    """One row of a study.

    Args:
        train (str): The config that is trained.
        test (str, optional): The config that its checkpoints are tested with, where another one is.
    """

    train: str
    test: str | None = None


@dataclass
class Study:
    """Trainings that are compared.

    Args:
        runs (dict[str, Run]): By the names they have in the table.
        skips (tuple[str]): The depths that adaptive networks are tested at.
        metrics (dict[str, str]): What is compared, as the evaluator calls it, and as the table does.
    """

    runs: dict
    skips: tuple
    metrics: dict


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
    ),
}


def run_study(study: Study, seeds, folder, jobs=None) -> list[dict]:
    """Trains and tests every run with every seed, and shows what is done.

    Args:
        seeds (Sequence[int]): Of the trainings.
        folder (str | Path): Where the work dirs are, by config and seed.
        jobs (int, optional): How many trainings at a time, each on one thread; by default one a core.

    Returns:
        list[dict]: For each run, seed and depth `run`, `seed`, `skip` (empty where there is one depth) and
        the metrics.

    Raises:
        RuntimeError: A training or a test failed; what its log file ends with.
    """
    tasks = [(name, run, seed) for seed in seeds for name, run in study.runs.items()]
    results, start = {}, time.monotonic()
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        futures = {
            pool.submit(_train_and_test, run, study.skips, seed, Path(folder)): (name, seed)
            for name, run, seed in tasks
        }
        try:
            for future in as_completed(futures):
                name, seed = futures[future]
                results[futures[future]] = future.result()
                minutes = (time.monotonic() - start) / 60
                print(f'{len(results)}/{len(tasks)} {name}, seed {seed} ({minutes:.1f} min)', flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [
        {'run': name, 'seed': seed, 'skip': row['skip'], **{m: row[m] for m in study.metrics}}
        for name, _, seed in tasks
        for row in results[name, seed]
    ]


def _train_and_test(run, skips, seed, folder):
    work_dir = folder / Path(run.train).stem / f'seed{seed}'
    report = work_dir / 'subnets.json'
    if not report.exists():
        arguments = ['--work-dir', work_dir, '--resume', '--cfg-options', f'randomness.seed={seed}']
        _command(work_dir, 'tools/train.py', run.train, *arguments)
        test = run.test or run.train
        chosen = ['--skips', *skips] if is_adaptive(Config.fromfile(test)) else []
        arguments = [find_latest_checkpoint(work_dir), '--work-dir', work_dir, *chosen]
        _command(work_dir, 'tools/test_subnets.py', test, *arguments)
    return json.loads(report.read_text())['subnets']


def _command(work_dir, *command):
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / 'study.log', 'a') as log:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
    if done.returncode:
        lines = (work_dir / 'study.log').read_text().splitlines()[-5:]
        raise RuntimeError('\n'.join([f'{" ".join(map(str, command))} failed; {log.name} ends:', *lines]))


def table(rows: list[dict], metrics: dict) -> list[dict]:
    """Mean and standard deviation over the seeds, for each run and depth."""
    groups = {}
    for row in rows:
        groups.setdefault((row['run'], row['skip']), []).append(row)
    return [
        {
            'run': name,
            'skip': skip,
            **{label: _mean_and_spread([row[metric] for row in group]) for metric, label in metrics.items()},
            'seeds': str(len(group)),
        }
        for (name, skip), group in groups.items()
    ]


def _mean_and_spread(values):
    spread = f' ± {statistics.stdev(values):.3f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.3f}{spread}'


def plot(rows: list[dict], metrics: dict, path) -> None:
    """Draws every seed as a dot and the means as bars, one panel a metric, as a PNG."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys((row['run'], row['skip']) for row in rows))
    figure = Figure(figsize=(5 * len(metrics), 1.2 + 0.4 * len(names)), layout='constrained')
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, (metric, label) in zip(panels, metrics.items(), strict=True):
        for place, key in enumerate(names):
            values = [row[metric] for row in rows if (row['run'], row['skip']) == key]
            axes.plot(values, [place] * len(values), 'o', color='#0072B2', alpha=0.6, label='one seed')
            axes.plot([statistics.mean(values)], [place], '|', ms=16, mew=2, color='#D55E00', label='mean')
        axes.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
        axes.set_yticks(range(len(names)), [f'{name} {skip}'.strip() for name, skip in names])
        axes.grid(axis='x', alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[:2], labels[:2], loc='outside upper right', ncols=2, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def write_report(rows: list[dict], study: Study, out, **about) -> None:
    """Writes `study.json`, `study.md` and `study.png` into the folder `out`."""
    out = Path(out)
    write_json(out / 'study.json', {**about, 'machine': machine(), 'results': rows})
    with replacing(out / 'study.md') as path:
        path.write_text(markdown_table(table(rows, study.metrics)) + '\n')
    plot(rows, study.metrics, out / 'study.png')
