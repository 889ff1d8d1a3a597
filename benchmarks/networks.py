"""The contestants' networks: one with adaptive depth, and the stock networks of its two ends."""

import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from torch.nn.modules.batchnorm import _BatchNorm

from mmadn.deploy import extract
from mmadn.depth import SkipAwareNorm

CLASSES = 1000
POOLING = dict(type='GlobalAveragePooling')
TINY = dict(
    depth=18,
    base_channels=8,
    stem_channels=8,
    num_stages=2,
    strides=(1, 2),
    dilations=(1, 1),
    out_indices=(1,),
)


def _network(
    backbone: str, channels: int, neck: dict | None = POOLING, head: str = 'LinearClsHead', **arguments
) -> dict:
    return dict(
        backbone=dict(type=f'mmadn.{backbone}', **arguments),
        neck=neck,
        head=dict(type=head, in_channels=channels),
    )


NETWORKS = {
    'tiny': _network('ADNResNet', 16, **TINY),  # to try a contest out: four depths
    'resnet50': _network('ADNResNet', 2048, depth=50),
    'resnet101': _network('ADNResNet', 2048, depth=101),
    'mobilenet_v2': _network('ADNMobileNetV2', 1280),
    'vit_b_16': _network('ADNVisionTransformer', 768, None, 'VisionTransformerClsHead', arch='base'),
    'swin_t': _network('ADNSwinTransformer', 768, arch='tiny'),
    'convnext_t': _network('ADNConvNeXt', 768, None, arch='tiny'),
}

CONFIGS = {  # of the same networks, for the tools that take one
    'tiny': 'configs/adn/resnet18_adn_in1k.py',
    'resnet50': 'configs/adn/resnet50_adn_in1k.py',
    'resnet101': 'configs/adn/resnet101_adn_in1k.py',
    'mobilenet_v2': 'configs/adn/mobilenetv2_adn_in1k.py',
    'vit_b_16': 'configs/adn/vit_b16_adn_in1k.py',
    'swin_t': 'configs/adn/swin_t_adn_in1k.py',
    'convnext_t': 'configs/adn/convnext_t_adn_in1k.py',
}


def classifiers(
    arch: str,
    device: str = 'cpu',
    share: bool = False,
    memory_format: torch.memory_format = torch.preserve_format,
) -> dict[str, ImageClassifier]:
    """The contestants' networks with equal, untrained weights.

    Args:
        arch: One of `NETWORKS`.
        share: Whether all use the same weight tensors. Copies at other addresses alone would change the
            latency by a percent, either way.
        memory_format: Of the weights of convolutions.

    Returns:
        `full`, the stock network, `short`, the stock network of the mandatory blocks alone, and `adn`.
    """
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.manual_seed(0)
        network = NETWORKS[arch]
        adn = ImageClassifier(
            **{
                **network,
                'head': dict(network['head'], num_classes=CLASSES, loss=dict(type='CrossEntropyLoss')),
            },
            data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
        )
        adn.init_weights()
        _vary_norms(adn)
    adn.to(device, memory_format=memory_format)
    return {'full': extract(adn, 'super', share), 'short': extract(adn, 'base', share), 'adn': adn}


def _vary_norms(model: ImageClassifier) -> None:
    """Draws statistics and scales of batch norms: at their initial values many branches would be zero."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for module in model.modules():
        if isinstance(module, SkipAwareNorm):
            module.skip.load_state_dict(module.full.state_dict())
