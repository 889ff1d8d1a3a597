"""Batch norms folded into convolutions, for both copies."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..depth import PathNorm, depth_of, unwrap
from ..errors import InputError


class SkipAwareConv(nn.Module):
    """What a convolution and a norm become: a convolution for each norm that the switches choose."""

    def __init__(self, conv: nn.Conv2d, norm: PathNorm):
        super().__init__()
        self.switch = norm.switch
        self.before = norm.before if norm.calibrated else norm.switch
        for name in dict(norm.named_children()):
            skipped = name == 'skip'
            self.add_module(name, fuse_conv_bn_eval(conv, norm.ordinary(skipped, skipped)))
            if norm.calibrated:
                other = fuse_conv_bn_eval(conv, norm.ordinary(skipped, not skipped))
                self.add_module(f'{name}_other', other)

    def forward(self, x: Tensor) -> Tensor:
        skipped = self.switch.on
        name = 'skip' if skipped else 'full'
        return self._modules[name if self.before.on == skipped else f'{name}_other'](x)


def fuse(model: nn.Module) -> nn.Module:
    """Folds every batch norm into the convolution before it, in place, for inference without its cost.

    A mandatory convolution is then held twice, once for either copy of its norm, and four times where the
    norm is calibrated for the stage before. The depth is switched as
    before; the outputs differ by rounding. As in mmcv's `fuse_conv_bn`, a norm belongs to a convolution
    that is registered right before it, as in all stock networks here. Other norms stay.

    Args:
        model: A classifier or detector in eval mode, with its final weights.

    Returns:
        The model itself. It takes no checkpoint any more.

    Raises:
        TypeError: The model has no adaptive depth.
        ValueError: It is in training mode.
    """
    model = unwrap(model)
    depth_of(model)
    if any(module.training for module in model.modules()):
        raise InputError('the model is in training mode: call model.eval() before fusing it')
    for parent in list(model.modules()):
        for (place, conv), (name, norm) in pairwise(list(parent.named_children())):
            aware = isinstance(norm, PathNorm)
            if isinstance(conv, nn.Conv2d) and isinstance(norm.full if aware else norm, _BatchNorm):
                setattr(parent, place, SkipAwareConv(conv, norm) if aware else fuse_conv_bn_eval(conv, norm))
                setattr(parent, name, nn.Identity())
    return model
