from mmengine.device import get_device
from mmengine.runner import Runner

from mmadn import cli
from mmadn.datasets.checks import check_classes, check_data


def main():
    parser = cli.config_parser('Train a model.')
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
        help='scale the learning rate to the actual batch size',
    )
    args = parser.parse_args()
    with cli.plain_errors():
        cfg = cli.load_config(args)
        check_data(cfg, ('train', 'val'))
        if args.amp and get_device() == 'cpu':
            parser.error('--amp needs a GPU, and this machine has none that torch can use')
        if args.amp:
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
            cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
        if args.auto_scale_lr and 'auto_scale_lr' not in cfg:
            parser.error(f'--auto-scale-lr: {args.config} does not say auto_scale_lr.base_batch_size')
        if args.auto_scale_lr:
            cfg.auto_scale_lr.enable = True
        if args.resume:
            cfg.resume = True
            cfg.load_from = None if args.resume == 'auto' else args.resume
        runner = Runner.from_cfg(cfg)
        check_classes(runner.train_loop)
        runner.train()


if __name__ == '__main__':
    main()
