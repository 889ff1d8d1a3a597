import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

from mmadn import cli
from mmadn.checkpoint.files import load_model
from mmadn.errors import InputError
from mmadn.utils.report import print_table, writable
from projects.paper import cam, cam_report


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Draw where the blocks of a stage see evidence for a class, at several depths.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option('config', help='path of the config of a classifier with adaptive depth')
    option('checkpoint', help='path of the checkpoint')
    option('images', nargs='+', metavar='image', help='path of an image')
    option('--stage', type=int, default=3, help='of those that have a skippable sub-path, from 1 on')
    option('--skips', nargs='+', default=['super', 'base'], help='depths such as FFFF TTFF')
    option('--category', help='name or number of a class; without it what each depth predicts')
    option('--method', choices=cam.METHODS, default='gradcam', help='of the library grad-cam')
    option('--device', default='cpu', help='cpu, cuda or cuda:N')
    option('--out', help='folder of the results; by default work_dirs/<name of the config>')
    option('--cfg-options', nargs='+', action=DictAction, default={}, help='settings that replace others')
    args = parser.parse_args()
    out = args.out or f'work_dirs/{Path(args.config).stem}'
    with cli.plain_errors():
        cam.grad_cam()  # fails at once where it is not installed
        cfg = Config.fromfile(args.config)
        if 'head' not in cfg.model:
            raise InputError(
                f'{args.config} is of a {cfg.model.type}; give one of a classifier, as in configs/adn/'
            )
        cli.merge_options(cfg, args.cfg_options)
        images = [cam.read_image(cfg, path) for path in args.images]
        model = load_model(cfg, args.checkpoint, args.device)
        writable(out)
        settings = dict(stage=args.stage, method=args.method)
        results = [
            cam.activation_maps(model, image, skips=args.skips, category=args.category, **settings)
            for image in images
        ]
        about = dict(config=args.config, checkpoint=args.checkpoint)
        report = cam_report.write_report(model, images, results, out, paths=args.images, **settings, **about)
    print_table(cam_report.predictions_table(report), title=args.config)
    print_table(cam_report.blocks_table(report), title=f'Maps of {args.method}, meaned over the images')
    if any(len({depth['category'] for depth in image['depths']}) > 1 for image in report['images']):
        print('Of some images the depths predict, and their maps are of, different classes: see --category')
    print(f'{out}/cam.{{json,png}}')


if __name__ == '__main__':
    main()
