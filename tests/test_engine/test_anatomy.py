"""Where the backbone, the neck and the heads of a model are."""

from types import SimpleNamespace

import pytest
import toy
from torch import nn

from mmadn import SelfDistillationHook, adaptive_backbone
from mmadn.engine.anatomy import backbone_name, beside_backbone, default_features, logits


def model(**parts):
    made = nn.Module()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def backbone():
    return toy.build().backbone


def head(*methods):
    made = nn.Identity()
    for method in methods:
        setattr(made, method, None)
    return made


CASES = {  # how a model is built, and what is found in it: backbone, features, heads
    'classifier': (toy.build, 'backbone', ['neck'], ['head']),
    'neck': (lambda: model(backbone=backbone(), neck=nn.Identity()), 'backbone', ['neck'], []),
    'no neck': (lambda: model(backbone=backbone(), neck=None), 'backbone', ['backbone'], []),
    'inside': (
        lambda: model(detector=model(backbone=backbone(), neck=nn.Identity()), neck=nn.Identity()),
        'detector.backbone',
        ['detector.neck'],
        [],
    ),
    'further out': (
        lambda: model(backbone=nn.Sequential(backbone()), neck=nn.Identity(), decode_head=head('cls_seg')),
        'backbone.0',
        ['neck'],
        ['decode_head'],
    ),
    'cascade': (
        lambda: model(
            backbone=backbone(),
            decode_head=nn.ModuleList([head('cls_seg'), head('cls_seg', 'get_points_train')]),
        ),
        'backbone',
        ['backbone'],
        ['decode_head.0'],
    ),
    'masks': (lambda: model(backbone=backbone(), decode_head=head()), 'backbone', ['backbone'], []),
}


@pytest.mark.parametrize('build, name, features, heads', CASES.values(), ids=CASES)
def test_parts_are_found_by_their_names_in_the_model(build, name, features, heads):
    built = build()
    assert backbone_name(built) == name
    assert default_features(built) == features
    assert logits(built) == heads
    assert beside_backbone(built, 'rpn_head') is None


def test_several_backbones_and_none_are_told_of():
    two = model(detector=model(backbone=backbone()), reid=model(backbone=backbone()))
    with pytest.raises(
        TypeError, match='several .* detector.backbone, reid.backbone; give the part'
    ) as error:
        adaptive_backbone(two)
    assert '\n' not in str(error.value)
    assert adaptive_backbone(two.reid) is two.reid.backbone
    assert adaptive_backbone(model(backbone=backbone(), teacher=two)).skip == 'FFFF'  # the one at its place
    with pytest.raises(TypeError, match='Module has no backbone of adaptive depth; choose'):
        adaptive_backbone(model(detector=model(backbone=nn.Identity())))


def test_features_that_do_not_run_are_told_of():
    trained = toy.build()
    hook = SelfDistillationHook(features=['backbone'])
    hook.prepare(SimpleNamespace(model=trained, iter=0))
    outputs = {'head': [], 'backbone': []}
    lesson = SimpleNamespace(compared=hook._compared(trained), outputs=outputs)
    with pytest.raises(ValueError, match="'head' runs 0 times in the first pass and 0 times in the second"):
        hook.divergence(outputs, lesson)
