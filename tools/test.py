from mmadn import cli
from mmadn.checkpoint.files import load_weights
from mmadn.datasets.checks import check_data, check_loops
from mmadn.engine.quiet import quiet_runner
from mmadn.evaluation.subnets import subnet_test_cfg


def main() -> None:
    parser = cli.config_parser('Test a checkpoint; tools/test_subnets.py compares all depths.')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument('--skip', nargs='+', help='depths such as TTFF; by default those of the config')
    args = parser.parse_args()
    with cli.plain_errors():
        cfg = cli.load_config(args)
        check_data(cfg, ('test',))
        if args.skip:
            cfg.test_cfg = subnet_test_cfg(cfg, args.skip)
        runner = quiet_runner(cfg)
        check_loops(runner, ('test',))
        load_weights(runner, args.checkpoint)
        runner.test()


if __name__ == '__main__':
    main()
