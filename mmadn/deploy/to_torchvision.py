"""Ordinary classifiers of mmpretrain as torchvision's: the source that builds one, and its weights.

The logits of ResNet and MobileNetV2 are bit-equal. ViT, Swin and ConvNeXt compute in another order: within
4e-6 of the logits' standard deviation at full size.
"""

import re
from pathlib import Path
from textwrap import shorten

import torch
from torch import nn

from ..checkpoint.published import ARCHS
from ..errors import InputError

TOLERANCE = 1e-5  # of the logits' standard deviation

# How the network of a backbone `b` is written: what is imported from torchvision.models, and the call.
_SOURCES = {
    'ResNet': (
        '.resnet import {b.block.__name__}, ResNet',
        'ResNet({b.block.__name__}, {blocks}, {classes})',
    ),
    'MobileNetV2': (
        ' import MobileNetV2',
        'MobileNetV2({classes}, width_mult={b.widen_factor}, inverted_residual_setting={b.arch_settings})',
    ),
    'ConvNeXt': (
        '.convnext import CNBlockConfig, ConvNeXt',
        'ConvNeXt([CNBlockConfig(*stage) for stage in {stages}], {classes})',
    ),
    'VisionTransformer': (
        ' import VisionTransformer',
        'VisionTransformer(image_size={b.img_size[0]}, patch_size={b.patch_embed.projection.kernel_size[0]}, '
        'num_layers={b.num_layers}, num_heads={b.arch_settings[num_heads]}, hidden_dim={b.embed_dims}, '
        'mlp_dim={b.arch_settings[feedforward_channels]}, {classes})',
    ),
    'SwinTransformer': (
        ' import SwinTransformer',
        'SwinTransformer({b.patch_embed.projection.kernel_size}, {b.embed_dims}, {b.depths}, {b.num_heads}, '
        '2 * [{b.stages[0].blocks[0].attn.window_size}], {classes})',
    ),
}

# What was published was written over torchvision's networks: most names are theirs.
_NAMES = {
    'ResNet': ARCHS['resnet50'].names,
    'VisionTransformer': ARCHS['vit_b_16'].names,
    'SwinTransformer': (
        *ARCHS['swin_t'].names,
        (r'^features\.(\d+)', lambda m: f'features.{int(m[1]) + 1}'),
        (r'^pre\.', 'features.0.'),
    ),
    'ConvNeXt': (
        (r'^head\.fc\.', 'classifier.2.'),
        (r'^backbone\.norm3\.', 'classifier.0.'),
        (r'^backbone\.downsample_layers\.(\d)', lambda m: f'features.{2 * int(m[1])}'),
        (r'^backbone\.stages\.(\d)', lambda m: f'features.{2 * int(m[1]) + 1}'),
        (r'\.gamma$', '.layer_scale'),
        (r'\.depthwise_conv\.', '.block.0.'),
        (r'\.norm\.', '.block.2.'),
        (r'\.pointwise_conv1\.', '.block.3.'),
        (r'\.pointwise_conv2\.', '.block.5.'),
    ),
}


def torchvision_source(model: nn.Module) -> str:
    """A Python module whose `build()` gives torchvision's network of an ordinary classifier.

    ResNet, MobileNetV2, ConvNeXt, ViT and Swin are known, as far as torchvision's classes can express them.

    Args:
        model: From `extract`.

    Raises:
        ValueError: torchvision has no such network.
    """
    (imported, call), backbone, data = _SOURCES[_family(model)], model.backbone, model.data_preprocessor
    classes = [m for m in model.head.modules() if isinstance(m, nn.Linear)][-1].out_features
    widths = list(getattr(backbone, 'channels', ()))
    call = call.format(
        b=backbone,
        classes=f'num_classes={classes}',
        blocks=list(getattr(backbone, 'stage_blocks', ())),
        stages=list(zip(widths, [*widths[1:], None], getattr(backbone, 'depths', ()), strict=False)),
    )
    order = 'RGB' if data.to_rgb else 'in the order they are read, BGR in mmpretrain'
    scale = f'minus {_list(data.mean)}, over {_list(data.std)}' if data._enable_normalize else 'as they are'
    return (
        f'# Takes images of shape (N, 3, H, W), {order}, 0 to 255, {scale}.\n'
        f'from torchvision.models{imported.format(b=backbone)}\n\n\ndef build():\n    return {call}\n'
    )


def torchvision_weights(model: nn.Module) -> dict:
    """The state dict of an ordinary classifier under torchvision's names; raises as `torchvision_source`."""
    family, state = _family(model), model.state_dict()
    if family == 'MobileNetV2':  # the same tensors in the same order
        return dict(zip(_build(torchvision_source(model)).state_dict(), state.values(), strict=False))
    return dict(_renamed(family, name, tensor) for name, tensor in state.items())


@torch.no_grad()
def torchvision_difference(model: nn.Module, weights: Path, source: Path, image: torch.Tensor) -> float:
    """The largest difference of the logits of torchvision's network, over their standard deviation.

    Args:
        model: The original.
        weights: What `torchvision_weights` gave.
        source: What `torchvision_source` gave.
        image: Of uint8, (3, H, W).

    Raises:
        ValueError: The weights do not load, or the difference is above what the order of the arithmetic
            explains.
    """
    network, norms = _build(source.read_text()), (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
    try:
        network.load_state_dict(torch.load(weights, weights_only=True))
    except RuntimeError as error:
        raise _another(shorten(str(error), 300)) from error
    epsilons, theirs = ({m.eps for m in net.modules() if isinstance(m, norms)} for net in (model, network))
    if epsilons != theirs:
        raise _another(f'its norms have eps={theirs}, those here {epsilons}')
    inputs = model.data_preprocessor({'inputs': [image]}, False)['inputs']
    ours = model(inputs, mode='tensor')
    difference = (network(inputs) - ours).abs().max().item()
    if difference:  # an untrained head may give zeros alone
        difference /= ours.std().item()
    if not difference <= TOLERANCE:
        raise _another(
            f'it gives other logits, by {difference:.1g} of their standard deviation, so that a setting of '
            'the config is missing there'
        )
    return difference


def _build(source: str) -> nn.Module:
    names = {}
    exec(source, names)  # our own text
    return names['build']().eval()


def _another(what: str) -> InputError:
    return InputError(f"torchvision's class is not this network: {what}; use --to openmmlab")


def _family(model: nn.Module) -> str:
    name = type(getattr(model, 'backbone', None)).__name__
    if name not in _SOURCES or not hasattr(model, 'head'):
        raise InputError(
            f'torchvision has no {type(model).__name__} of a {name} that could take these weights; it has '
            f'classifiers of {", ".join(_SOURCES)}. Use --to openmmlab'
        )
    return name


def _list(tensor: torch.Tensor) -> list[float]:
    return [float(f'{x:.6g}') for x in tensor.flatten().tolist()]


def _renamed(family: str, name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    if family == 'SwinTransformer':
        tensor = ARCHS['swin_t'].layout(name, tensor, back=True)
    elif name.endswith('.gamma'):
        tensor = tensor[:, None, None]
    for pattern, replacement in _NAMES[family]:
        name = re.sub(pattern, replacement, name)
    return name, tensor
