import argparse
from functools import partial

import torch
from mmengine.config import Config

from mmadn import cli
from mmadn.checkpoint.files import load_model
from mmadn.evaluation import profile, table
from mmadn.evaluation.flops import default_shape
from mmadn.utils.report import print_table, writable

progress = partial(print, flush=True)  # a line now and then, also into a pipe


def main():
    parser = argparse.ArgumentParser(
        description='Measure latency, GFLOPs, memory and energy of the sub-networks on this machine.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    cli.add_model_arguments(parser)
    option = parser.add_argument
    option('--batch', type=int, default=1, help='images')
    option('--skips', nargs='+', default='all', help='depths such as FFFF TTFF')
    option('--accuracies', help='a subnets.json of tools/test_subnets.py for this network')
    option('--spread', type=float, default=0.02, help='ends when all medians are known so well')
    option('--rounds', type=int, default=50, help='at least; each runs every depth once')
    option('--max-seconds', type=float, default=300, help='ends the rounds in any case')
    args = parser.parse_args()
    if args.threads < 1:
        parser.error(f'--threads {args.threads}: give a whole number from 1 on')
    torch.set_num_threads(args.threads)
    with cli.plain_errors():
        cfg = Config.fromfile(args.config)
        cli.merge_options(cfg, args.cfg_options)
        out = cli.results_folder(cfg, args.config, args.out)
        args.shape = args.shape or default_shape(cfg)
        known = args.accuracies and table.read_report(args.accuracies)
        model = load_model(cfg, args.checkpoint, args.device)
        if known:  # refused before the minutes of measuring, not after
            table.check(table.read_table(known['subnets']), model)
        writable(out)
        report = profile.profile_subnets(
            model,
            args.shape,
            args.batch,
            args.dtype,
            args.skips,
            args.spread,
            args.rounds,
            args.max_seconds,
            clock=args.clock,
            progress=progress,
        )
        if known:
            report['tested_gflops_ratio'] = table.gflops_ratio(known, report)
            report['subnets'] = table.join(report['subnets'], known, args.config, args.checkpoint)
        report = profile.write_profile(report, out, config=args.config, checkpoint=args.checkpoint)
    print_table(profile.profile_table(report['subnets']), title=args.config)
    print('\n'.join(profile.remarks(report)))
    print(f'{out}/profile.{{json,md,png}}')


if __name__ == '__main__':
    main()
