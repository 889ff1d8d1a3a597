import argparse
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

from mmadn import cli
from mmadn.evaluation.timing import CLOCKS
from mmadn.utils.report import print_table, writable
from projects.paper.epoch_cost import NAMES, epoch_cost
from projects.paper.epoch_cost_report import remarks, tables, write_report


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Measure what an epoch of self-distillation costs beside separate trainings of the full '
        'and the base network. No data are needed, in one process.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    for role, name in NAMES.items():
        option(f'--{role}', required=True, metavar='CONFIG', help=f'config of the network: {name}')
    option('--rounds', type=int, default=10, help='each runs a step of all three')
    option('--warmup', type=int, default=2, help='rounds before these, not counted')
    option('--batch', type=int, help='images; without it as many as the configs train with')
    option(
        '--shape',
        type=int,
        nargs=3,
        metavar=('C', 'H', 'W'),
        help='of an image; without it what the training pipeline makes',
    )
    option('--images', type=int, help="of an epoch; without it ImageNet's, or those of the training data")
    option('--device', default='cpu', help='cpu, cuda or cuda:N')
    option('--threads', type=int, default=torch.get_num_threads(), help='of the operators')
    option('--clock', choices=CLOCKS, default='wall', help='cpu: processor time')
    option('--out', help='folder of the results; without it work_dirs/<name of the adaptive config>')
    option(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that replace those of all three configs',
    )
    args = parser.parse_args()
    if args.threads < 1:
        parser.error(f'--threads {args.threads}: give a whole number from 1 on')
    torch.set_num_threads(args.threads)
    MMLogger.get_current_instance().setLevel('WARNING')  # no line for each parameter that is not decayed
    out = args.out or f'work_dirs/{Path(args.adaptive).stem}'
    paths = {role: getattr(args, role) for role in NAMES}
    with cli.plain_errors():
        configs = {role: Config.fromfile(path) for role, path in paths.items()}
        for cfg in configs.values():
            cli.merge_options(cfg, args.cfg_options)
        writable(out)
        report = epoch_cost(
            configs,
            args.rounds,
            args.warmup,
            args.batch,
            args.shape,
            args.images,
            args.device,
            args.clock,
        )
        write_report(report, out, configs=paths)
    networks, ratios = tables(report)
    print_table(networks, title=args.adaptive)
    print_table(ratios)
    print('\n'.join(remarks(report)))
    print(f'{out}/epoch_cost.{{json,md,png}}')


if __name__ == '__main__':
    main()
