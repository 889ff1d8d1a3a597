"""The contestants' networks."""

import logging
from contextlib import contextmanager
from copy import deepcopy

import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from torch.nn.modules.batchnorm import _BatchNorm

from mmadn.depth import SkipAwareNorm

CLASSES = 1000
GAP = dict(type='GlobalAveragePooling')


def _resnet(depth, blocks):
    return dict(
        full=dict(type='ResNet', depth=depth),
        short=dict(type='mmadn.ShortResNet', depth=depth, blocks=blocks),
        adn=dict(type='mmadn.ADNResNet', depth=depth),
        neck=GAP,
        head=dict(type='LinearClsHead', in_channels=2048),
    )


# Per architecture the backbones of `stock`, of `stock-base` (stock as well, but built from the
# mandatory blocks only) and of ADN, and the rest of a classifier for any of them.
ARCHS = {
    'resnet50': _resnet(50, (2, 2, 3, 2)),
    'resnet101': _resnet(101, (2, 2, 12, 2)),
    'mobilenet_v2': dict(
        full=dict(type='MobileNetV2'),
        short=dict(type='mmadn.ShortMobileNetV2', blocks=(1, 1, 2, 2, 2, 2, 1)),
        adn=dict(type='mmadn.ADNMobileNetV2'),
        neck=GAP,
        head=dict(type='LinearClsHead', in_channels=1280),
    ),
    'vit_b_16': dict(
        full=dict(type='VisionTransformer', arch='base'),
        short=dict(
            type='VisionTransformer',
            arch=dict(embed_dims=768, num_layers=8, num_heads=12, feedforward_channels=3072),
        ),
        adn=dict(type='mmadn.ADNVisionTransformer', arch='base'),
        neck=None,
        head=dict(type='VisionTransformerClsHead', in_channels=768),
    ),
    'swin_t': dict(
        full=dict(type='SwinTransformer', arch='tiny'),
        short=dict(
            type='SwinTransformer',
            arch=dict(embed_dims=96, depths=[1, 1, 3, 1], num_heads=[3, 6, 12, 24]),
        ),
        adn=dict(type='mmadn.ADNSwinTransformer', arch='tiny'),
        neck=GAP,
        head=dict(type='LinearClsHead', in_channels=768),
    ),
    'convnext_t': dict(
        full=dict(type='ConvNeXt', arch='tiny'),
        short=dict(type='ConvNeXt', arch=dict(depths=[2, 2, 5, 2], channels=[96, 192, 384, 768])),
        adn=dict(type='mmadn.ADNConvNeXt', arch='tiny'),
        neck=None,
        head=dict(type='LinearClsHead', in_channels=768),
    ),
}


def classifiers(arch: str, device='cpu') -> dict[str, ImageClassifier]:
    """The contestants' networks `full`, `short` and `adn` with equal, untrained weights.

    Batch norms get varied statistics and scales: at their initial values, many residual branches
    would be zero.
    """
    spec = ARCHS[arch]
    nets = {}
    scope = DefaultScope.overwrite_default_scope('mmpretrain')
    with torch.random.fork_rng(devices=[]), _quiet(), scope:
        torch.manual_seed(0)
        for role in ('full', 'short', 'adn'):
            nets[role] = ImageClassifier(
                backbone=spec[role],
                neck=spec['neck'],
                head=dict(spec['head'], num_classes=CLASSES, loss=dict(type='CrossEntropyLoss')),
                data_preprocessor=dict(
                    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
                ),
            )
        nets['full'].init_weights()
        for module in nets['full'].modules():
            if isinstance(module, _BatchNorm):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    _load(nets)
    return {role: net.to(device) for role, net in nets.items()}


def share_weights(nets: dict[str, ImageClassifier]) -> None:
    """Gives all networks the same weight tensors, but keeps the second norms apart.

    Copies at other addresses alone would change the latency by a percent, either way.
    """
    _load(nets, assign=True)
    for module in nets['adn'].modules():
        if isinstance(module, SkipAwareNorm):
            module.skip = deepcopy(module.full)


def _load(nets, **kwargs):
    weights = nets['full'].state_dict()
    nets['adn'].load_state_dict(weights, **kwargs)
    nets['short'].load_state_dict({k: weights[k] for k in nets['short'].state_dict()}, **kwargs)


@contextmanager
def _quiet():
    """Without mmengine's line for every parameter that `init_weights` fills."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
