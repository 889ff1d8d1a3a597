import argparse

from mmadn import cli
from mmadn.utils.report import print_table, writable
from projects.paper import pareto


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Draw the Pareto fronts of several sets of networks in one picture.'
    )
    option = parser.add_argument
    option(
        'series',
        nargs='+',
        metavar='LABEL=FILE[,FILE...]',
        help='files that tools/test_subnets.py wrote, or a quoted glob; files of the same depths are seeds',
    )
    option('--cost', default='gflops', help='gflops, latency_ms or params; by default gflops')
    option('--metric', help='such as accuracy/top1; by default the first one of the files')
    option('--title', help='of the picture')
    option('--out', default='work_dirs/pareto', help='folder of the results; by default work_dirs/pareto')
    args = parser.parse_args()
    with cli.plain_errors():
        files = pareto.files_of(args.series)
        points, metric = pareto.read_points(files, args.cost, args.metric)
        writable(args.out)
        pareto.write_report(points, args.cost, metric, args.out, args.title, files=files)
    networks, differences = pareto.tables(points, args.cost, metric)
    print_table(networks, title=args.title)
    if differences:
        print_table(differences)
    print(f'{args.out}/pareto.{{json,md,png}}')


if __name__ == '__main__':
    main()
