import argparse
import os
import shlex
import sys
from pathlib import Path

from mmadn import cli
from mmadn.utils.report import print_table
from projects.paper import study


def main():
    parser = argparse.ArgumentParser(
        description='Train and test all of a comparison with several seeds; goes on where it stopped.'
    )
    parser.add_argument(
        'name',
        choices=study.STUDIES,
        help='letters: the ablations on drawn letters; detection: Mask R-CNN on drawn shapes',
    )
    parser.add_argument(
        '--seeds', nargs='+', type=int, default=[0, 1, 2], help='of every training; by default 0 1 2'
    )
    parser.add_argument(
        '--jobs', type=int, default=study.default_jobs(), help='trainings at a time, by default one a core'
    )
    parser.add_argument(
        '--budget', type=float, help='minutes; what would not end in them is left for the next call'
    )
    parser.add_argument('--work-dir', help='of the trainings; by default work_dirs/study/NAME')
    parser.add_argument('--out', help='folder of the table and the picture; by default the work dir')
    args = parser.parse_args()
    os.chdir(Path(__file__).parents[1])
    work_dir = args.work_dir or f'work_dirs/study/{args.name}'
    chosen = study.STUDIES[args.name]
    with cli.plain_errors():
        rows = study.run_study(chosen, args.seeds, work_dir, args.jobs, args.budget)
        command = shlex.join(['python', *sys.argv])
        study.write_report(rows, chosen, args.out or work_dir, command=command)
    for name, runs in chosen.comparisons.items():
        if found := study.table(rows, chosen.metrics, runs):
            print_table(found, title=f'{name}: mean and standard deviation')
    if judged := study.judge(rows, chosen.claims, chosen.metrics):
        print_table(judged, title='claims, seed by seed')
    print(f'{args.out or work_dir}/study.json, and a table and a picture of each comparison')


if __name__ == '__main__':
    main()
