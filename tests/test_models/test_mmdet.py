"""The backbone as users of mmdet meet it."""

import numpy as np
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config


def test_depth_changes_in_an_initialised_detector(tmp_path):
    (tmp_path / 'config.py').write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
        'model = dict(\n'
        "    backbone=dict(_delete_=True, type='mmadn.ADNResNet', depth=50, base_channels=8,\n"
        '                  out_indices=(0, 1, 2, 3), frozen_stages=1, norm_eval=True,\n'
        '                  zero_init_residual=False),\n'
        '    neck=dict(in_channels=[32, 64, 128, 256], out_channels=16),\n'
        '    bbox_head=dict(in_channels=16, feat_channels=16),\n'
        '    test_cfg=dict(score_thr=0.0, max_per_img=10),\n'
        ')\n'
        'test_dataloader = dict(dataset=dict(pipeline=[\n'
        "    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 96), keep_ratio=True),\n"
        "    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',\n"
        "                                          'scale_factor'))]))\n"
    )
    model = init_detector(Config.fromfile(tmp_path / 'config.py'), None, device='cpu')
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    scores = {}
    for skip in ('FFFF', 'TTTT', 'FFFF'):
        model.backbone.set_skip(skip)
        found = inference_detector(model, image).pred_instances
        assert len(found) == 10
        assert skip not in scores or torch.equal(scores[skip], found.scores)
        scores[skip] = found.scores
    assert not torch.equal(scores['FFFF'], scores['TTTT'])
