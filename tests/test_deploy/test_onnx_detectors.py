"""Whole detectors in ONNX files."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict

from mmadn.deploy.onnx.pasting import paste_masks

pytest.importorskip('mmcv.ops')


def test_masks_are_pasted_as_mmdet_pastes_them():
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead

    generator = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.avg_pool2d(10 * torch.randn(60, 1, 14, 14, generator=generator), 5, 1, 2)
    centre = torch.rand(60, 2, generator=generator) * torch.tensor([90, 70])
    extent = 50 * torch.rand(60, 2, generator=generator) ** 2
    boxes = torch.cat([(centre - extent).clamp(min=0), centre + extent], 1)
    # Without a width, without any extent, at the border, over its corner, and along the pixels' borders.
    boxes[:4, 2] = boxes[:4, 0]
    boxes[4:6, 2:] = boxes[4:6, :2] = 10.5
    boxes[6:9] = torch.tensor([[88.0, 20, 90, 40], [-20, -30, 200, 100], [10, 10, 24, 24]])
    meta = dict(scale_factor=(1.0, 1.0), ori_shape=(70, 90))
    expected = FCNMaskHead(
        class_agnostic=True, loss_mask=dict(type='mmdet.CrossEntropyLoss')
    )._predict_by_feat_single(logits, boxes, None, meta, ConfigDict(mask_thr_binary=0.5))
    found = paste_masks(logits.sigmoid().numpy()[:, 0], boxes.numpy(), 70, 90)
    assert found.any(axis=(1, 2)).sum() > 40
    np.testing.assert_array_equal(found, expected.numpy())


def test_no_masks():
    assert paste_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), 7, 9).shape == (
        0,
        7,
        9,
    )
