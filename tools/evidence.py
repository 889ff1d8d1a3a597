import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import mmadn  # noqa: F401  first, for torchvision
from mmadn import cli
from mmadn.errors import FailedError
from mmadn.utils.report import machine, print_table, writable, write_json
from projects.paper.study import default_jobs, folder_name

ADAPTIVE = 'configs/demo/resnet50_adn_letters.py'
FULL, BASE = 'configs/demo/resnet50_letters.py', 'configs/demo/resnet50-base_letters.py'
CHECKPOINT = 'iter_3600.pth'  # the last one of the long trainings


def main():
    parser = argparse.ArgumentParser(
        description='Run the small-scale study of the paper, trainings of over an hour on two cores, and all '
        'analyses of it. Trainings that are done are kept.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option('--seeds', nargs='+', type=int, default=[0, 1, 2], help='of every training')
    option('--jobs', type=int, default=default_jobs(), help='trainings at a time')
    option(
        '--budget', type=float, help='minutes for trainings; what does not fit in is left for the next run'
    )
    option('--work-dir', default='work_dirs/study', help='of the trainings')
    option('--out', default='docs/evidence', help='folder of the results')
    args = parser.parse_args()
    os.chdir(Path(__file__).parents[1])
    start, lines = time.monotonic(), []
    with cli.plain_errors():
        writable(args.out)
        lines.append(run('letters', study(args)))
        for name, command in analyses(args.seeds, args.work_dir).items():
            lines.append(run(name, [*command, '--out', f'{args.out}/{name}'], args.work_dir))
    minutes = round((time.monotonic() - start) / 60, 1)
    about = dict(minutes=minutes, jobs=args.jobs, seeds=args.seeds, machine=machine(), commands=lines)
    write_json(f'{args.out}/evidence.json', about)
    print_table([{k: line[k] for k in ('part', 'done')} for line in lines], title=f'In {minutes} minutes')
    print(f'{args.out}/evidence.json has the commands')


def study(args) -> list:
    command = [
        'study.py',
        'letters',
        '--work-dir',
        f'{args.work_dir}/letters',
        '--out',
        f'{args.out}/letters',
    ]
    command += ['--jobs', args.jobs, '--seeds', *args.seeds]
    return command if args.budget is None else [*command, '--budget', args.budget]


def analyses(seeds, work_dir) -> dict:
    """The command of each figure and table that is made of the trainings."""

    def files(name, run):
        return [f'{work_dir}/letters/{folder_name(run)}/seed{seed}/{name}' for seed in seeds]

    def series(label, *runs):
        return f'{label}={",".join(path for run in runs for path in files("subnets.json", run))}'

    checkpoints = files(CHECKPOINT, 'adaptive, long')
    pareto = ['analysis/pareto.py', '--title']
    return {
        'table2': ['analysis/epoch_cost.py', '--adaptive', ADAPTIVE, '--full', FULL, '--base', BASE]
        + ['--threads', '1', '--clock', 'cpu', '--rounds', '20'],
        'fig3': ['analysis/residuals.py', ADAPTIVE, *checkpoints]
        + ['--against', *files(CHECKPOINT, 'individual, full, long')],
        'fig4b': [
            *pareto,
            'One network and individual ones',
            series('sub-networks of one', 'adaptive, long'),
            series('individual', 'individual, full, long', 'individual, -base, long'),
            series('individually distilled', 'distilled, -base, long'),
        ],
        'fig5': ['analysis/curves.py', Path(checkpoints[0]).parent],
        'fig6b': [
            *pareto,
            'Mandatory blocks of ResNet50',
            *(
                series(f'mandatory {counts}', run)
                for counts, run in (
                    ('1,1,2,1', 'mandatory 1,1,2,1'),
                    ('2,2,3,2', 'adaptive'),
                    ('2,3,4,2', 'mandatory 2,3,4,2'),
                )
            ),
        ],
        'fig8': ['analysis/cam.py', ADAPTIVE, checkpoints[0]]
        + [f'data/letters/test/{letter}/0000.png' for letter in 'AKR'],
    }


def run(name, command, work_dir=None) -> dict:
    """Runs one of the project's commands; the row of the table says how it went.

    With a `work_dir`, it is left out if a training there is not done that it reads.
    """
    line = shlex.join(['python', f'tools/{command[0]}', *map(str, command[1:])])
    print(f'\n{line}', flush=True)
    missing = next((path for path in inputs(command, work_dir) if not path.exists()), None)
    if missing:
        print(f'left out, as the trainings are not all done: {missing} is not there', flush=True)
    elif subprocess.run([sys.executable, *shlex.split(line)[1:]]).returncode:
        raise FailedError(f'{name} failed: {line}')
    return {'part': name, 'done': 'no' if missing else 'yes', 'command': line}


def inputs(command, work_dir) -> list[Path]:
    """What a command reads of the trainings in `work_dir`; of a whole one, what is written last."""
    words = ' '.join(map(str, command)).replace('=', ' ').replace(',', ' ').split()
    paths = [Path(word) for word in words if work_dir and word.startswith(f'{work_dir}/')]
    return [path if path.suffix else path / 'subnets.json' for path in paths]


if __name__ == '__main__':
    main()
