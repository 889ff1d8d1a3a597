import argparse

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmadn import cli
from mmadn.evaluation import flops
from mmadn.utils.report import print_table


def main():
    parser = argparse.ArgumentParser(description='Count the FLOPs and parameters of a network at its depths.')
    parser.add_argument(
        'config',
        type=cli.config_path,
        help='path, or packaged name, of the config of a classifier or detector, of an ordinary one too',
    )
    parser.add_argument(
        '--shape',
        nargs=3,
        type=int,
        metavar=('C', 'H', 'W'),
        help='of an image; by default what the config tests with, such as 3 224 224',
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--skip', nargs='+', help='depths such as TTFF; by default super-net and base-net')
    which.add_argument('--all', action='store_const', const='all', dest='skip', help='all depths')
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')  # no remarks on how it would be trained
    with cli.plain_errors():
        cfg = Config.fromfile(args.config)
        shape = args.shape or flops.default_shape(cfg)
        rows = flops.measure(cfg, shape, args.skip)
    title = f'{args.config}, {"x".join(map(str, shape))}'
    print_table(flops.table(rows, args.config, shape), title=title)


if __name__ == '__main__':
    main()
