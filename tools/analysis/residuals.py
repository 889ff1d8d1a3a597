import argparse
from pathlib import Path

import torch
from mmengine.config import Config, DictAction

from mmadn import cli
from mmadn.datasets.checks import check_data
from mmadn.utils.report import print_table, writable
from projects.paper.residuals import measure_networks
from projects.paper.residuals_report import QUANTITIES, block_table, summary_table, write_report


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Measure what each residual block adds: how much, and whether along -dL/dh.'
    )
    option = parser.add_argument
    option('config', help='path of the config of a classifier with adaptive depth')
    option('checkpoints', nargs='+', help='its weights; several are the seeds of one network')
    option(
        '--against',
        nargs='+',
        default=[],
        metavar='CHECKPOINT',
        help='seeds of the plain network',
    )
    option('--skips', nargs='+', default=['super', 'base'], help='depths; by default FFFF TTTT')
    option('--images', type=int, default=512, help='of the test data; by default 512')
    option('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='cpu, cuda or cuda:N')
    option('--out', help='folder of the results; by default work_dirs/<name of the config>')
    option('--cfg-options', nargs='+', action=DictAction, default={}, help='settings that replace others')
    args = parser.parse_args()
    if args.images < 1:
        parser.error(f'--images {args.images}: give a whole number from 1 on')
    out = args.out or f'work_dirs/{Path(args.config).stem}'
    with cli.plain_errors():
        cfg = Config.fromfile(args.config)
        cli.merge_options(cfg, args.cfg_options)
        check_data(cfg, ('test',))
        writable(out)
        rows = measure_networks(cfg, args.checkpoints, args.against, args.skips, args.images, args.device)
        write_report(rows, out, config=args.config)
    for quantity, name in QUANTITIES.items():
        print_table(block_table(rows, quantity), title=f'{name} (in parentheses: if not skipped)')
    print_table(summary_table(rows), title=f'{args.config}, means over the blocks')
    print(f'{out}/residuals.{{json,md,png}}')


if __name__ == '__main__':
    main()
