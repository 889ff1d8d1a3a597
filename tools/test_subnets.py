from mmengine.dist import is_main_process

from mmadn import cli
from mmadn.datasets.checks import check_data
from mmadn.evaluation import subnets
from mmadn.utils.report import print_table


def main():
    parser = cli.config_parser('Test sub-networks of a checkpoint and draw their Pareto front.')
    parser.add_argument('checkpoint', help='path of the checkpoint, or of an ONNX file made of it')
    parser.add_argument('--skips', nargs='+', default='all', help='depths such as FFFF TTFF; by default all')
    args = parser.parse_args()
    with cli.plain_errors():
        cfg = cli.load_config(args)
        check_data(cfg, ('test',))
        rows = subnets.evaluate_subnets(cfg, args.checkpoint, args.skips)
    if is_main_process():
        subnets.write_report(rows, cfg.work_dir, config=args.config, checkpoint=args.checkpoint)
        print_table(subnets.table(rows), title=f'{args.config}, {args.checkpoint}')
        print(f'{cfg.work_dir}/subnets.{{json,md,png}}')


if __name__ == '__main__':
    main()
