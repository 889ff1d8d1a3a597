"""One row for each adaptive-depth backbone: what the contract in test_depth.py runs over."""

import mmadn  # noqa: F401, I001  first, for torchvision

import re
from dataclasses import dataclass, field

import torch
from mmengine.registry import MODELS


def vit_block(name):
    """The block of the whole network that a block of the base-net is: 0, 1, 3, 4, 6, 7, ..."""
    return re.sub(r'layers\.(\d+)', lambda m: f'layers.{int(m[1]) // 2 * 3 + int(m[1]) % 2}', name)


@dataclass
class Case:
    adn: str
    stock: str
    args: dict
    drop_path: dict  # the arguments that turn stochastic depth on, empty where there is none
    lengths: tuple  # the blocks of each stage, for `mandatory`
    base: str = None  # the stock class that the base-net is, if another
    base_args: dict = field(default_factory=dict)
    base_name: callable = staticmethod(lambda name: name)  # a name of the base-net in the whole network
    flags: int = 4
    image_size: int = 32

    def build(self, kind='adn', **kwargs):
        args = {**self.args, **(self.base_args if kind == 'base' else {}), **kwargs}
        type_ = self.base or self.stock if kind == 'base' else getattr(self, kind)
        return MODELS.build(dict(type=type_, **args))


def resnet(**kwargs):
    return Case(
        adn='mmadn.ADNResNet',
        stock='mmpretrain.ResNet',
        base='mmadn.ShortResNet',
        base_args=dict(blocks=(2, 2, 3, 2)),
        args=dict(depth=50, stem_channels=8, base_channels=4, out_indices=(0, 1, 2, 3), **kwargs),
        drop_path=dict(drop_path_rate=0.9),
        lengths=(3, 4, 6, 3),
    )


def vit(layers, **kwargs):
    return dict(
        arch=dict(embed_dims=16, num_layers=layers, num_heads=2, feedforward_channels=32),
        img_size=32,
        patch_size=8,
        **kwargs,
    )


CASES = {
    'resnet50': resnet(),
    'resnet50vd': resnet(avg_down=True),
    'mobilenet_v2': Case(
        adn='mmadn.ADNMobileNetV2',
        stock='mmpretrain.MobileNetV2',
        base='mmadn.ShortMobileNetV2',
        base_args=dict(blocks=(1, 1, 2, 2, 2, 2, 1)),
        args=dict(widen_factor=0.25, out_indices=(1, 3, 7)),
        drop_path={},
        lengths=(1, 2, 3, 4, 3, 3, 1),
        flags=5,
    ),
    'swin': Case(
        adn='mmadn.ADNSwinTransformer',
        stock='mmpretrain.SwinTransformer',
        args=dict(
            arch=dict(embed_dims=8, depths=[2, 2, 6, 2], num_heads=[1, 2, 2, 4]),
            window_size=2,
            drop_path_rate=0.0,
            out_indices=(0, 1, 2, 3),
        ),
        base_args=dict(arch=dict(embed_dims=8, depths=[1, 1, 3, 1], num_heads=[1, 2, 2, 4])),
        drop_path=dict(drop_path_rate=0.9),
        lengths=(2, 2, 6, 2),
        image_size=64,
    ),
    'vit': Case(
        adn='mmadn.ADNVisionTransformer',
        stock='mmpretrain.VisionTransformer',
        args=vit(12),
        base_args=vit(8),
        base_name=vit_block,
        drop_path=dict(drop_path_rate=0.9),
        lengths=(3, 3, 3, 3),
    ),
    'convnext': Case(
        adn='mmadn.ADNConvNeXt',
        stock='mmpretrain.ConvNeXt',
        args=dict(arch=dict(depths=[3, 3, 9, 3], channels=[4, 8, 12, 16]), out_indices=[0, 1, 2, 3]),
        base_args=dict(arch=dict(depths=[2, 2, 5, 2], channels=[4, 8, 12, 16])),
        drop_path=dict(drop_path_rate=0.9),
        lengths=(3, 3, 9, 3),
    ),
}


def randomize(network):
    """Other values in every parameter and statistic, so that no two copies of a norm agree."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand_like(tensor)
            tensor.copy_(noise + 0.5 if 'var' in name or tensor.ndim == 1 else (noise - 0.5) * 0.5)
    return network


def equal(left, right):
    return len(left) == len(right) and all(map(torch.equal, left, right))
