"""The neck of a plain ViT in a detector."""

from mmengine.model import BaseModule
from mmpretrain.models.utils import LayerNorm2d
from torch import Tensor, nn

from ..errors import InputError
from ..registry import MODELS


@MODELS.register_module()
class SimpleFPN(BaseModule):
    """A feature pyramid from the one map of a plain ViT (ViTDet, arXiv 2203.16527, Section 3).

    Deconvolutions and a pooling bring the map of stride 16 to the strides 4, 8, 16 and 32; each level
    then gets a 1x1 and a 3x3 convolution with LayerNorm, and a pooling of the last one gives stride 64.

    Args:
        in_channels: Channels C of the backbone's map of shape (N, C, H, W).
        out_channels: Channels of every level.
        num_outs: How many levels, 4 or 5.
        init_cfg: As in every module of mmengine.

    Raises:
        ValueError: `num_outs` is neither 4 nor 5.
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_outs: int = 5, init_cfg: dict | list | None = None
    ) -> None:
        super().__init__(init_cfg)
        if num_outs not in (4, 5):
            raise InputError(f'num_outs={num_outs!r}: give 4 or 5')
        c = in_channels
        self.scales = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(c, c // 2, 2, 2),
                    LayerNorm2d(c // 2),
                    nn.GELU(),
                    nn.ConvTranspose2d(c // 2, c // 4, 2, 2),
                ),
                nn.ConvTranspose2d(c, c // 2, 2, 2),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, bias=False),
                LayerNorm2d(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                LayerNorm2d(out_channels),
            )
            for channels in (c // 4, c // 2, c, c)
        )
        self.pool = nn.MaxPool2d(1, stride=2) if num_outs == 5 else None

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Makes `num_outs` maps of shape (N, out_channels, h, w), that of stride 4 first.

        Args:
            inputs: The backbone's outputs, of which the last is used, of shape (N, in_channels, H, W).
        """
        levels = [conv(scale(inputs[-1])) for scale, conv in zip(self.scales, self.convs, strict=True)]
        if self.pool is not None:
            levels.append(self.pool(levels[-1]))
        return tuple(levels)
