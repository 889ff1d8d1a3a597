import os
import shlex
import sys
from argparse import Namespace

from mmengine.config import Config
from mmengine.device import get_device

from mmadn import cli
from mmadn.datasets import use_data
from mmadn.datasets.checks import check_weights
from mmadn.engine.training import last_checkpoint, resume, say, train
from mmadn.errors import InputError
from mmadn.utils.report import replacing
from mmadn.utils.schedule import set_epochs

SCALED = ('train_cfg.', 'default_hooks.', 'param_scheduler', 'optim_wrapper.', 'train_dataloader.batch_size')


def main() -> None:
    parser = cli.config_parser('Train a model, on the data of its config or on your own.')
    parser.add_argument(
        '--data',
        nargs='+',
        metavar='PATH',
        help='your own data: a folder of class folders, or for a detector a file in the format of COCO; a '
        'second one for validation, or a fifth of the first',
    )
    parser.add_argument(
        '--images', nargs='+', default=(), metavar='FOLDER', help='of annotation files, if not beside them'
    )
    parser.add_argument('--classes', nargs='+', help='of your data, if not all')
    parser.add_argument('--epochs', type=int, help='instead of those of the config; its schedule is scaled')
    parser.add_argument('--load-from', metavar='CHECKPOINT', help='weights to start from')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint; without a path, from the last one in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the actual batch size; always done with --data',
    )
    parser.add_argument('--verbose', action='store_true', help='show all that the log file has')
    args = parser.parse_args()
    if len(args.data or ()) > 2 or len(args.images) > 2:
        parser.error('--data and --images take one path, or one for training and one for validation')
    if (args.classes or args.images) and not args.data:
        parser.error('--classes and --images are of your own data: give --data too')
    if args.amp and get_device() == 'cpu':
        parser.error('--amp needs a GPU, and this machine has none that torch can use')
    with cli.plain_errors():
        cfg = configured(cli.load_config(args), args)
        try:
            runner = train(cfg, args.verbose)
        except KeyboardInterrupt:
            sys.exit(stopped(cfg, args))
    test = sys.argv[0].replace('train', 'test_subnets' if sys.argv[0].endswith('.py') else 'test-subnets')
    if checkpoint := last_checkpoint(runner.work_dir):
        paths = [config_of(cfg, args), os.path.relpath(checkpoint)]
        say([f'All depths: {run(test)} {shlex.join(paths)}'])


def configured(cfg: Config, args: Namespace) -> Config:
    """The config with what the arguments change; one for own data becomes a file in the work dir."""
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr and 'auto_scale_lr' not in cfg:
        raise InputError(f'--auto-scale-lr: {args.config} does not say auto_scale_lr.base_batch_size')
    if args.auto_scale_lr:
        cfg.auto_scale_lr.enable = True
    if args.load_from:
        cfg.load_from = args.load_from
    if args.epochs is not None:
        set_epochs(cfg, args.epochs)
    if args.data:
        check_weights(cfg)  # before anything is written
        data = use_data(cfg, *args.data, classes=args.classes, images=args.images)
    # What --epochs and --data have scaled, the user may have said otherwise.
    said = {name: value for name, value in args.cfg_options.items() if name.startswith(SCALED)}
    cfg.merge_from_dict(said)
    if args.data:
        path = f'{cfg.work_dir}/config.py'
        with replacing(path) as temporary:  # several processes write it
            cfg.dump(temporary)
        cfg = Config.fromfile(path)
        say([*data.remarks, f'Config: {path}, to be edited and trained again'])
    if args.resume:
        resume(cfg, args.resume)
    return cfg


def config_of(cfg: Config, args: Namespace) -> str:
    return f'{cfg.work_dir}/config.py' if args.data else args.config


def stopped(cfg: Config, args: Namespace) -> str:
    """What to say after Ctrl-C: with which command the training goes on."""
    if not last_checkpoint(cfg.work_dir):
        return 'Stopped before the first checkpoint: there is nothing to resume'
    arguments = [config_of(cfg, args)] if args.data else sys.argv[1:]
    if '--resume' not in arguments:
        arguments = [*arguments, '--resume']
    return f'Stopped. To go on from the last checkpoint: {run(sys.argv[0])} {shlex.join(arguments)}'


def run(tool: str) -> str:
    """How a tool is called: a script by Python, a command by its name."""
    return f'python {tool}' if tool.endswith('.py') else tool


if __name__ == '__main__':
    main()
