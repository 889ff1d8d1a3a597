import argparse
import os
import shlex
import sys
from pathlib import Path

from mmadn import cli
from mmadn.utils.report import print_table
from projects.paper.studies import STUDIES
from projects.paper.study import default_jobs, run_study
from projects.paper.study_report import claims_table, compared, depths_table, table, write_report


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Train and test all of a comparison with several seeds; goes on where it stopped.'
    )
    option = parser.add_argument
    option(
        'name',
        choices=STUDIES,
        help='letters: networks and ablations on drawn letters; on drawn shapes, detection: Mask R-CNN, '
        'rtmdet: RTMDet, segmentation: PSPNet',
    )
    option('--only', nargs='+', help='comparisons, by their names; by default all')
    option('--seeds', nargs='+', type=int, default=[0, 1, 2], help='of every training; by default 0 1 2')
    option('--jobs', type=int, default=default_jobs(), help='trainings at a time, by default one a core')
    option('--budget', type=float, help='minutes; what would not end in them is left for the next call')
    option('--work-dir', help='of the trainings; by default work_dirs/study/NAME')
    option('--out', help='folder of the table and the picture; by default the work dir')
    args = parser.parse_args()
    os.chdir(Path(__file__).parents[1])
    study, work_dir = STUDIES[args.name], args.work_dir or f'work_dirs/study/{args.name}'
    out = args.out or work_dir
    with cli.plain_errors():
        study = study.only(args.only) if args.only else study
        rows = run_study(study, args.seeds, work_dir, args.jobs, args.budget)
        write_report(rows, study, out, command=shlex.join(['python', *sys.argv]))
    for name, group in compared(rows, study).items():
        print_table(table(group, study.metrics), title=f'{name}: mean and standard deviation')
    if depths := depths_table(rows, study.metrics):
        print_table(depths, title='all depths')
    if claims := claims_table(rows, study.claims, study.metrics):
        print_table(claims, title='claims, seed by seed')
    print(f'{out}/study.json, and a table and a picture of each comparison')


if __name__ == '__main__':
    main()
