"""Trains an adaptive-depth ResNet50 on handwritten digits and compares its 16 sub-networks."""

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from mmadn.engine.quiet import quiet_runner
from mmadn.evaluation import subnets
from mmadn.utils.report import print_table
from projects.paper.digits import write_digits

CONFIG = 'configs/demo/resnet50_adn_digits.py'


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    os.chdir(Path(__file__).parents[1])
    torch.set_num_threads(1)  # a network this narrow computes no faster with more
    cfg = Config.fromfile(CONFIG)
    write_digits(cfg.data_root)
    print(f'Training {CONFIG} on {cfg.data_root}, two to three minutes', flush=True)
    quiet_runner(cfg).train()
    checkpoint = find_latest_checkpoint(cfg.work_dir)
    print('Testing all 16 depths', flush=True)
    rows = subnets.evaluate_subnets(cfg, checkpoint)
    subnets.write_report(rows, cfg.work_dir, config=CONFIG, checkpoint=checkpoint)
    print_table(subnets.table(rows), title='One network, 16 depths: T skips half a stage, F runs it')
    print(f'The picture: {cfg.work_dir}/subnets.png')


if __name__ == '__main__':
    main()
