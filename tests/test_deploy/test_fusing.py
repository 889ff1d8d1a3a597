import copy

import detectors
import pytest
import torch
import toy
from backbones import CASES, randomize
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadn.deploy import fuse
from mmadn.deploy.fusing import SkipAwareConv


def classifier(family):
    head = dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=8)
    backbone = dict(type=CASES[family].adn, **CASES[family].args)
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head))
    randomize(model)
    return model.eval()


@pytest.mark.parametrize('family', ['resnet50', 'resnet50vd', 'mobilenet_v2'])
def test_every_depth_gives_what_it_gave(family):
    model = classifier(family)
    images = torch.randn(2, 3, 32, 32)
    fused = fuse(copy.deepcopy(model))
    assert not any(isinstance(module, _BatchNorm) for module in fused.modules())
    assert any(isinstance(module, SkipAwareConv) for module in fused.modules())
    outputs = {}
    with torch.no_grad():
        for skip in model.backbone.subnets():
            model.backbone.set_skip(skip)
            fused.backbone.set_skip(skip)
            for a, b in zip(model.backbone(images), fused.backbone(images), strict=True):
                assert (a - b).abs().max() < 1e-5 * a.abs().max()
            outputs[skip] = b
    first, *_, last = outputs.values()
    assert not torch.allclose(first, last)


@pytest.mark.parametrize('family', ['swin', 'vit', 'convnext'])
def test_layer_norms_stay(family):
    model = classifier(family)
    names = [name for name, _ in model.named_modules()]
    assert [name for name, _ in fuse(model).named_modules()] == names


def test_a_detector_is_fused():
    model = detectors.build('retinanet').eval()
    data = model.data_preprocessor(detectors.batch(), False)['inputs']
    with torch.no_grad():
        expected = model.neck(model.backbone(data))
        fuse(model)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        for a, b in zip(expected, model.neck(model.backbone(data)), strict=True):
            assert (a - b).abs().max() < 1e-4 * a.abs().max()


def test_what_cannot_be_fused():
    with pytest.raises(ValueError, match=r'training mode: call model.eval\(\)'):
        fuse(toy.build().train())
    stock = MODELS.build(toy.model_cfg(backbone=dict(type='mmpretrain.ResNet'))).eval()
    with pytest.raises(TypeError, match='no adaptive depth'):
        fuse(stock)
