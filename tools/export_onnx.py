import argparse
import signal
import sys
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from rich.console import Console

from mmadn import cli
from mmadn.datasets.checks import check_data
from mmadn.utils.report import print_table


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Write a network as ONNX, compared with torch. Of a classifier the output is its logits, '
        'before softmax. A detector is written whole, from images to boxes, labels and masks, and a '
        'segmentor whole, to the logits of all pixels.'
    )
    option = parser.add_argument
    option('config', type=cli.config_path, help='path, or packaged name, of the config')
    option('checkpoint', help='path of the checkpoint')
    option('out', help='the file to write')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--skip', help='a file of one depth, such as TTFF; by default that of the config')
    which.add_argument('--adaptive', action='store_true', help='one file of all depths, with an input skip')
    option(
        '--shape',
        nargs=3,
        type=int,
        metavar=('C', 'H', 'W'),
        help='of an image; by default what the config tests with',
    )
    option(
        '--features',
        action='store_true',
        help='of a detector or segmentor, the feature maps of backbone and neck alone',
    )
    option('--fixed-size', action='store_true', help='height and width are those of --shape and no others')
    option(
        '--int8',
        nargs='?',
        type=int,
        const=256,
        metavar='IMAGES',
        help="compute in eight bits, whose ranges so many images of the config's training data give, 32 or "
        'more and 256 by default; the heads of a detector stay in float',
    )
    option('--opset', type=int, help="of ONNX; by default torch's choice")
    option('--cfg-options', nargs='+', action=DictAction, default={}, help='settings that replace others')
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('stopped'))  # so that nothing half-written stays
    MMLogger.get_current_instance().setLevel('WARNING')  # no remarks on how it would be trained
    with cli.plain_errors():
        # Here, because they say in a plain error which packages are missing.
        from mmadn.deploy.onnx.export import export_file, table
        from mmadn.deploy.onnx.session import describe, open_session

        cfg = Config.fromfile(args.config)
        cli.merge_options(cfg, args.cfg_options)
        if args.int8 is not None:
            check_data(cfg, ('train',))
        with Console(stderr=True).status('loading') as status:
            rows = export_file(
                cfg,
                args.checkpoint,
                args.out,
                args.shape,
                skip=args.skip,
                adaptive=args.adaptive,
                dynamic=False if args.fixed_size else None,
                opset=args.opset,
                features=args.features,
                int8=args.int8,
                progress=status.update,
            )
        about = describe(open_session(args.out))
    size = f'{Path(args.out).stat().st_size / 1e6:.2f} MB'
    print_table(table(rows), title=f'{args.out}, {size}: {about["output"]} of {args.config}')
    if 'no_preprocess' in about and about['output'] != 'feature maps':
        print(f'A session takes normalised images alone for this file: {about["no_preprocess"]}.')
    if 'int8' in about:
        print(f'The ranges are those of {about["int8"]} images.')
        if about['output'] == 'detections':
            print('Detections are compared with what mmdet makes of the feature maps in eight bits.')
    if about['output'] == 'feature maps':
        print('These are the feature maps of backbone and neck; heads are not in the file.')


if __name__ == '__main__':
    main()
