import copy

import detectors
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope

from mmadn import SelfDistillationHook, SimpleFPN


@pytest.mark.parametrize('num_outs', [4, 5])
def test_levels_of_a_plain_map(num_outs):
    neck = SimpleFPN(in_channels=16, out_channels=8, num_outs=num_outs)
    levels = neck((torch.zeros(1, 16, 2, 2), torch.rand(1, 16, 6, 4)))
    sizes = [(24, 16), (12, 8), (6, 4), (3, 2), (2, 1)]
    assert [tuple(level.shape) for level in levels] == [(1, 8, *size) for size in sizes[:num_outs]]
    sum(level.square().sum() for level in levels).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_a_number_of_levels_that_it_has_not():
    with pytest.raises(ValueError, match='num_outs=3: give 4 or 5'):
        SimpleFPN(16, 8, num_outs=3)


NARROW = {
    'swin-t': (dict(embed_dims=8, num_heads=[1, 2, 2, 4]), [8, 16, 32, 64]),
    'vit-b16': (
        dict(
            arch=dict(embed_dims=16, num_layers=12, num_heads=2, feedforward_channels=32),
            img_size=64,
        ),
        16,
    ),
}


@pytest.mark.parametrize('name', NARROW)
def test_transformers_in_a_detector(name):
    """The configs for COCO, narrow: a step of training, and predictions at every depth."""
    init_default_scope('mmdet')
    backbone, channels = NARROW[name]
    cfg = Config.fromfile(ROOT / f'configs/det/mask_rcnn_{name}-adn_coco.py')
    cfg.model.backbone.update(backbone, init_cfg=None)
    cfg.model.neck.in_channels = channels
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
    model = MODELS.build(cfg.model)
    data = detectors.batch()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4))
    logs = SelfDistillationHook(levels='foreground').train_step(model.train(), copy.deepcopy(data), wrapper)
    assert all(torch.isfinite(value).all() for value in logs.values())
    model.eval()
    boxes = {}
    for skip in ('FFFF', 'FTFF', 'TTTT'):
        model.backbone.set_skip(skip)
        with torch.no_grad():
            found = model.test_step(copy.deepcopy(data))
        boxes[skip] = found[0].pred_instances.bboxes
        assert len(boxes[skip]) and torch.isfinite(boxes[skip]).all()
    assert not torch.equal(boxes['FFFF'][:1], boxes['TTTT'][:1])
