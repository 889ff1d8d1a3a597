import argparse

from mmadn import cli
from mmadn.utils.report import print_table
from projects.paper import curves


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Draw the validation of each depth over the course of a training, also of one that runs.'
    )
    parser.add_argument('work_dir', help='of the training')
    parser.add_argument('--skips', nargs='+', help='depths such as FFFF TTFF; by default all in the log')
    parser.add_argument('--metric', help='such as accuracy/top1; by default the first one in the log')
    parser.add_argument('--out', help='folder of the results; by default the work dir')
    args = parser.parse_args()
    out = args.out or args.work_dir
    with cli.plain_errors():
        log = curves.read_log(args.work_dir)
        metric = args.metric or log.metrics[0]
        found = log.curves(metric, args.skips)
        curves.write_report(found, metric, out, log.unit, work_dir=args.work_dir)
    print_table(curves.table(found, log.unit), title=f'{args.work_dir}, {metric}')
    print(f'{out}/curves.{{json,png}}')


if __name__ == '__main__':
    main()
