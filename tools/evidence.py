import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import mmadn  # noqa: F401  first, for torchvision
from mmadn import cli
from mmadn.report import machine, print_table, writable, write_json
from mmadn.study import default_jobs

ADAPTIVE, FULL, BASE, VIT = (
    'resnet50_adn_letters',
    'resnet50_letters',
    'resnet50-base_letters',
    'vit_adn_letters',
)
ABLATION = 'resnet50_adn-{}_letters'
CHECKPOINT = 'iter_1200.pth'  # the last one of these configs


def main():
    parser = argparse.ArgumentParser(
        description='Run the small-scale study of the paper and all analyses of it; goes on where it stopped.'
    )
    option = parser.add_argument
    option('--seeds', nargs='+', type=int, default=[0, 1, 2])
    option('--jobs', type=int, default=default_jobs(), help='trainings at a time')
    option(
        '--budget', type=float, help='minutes for trainings; what does not fit in is left for the next run'
    )
    option('--work-dir', default='work_dirs/study/letters', help='of the trainings')
    option('--out', default='docs/evidence', help='folder of the results')
    args = parser.parse_args()
    os.chdir(Path(__file__).parents[1])
    start, lines = time.monotonic(), []
    with cli.plain_errors((OSError, RuntimeError)):
        writable(args.out)
        study = ['study.py', 'letters', '--work-dir', args.work_dir, '--out', f'{args.out}/letters']
        study += ['--jobs', args.jobs, '--seeds', *args.seeds]
        lines.append(run('study', [*study, *(['--budget', args.budget] if args.budget else [])]))
        for name, command in analyses(args.seeds, args.work_dir).items():
            lines.append(run(name, [*command, '--out', f'{args.out}/{name}']))
    minutes = round((time.monotonic() - start) / 60, 1)
    about = dict(minutes=minutes, jobs=args.jobs, seeds=args.seeds, machine=machine(), commands=lines)
    write_json(f'{args.out}/evidence.json', about)
    print_table(lines, title=f'{args.out}, in {minutes} minutes')


def analyses(seeds, work_dir) -> dict:
    """The command of each figure and table that is made of the trainings."""

    def runs(config, name):
        return [f'{work_dir}/{config}/seed{seed}/{name}' for seed in seeds]

    def series(label, *configs):
        return f'{label}={",".join(path for config in configs for path in runs(config, "subnets.json"))}'

    adaptive, full, base = (f'configs/demo/{name}.py' for name in (ADAPTIVE, FULL, BASE))
    pareto = 'analysis/pareto.py'
    return {
        'table2': ['analysis/epoch_cost.py', '--adaptive', adaptive, '--full', full, '--base', base]
        + ['--threads', '1', '--rounds', '20'],
        'fig3': ['analysis/residuals.py', adaptive, *runs(ADAPTIVE, CHECKPOINT)]
        + ['--against', *runs(FULL, CHECKPOINT)],
        'fig4b': [
            pareto,
            series('sub-networks of one', ADAPTIVE),
            series('individual', FULL, 'resnet50-ttff_letters', BASE),
            series('individually distilled', *(f'resnet50-{n}_distilled_letters' for n in ('ttff', 'base'))),
        ],
        'fig5': ['analysis/curves.py', f'{work_dir}/{ADAPTIVE}/seed{seeds[0]}'],
        'fig6b': [
            pareto,
            series('mandatory 1,1,2,1', ABLATION.format('mandatory1121')),
            series('mandatory 2,2,3,2', ADAPTIVE),
            series('mandatory 2,3,4,2', ABLATION.format('mandatory2342')),
        ],
        'fig7b': [
            pareto,
            series('one block of three skippable', VIT),
            series('two blocks of three skippable', 'vit_adn-mandatory1111_letters'),
        ],
        'fig8': ['analysis/cam.py', adaptive, runs(ADAPTIVE, CHECKPOINT)[0]]
        + [f'data/letters/test/{letter}/0000.png' for letter in 'AKR'],
    }


def run(name, command) -> dict:
    """Runs one of the project's commands; the row of the table says how it went."""
    line = shlex.join(['python', f'tools/{command[0]}', *map(str, command[1:])])
    print(f'\n{line}', flush=True)
    missing = [part for part in inputs(command) if not Path(part).exists()]
    if missing:
        print(f'left out, as the trainings are not all done: {missing[0]} is not there', flush=True)
    elif subprocess.run([sys.executable, *shlex.split(line)[1:]]).returncode:
        raise RuntimeError(f'{name} failed: {line}')
    return {'part': name, 'done': 'no' if missing else 'yes', 'command': line}


def inputs(command) -> list[str]:
    """The files of trainings that a command reads."""
    parts = [part for word in map(str, command) for part in word.partition('=')[2].split(',') + [word]]
    return [part for part in parts if part.endswith(('.pth', 'subnets.json'))]


if __name__ == '__main__':
    main()
