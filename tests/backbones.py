"""One row for each adaptive-depth backbone: what the contract in test_depth.py runs over."""

from dataclasses import dataclass

from mmengine.registry import MODELS
from mmpretrain.models import ResNet
from mmpretrain.models.backbones.resnet import Bottleneck


class BaseResNet(ResNet):
    arch_settings = {50: (Bottleneck, (2, 2, 3, 2))}


@dataclass
class Case:
    adn: str | type
    stock: str | type
    base: type  # the stock class with the blocks of the base-net
    args: dict
    drop_path: dict  # the arguments that turn stochastic depth on
    flags: int = 4
    image_size: int = 32
    lengths: tuple = ()  # the blocks of each stage, for `mandatory`

    def build(self, kind='adn', **kwargs):
        return MODELS.build(dict(type=getattr(self, kind), **{**self.args, **kwargs}))


CASES = {
    'resnet50': Case(
        adn='mmadn.ADNResNet',
        stock='mmpretrain.ResNet',
        base=BaseResNet,
        args=dict(depth=50, stem_channels=8, base_channels=4, out_indices=(0, 1, 2, 3)),
        drop_path=dict(drop_path_rate=0.9),
        lengths=(3, 4, 6, 3),
    ),
    'resnet50vd': Case(
        adn='mmadn.ADNResNet',
        stock='mmpretrain.ResNet',
        base=BaseResNet,
        args=dict(depth=50, stem_channels=8, base_channels=4, avg_down=True, out_indices=(0, 1, 2, 3)),
        drop_path=dict(drop_path_rate=0.9),
        lengths=(3, 4, 6, 3),
    ),
}
