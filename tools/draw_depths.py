"""Draws what one detector finds at several depths, side by side, as one would in a notebook."""

import argparse
import warnings

import mmadn  # noqa: F401  before mmdet imports torchvision

# isort: split
import mmcv
import numpy as np
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config

from mmadn.cli import config_path, plain_errors
from mmadn.depth import adaptive_backbone
from mmadn.errors import InputError
from mmadn.evaluation.flops import complexity
from mmadn.utils.report import drawing


def main():
    parser = argparse.ArgumentParser(description='Draw what a detector finds at several depths.')
    parser.add_argument('config', type=config_path, help='path, or packaged name, of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument('images', nargs='*', help="paths of images; by default scikit-image's cup of coffee")
    parser.add_argument('--skips', nargs='+', default=['FFFF', 'TTTT'], help='depths; by default FFFF TTTT')
    parser.add_argument(
        '--out', default='work_dirs/depths.png', help='the PNG; by default work_dirs/depths.png'
    )
    parser.add_argument('--score-thr', type=float, default=0.5, help='what scores less is not drawn')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    with plain_errors():
        if 'head' in Config.fromfile(args.config).model:
            raise InputError(f'{args.config} is of a classifier; give one of a detector, as in configs/det/')
        model = init_detector(args.config, args.checkpoint, device=args.device)
        draw_depths(
            model, [read(path) for path in args.images] or [coffee()], args.skips, args.out, args.score_thr
        )
    print(f'The picture: {args.out}')


def draw_depths(model, images, skips, out, score_thr=0.5):
    """Draws a row for each image, a BGR array of shape (H, W, 3), and a column for each depth."""
    backbone = adaptive_backbone(model)
    height, width = images[0].shape[:2]
    size = (5 * len(skips), (0.3 + 5 * height / width) * len(images))
    with drawing(out, size, len(images), len(skips)) as (_, axes):
        for image, row in zip(images, axes, strict=True):
            for skip, axis in zip(skips, row, strict=True):
                backbone.set_skip(skip)
                result = inference_detector(model, image)
                inputs = torch.zeros(1, 3, *result.batch_input_shape, device=next(model.parameters()).device)
                gflops = complexity(model, inputs)['gflops']
                found = (result.pred_instances.scores > score_thr).sum()
                axis.imshow(drawn(image, result, model.dataset_meta, score_thr))
                axis.set_title(f'{backbone.skip}: {gflops:#.4g} GFLOPs, {found} found')
                axis.axis('off')


def drawn(image, result, dataset_meta, score_thr):
    """The image, RGB, with the boxes and masks of a result, enlarged until their labels can be read."""
    times = max(1, 1024 // max(image.shape[:2]))
    found = result.pred_instances.cpu()
    found.bboxes = found.bboxes * times
    if 'masks' in found:
        found.masks = found.masks.repeat_interleave(times, 1).repeat_interleave(times, 2)
    visualizer = DetLocalVisualizer(alpha=0.5)
    np.random.seed(0)  # for it varies the masks' colours
    visualizer.dataset_meta = dataset_meta
    large = image[..., ::-1].repeat(times, 0).repeat(times, 1)
    sample = DetDataSample(pred_instances=found)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of boxes that end at the edge of the image
        visualizer.add_datasample('depths', large, sample, pred_score_thr=score_thr, draw_gt=False)
    return visualizer.get_image()


def read(path):
    image = mmcv.imread(path)
    if image is None:
        raise InputError(f'{path} cannot be read as an image')
    return image


def coffee():
    from skimage import data

    return data.coffee()[..., ::-1]


if __name__ == '__main__':
    main()
