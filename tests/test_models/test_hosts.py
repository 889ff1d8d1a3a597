"""A backbone in a config is the class of the library that the config belongs to, with its defaults."""

from pathlib import Path

import mmdet
import pytest
import torch
from backbones import equal
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch.nn.modules.batchnorm import _BatchNorm

ZOO = Path(mmdet.__file__).parent / '.mim' / 'configs'


def backbones(config: str):
    """The stock backbone of a stock config, narrow, and the same with nothing but its type replaced."""
    cfg = Config.fromfile(ZOO / config)
    init_default_scope('mmdet')
    settings = {**cfg.model.backbone.to_dict(), 'base_channels': 4, 'stem_channels': 8, 'init_cfg': None}
    torch.manual_seed(0)
    stock = MODELS.build(dict(settings))
    adaptive = MODELS.build({**settings, 'type': 'mmadn.ADNResNet'})
    adaptive.load_state_dict(stock.state_dict(), strict=True)
    return stock, adaptive


@pytest.mark.parametrize(
    'config',
    [
        'solo/solo_r50_fpn_1x_coco.py',
        'solov2/solov2_r50_fpn_1x_coco.py',
        'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        'gcnet/mask-rcnn_r50-gcb-r16-c3-c5_fpn_1x_coco.py',
    ],
)
def test_a_detector_gets_the_resnet_of_mmdet(config):
    stock, adaptive = backbones(config)
    assert isinstance(adaptive, type(stock))
    assert adaptive.norm_eval == stock.norm_eval and adaptive.out_indices == stock.out_indices
    images = torch.rand(1, 3, 64, 64)
    stock.train(), adaptive.train()
    norms = [
        sum(module.training for module in network.modules() if isinstance(module, _BatchNorm))
        for network in (stock, adaptive)
    ]
    # A doubled norm counts twice; where mmdet keeps all norms in evaluation mode, none counts.
    assert bool(norms[0]) == bool(norms[1])
    stock.eval(), adaptive.eval()
    with torch.no_grad():
        assert equal(adaptive(images), stock(images))


def test_arguments_that_only_mmdet_knows():
    init_default_scope('mmdet')
    plugins = [
        dict(
            cfg=dict(type='ContextBlock', ratio=0.25),
            stages=(False, True, True, True),
            position='after_conv3',
        )
    ]
    backbone = MODELS.build(
        dict(type='mmadn.ADNResNet', depth=50, base_channels=4, stem_channels=4, plugins=plugins)
    )
    features = backbone(torch.rand(1, 3, 64, 64))
    assert [f.shape[1] for f in features] == [16, 32, 64, 128]


def test_a_classifier_gets_the_resnet_of_mmpretrain():
    init_default_scope('mmpretrain')
    backbone = MODELS.build(dict(type='mmadn.ADNResNet', depth=50, base_channels=4, stem_channels=4))
    assert not backbone.norm_eval and backbone.out_indices == (3,)
