import argparse
import os
import sys
from functools import partial
from pathlib import Path

import mmadn  # noqa: F401  first, for torchvision
from benchmarks import report
from benchmarks.networks import CONFIGS
from mmadn import cli


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Measure what each depth costs on a device, and write one page of it. What is there '
        'already is kept. The exit status is 1 if a part failed.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option('--device', default='cpu', help='cpu, cuda or cuda:N')
    option('--arch', choices=[name for name in CONFIGS if name != 'tiny'], default='resnet50', help='network')
    option('--small', action='store_true', help='try the report out: a tiny network, two rounds')
    names = ', '.join(part.name for part in report.device_parts('cpu', 'resnet50', False, ''))
    of = f'these parts, also if they are there: {names}, and on a GPU more'
    option('--only', nargs='+', default=[], metavar='PART', help=of)
    option('--minutes', type=float, default=15, help='of all parts; the rest is left for the next run')
    option(
        '--out',
        help='folder of the results; by default docs/benchmarks/<name of the device>, and with --small '
        'work_dirs/report/<name of the device>',
    )
    args = parser.parse_args()
    with cli.plain_errors():
        cli.check_device(args.device)
        folder = 'work_dirs/report' if args.small else 'docs/benchmarks'
        default = f'{folder}/{report.folder_name(report.device_name(args.device))}'
        out = os.path.relpath(args.out, report.ROOT) if args.out else default
        os.chdir(report.ROOT)
        settings = (args.device, args.arch, args.small, out, args.only, args.minutes)
        good = report.make(*settings, tell=partial(print, flush=True))
    print(Path(out, 'README.md'))
    sys.exit(0 if good else 1)


if __name__ == '__main__':
    main()
