import argparse

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

from mmadn import cli
from mmadn.deploy.extraction import COLUMNS, extract_file
from mmadn.utils.report import cells, print_table


def main():
    parser = argparse.ArgumentParser(
        description='Write one sub-network as an ordinary network without mmadn.'
    )
    parser.add_argument('config', type=cli.config_path, help='path, or packaged name, of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument('out', help='writes OUT.pth, the weights, and OUT.py, the config')
    parser.add_argument('--skip', required=True, help='which depth, such as TTFF or base')
    parser.add_argument(
        '--to',
        choices=['openmmlab', 'torchvision'],
        default='openmmlab',
        help='whose classes; for torchvision OUT.py has a function build()',
    )
    parser.add_argument(
        '--shape',
        nargs=3,
        type=int,
        metavar=('C', 'H', 'W'),
        help='of the image that is compared and counted; by default what the config tests with',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that replace those of the config',
    )
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')  # no remarks on how it would be trained
    with cli.plain_errors():
        cfg = Config.fromfile(args.config)
        cli.merge_options(cfg, args.cfg_options)
        rows = extract_file(cfg, args.checkpoint, args.out, args.skip, args.to, args.shape)
    print_table(cells(rows, COLUMNS), title=f'{args.out}: {args.skip} of {args.config}')


if __name__ == '__main__':
    main()
