import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mmadn  # noqa: F401  first, for torchvision
from benchmarks.parts import Part
from mmadn import cli
from mmadn.errors import FailedError
from mmadn.utils.report import machine, print_table, writable, write_json
from projects.paper.studies.letters import ADAPTIVE, BASE, FULL
from projects.paper.study import default_jobs, folder_name

CHECKPOINT = 'iter_3600.pth'  # the last one of the long trainings
REPORT = 'subnets.json'  # of every training, and written last


def main() -> None:
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
    start = time.monotonic()
    with cli.plain_errors():
        writable(args.out)
        lines = [run(part, args.out) for part in (study(args), *analyses(args.seeds, args.work_dir))]
    minutes = round((time.monotonic() - start) / 60, 1)
    about = dict(minutes=minutes, jobs=args.jobs, seeds=args.seeds, machine=machine(), commands=lines)
    write_json(f'{args.out}/evidence.json', about)
    print_table([{k: line[k] for k in ('part', 'done')} for line in lines], title=f'In {minutes} minutes')
    print(f'{args.out}/evidence.json has the commands')


def study(args: argparse.Namespace) -> Part:
    budget = [] if args.budget is None else ['--budget', args.budget]
    options = ['--work-dir', f'{args.work_dir}/letters', '--jobs', args.jobs, '--seeds', *args.seeds, *budget]
    return Part('letters', ['tools/study.py', 'letters', *options])


def analyses(seeds: Sequence[int], work_dir: str) -> list[Part]:
    """The figures and tables that are made of the trainings, one or more in `work_dir` for each seed."""

    def files(name: str, *runs: str) -> list[Path]:
        return [
            Path(work_dir, 'letters', folder_name(run), f'seed{seed}', name) for run in runs for seed in seeds
        ]

    def pareto(name: str, title: str, series: dict[str, Sequence[str]]) -> Part:
        paths = {label: files(REPORT, *runs) for label, runs in series.items()}
        arguments = [f'{label}={",".join(map(str, found))}' for label, found in paths.items()]
        command = ['tools/analysis/pareto.py', '--title', title, *arguments]
        return Part(name, command, [path for found in paths.values() for path in found])

    adaptive, plain = files(CHECKPOINT, 'adaptive, long'), files(CHECKPOINT, 'individual, full, long')
    letters = [f'data/letters/test/{letter}/0000.png' for letter in 'AKR']
    configs = ['--adaptive', ADAPTIVE, '--full', FULL, '--base', BASE]
    return [
        Part(
            'table2',
            ['tools/analysis/epoch_cost.py', *configs, *'--threads 1 --clock cpu --rounds 20'.split()],
        ),
        Part(
            'fig3',
            ['tools/analysis/residuals.py', ADAPTIVE, *adaptive, '--against', *plain],
            [*adaptive, *plain],
        ),
        pareto(
            'fig4b',
            'One network and individual ones',
            {
                'sub-networks of one': ['adaptive, long, calibrated'],
                'individual': ['individual, full, long', 'individual, -base, long'],
                'individually distilled': ['distilled, -base, long'],
            },
        ),
        pareto(
            'depths/resnet50',
            'All depths of a narrow ResNet50',
            {
                'as trained': ['adaptive, long'],
                'calibrated': ['adaptive, long, calibrated'],
                'fine-tuned from stock': ['fine-tuned'],
            },
        ),
        pareto(
            'depths/mobilenetv2',
            'All depths of a narrow MobileNetV2',
            {'as trained': ['MobileNetV2'], 'calibrated': ['MobileNetV2, calibrated']},
        ),
        pareto(
            'fig7',
            'Mandatory blocks of ViT',
            {'mandatory 2,2,2,2': ['ViT'], 'mandatory 1,1,1,1': ['ViT, mandatory 1,1,1,1']},
        ),
        Part('fig5', ['tools/analysis/curves.py', adaptive[0].parent], files(REPORT, 'adaptive, long')[:1]),
        pareto(
            'fig6b',
            'Mandatory blocks of ResNet50',
            {
                'mandatory 1,1,2,1': ['mandatory 1,1,2,1'],
                'mandatory 2,2,3,2': ['adaptive'],
                'mandatory 2,3,4,2': ['mandatory 2,3,4,2'],
            },
        ),
        Part('fig8', ['tools/analysis/cam.py', ADAPTIVE, adaptive[0], *letters], adaptive[:1]),
    ]


def run(part: Part, out: str | None = None) -> dict:
    """Runs a part, or leaves it out if a training that it needs is not done; a row that says which.

    Args:
        out: The folder in which the part's results get theirs; by default where the tool writes them.
    """
    if out is not None:
        part = replace(part, command=[*part.command, '--out', f'{out}/{part.name}'])
    print(f'\n{part.line}', flush=True)
    missing = next((path for path in part.needs if not path.exists()), None)
    if missing:
        print(f'left out, as the trainings are not all done: {missing} is missing', flush=True)
    elif part.run():
        raise FailedError(f'{part.name} failed: {part.line}')
    return {'part': part.name, 'done': 'no' if missing else 'yes', 'command': part.line}


if __name__ == '__main__':
    main()
