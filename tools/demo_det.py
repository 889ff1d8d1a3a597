"""Trains an adaptive-depth Mask R-CNN on drawn shapes and compares its 16 sub-networks."""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from mmadn.checkpoint.files import load_model
from mmadn.deploy.images import read_image, write_image
from mmadn.deploy.viewer import Viewer
from mmadn.engine.quiet import quiet_runner
from mmadn.evaluation import subnets
from mmadn.utils.report import print_table
from projects.paper.shapes import write_shapes

CONFIG = 'configs/demo/mask_rcnn_r50adn_shapes.py'
DRAWN = (5, 8, 21)  # test images with shapes over others


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    os.chdir(Path(__file__).parents[1])
    torch.set_num_threads(1)  # a network this narrow computes no faster with more
    cfg = Config.fromfile(CONFIG)
    write_shapes(cfg.data_root)
    print(f'Training {CONFIG} on {cfg.data_root}, about six minutes', flush=True)
    quiet_runner(cfg).train()
    checkpoint = find_latest_checkpoint(cfg.work_dir)
    print('Testing all 16 depths on 200 images that no setting was picked on', flush=True)
    rows = subnets.evaluate_subnets(cfg, checkpoint)
    subnets.write_report(rows, cfg.work_dir, config=CONFIG, checkpoint=checkpoint)
    viewer = Viewer(load_model(cfg, checkpoint), cfg)
    images = [read_image(f'{cfg.data_root}/test/{number:04d}.png') for number in DRAWN]
    pictures = [viewer.compare(image, ('FFFF', 'TTTT'), rounds=5) for image in images]
    write_image(f'{cfg.work_dir}/detections.png', np.vstack(pictures))
    print_table(subnets.table(rows), title='One detector, 16 depths: T skips half a stage, F runs it')
    print(f'The pictures: {cfg.work_dir}/subnets.png and {cfg.work_dir}/detections.png')


if __name__ == '__main__':
    main()
