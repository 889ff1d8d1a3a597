"""Ordinary classifiers of mmpretrain as torchvision's: the source that builds one, and its weights.

The logits of ResNet and MobileNetV2 are bit-equal. ViT, Swin and ConvNeXt compute in another order: within
4e-6 of the logits' standard deviation at full size.
"""

import re

import torch
from torch import nn

from ..checkpoint.published import ARCHS
from ..errors import InputError

TOLERANCE = 1e-5  # of the logits' standard deviation


def torchvision_source(model) -> str:
    """A Python module whose `build()` gives torchvision's network of an ordinary classifier.

    ResNet, MobileNetV2, ConvNeXt, ViT and Swin are known, as far as torchvision's classes can express them.

    Args:
        model (ImageClassifier): From `extract`.

    Raises:
        ValueError: torchvision has no such network.
    """
    build, imports = _BUILDERS[_family(model)](model.backbone, _classes(model))
    data = model.data_preprocessor
    order = 'RGB' if data.to_rgb else 'in the order they are read, BGR in mmpretrain'
    scale = f'minus {_list(data.mean)}, over {_list(data.std)}' if data._enable_normalize else 'as they are'
    return (
        f'# Takes images of shape (N, 3, H, W), {order}, 0 to 255, {scale}.\n'
        f'{imports}\n\n\ndef build():\n    return {build}\n'
    )


def torchvision_weights(model) -> dict:
    """The state dict of an ordinary classifier under torchvision's names, for a strict load.

    Raises:
        ValueError: torchvision has no such network, or one with other names or shapes.
    """
    family, state = _family(model), model.state_dict()
    network = build(torchvision_source(model))
    theirs = network.state_dict()
    if family == 'MobileNetV2':  # the same tensors in the same order
        weights = dict(zip(theirs, state.values(), strict=len(theirs) == len(state)))
    else:
        weights = dict(_renamed(family, name, tensor) for name, tensor in state.items())
    shapes = [{name: tuple(t.shape) for name, t in d.items()} for d in (weights, theirs)]
    epsilons = [{m.eps for m in net.modules() if hasattr(m, 'eps')} for net in (model, network)]
    if shapes[0] != shapes[1] or epsilons[0] != epsilons[1]:
        what = 'the eps of a norm'
        if shapes[0] != shapes[1]:
            name = min(dict(set(shapes[0].items()) ^ set(shapes[1].items())))
            what = f'the shape of {name}, {shapes[0].get(name)} here and {shapes[1].get(name)} there'
        raise InputError(
            f"torchvision's {family} is not this network: they differ in {what}; use --to openmmlab"
        )
    return weights


def build(source: str) -> nn.Module:
    """The network of what `torchvision_source` returns, in eval mode."""
    names = {}
    exec(source, names)  # our own text
    return names['build']().eval()


@torch.no_grad()
def torchvision_difference(model, weights, source, image) -> float:
    """The largest difference of the logits of torchvision's network, over their standard deviation.

    Args:
        model (ImageClassifier): The original.
        weights, source (Path): The files of torchvision's network.
        image (Tensor): Of uint8, (3, H, W).

    Raises:
        ValueError: It is above what the order of the arithmetic explains.
    """
    network = build(source.read_text())
    network.load_state_dict(torch.load(weights, weights_only=True))
    inputs = model.data_preprocessor({'inputs': [image]}, False)['inputs']
    ours = model(inputs, mode='tensor')
    difference = (network(inputs) - ours).abs().max().item()
    if difference:  # an untrained head may give zeros alone
        difference /= ours.std().item()
    if not difference <= TOLERANCE:
        raise InputError(
            f"torchvision's network of these weights gives other logits, by {difference:.1g} of their "
            'standard deviation: a setting of the config is not in torchvision; use --to openmmlab'
        )
    return difference


def _family(model):
    name = type(getattr(model, 'backbone', None)).__name__
    if name not in _BUILDERS or not hasattr(model, 'head'):
        raise InputError(
            f'torchvision has no {type(model).__name__} of a {name} that could take these weights; it has '
            f'classifiers of {", ".join(_BUILDERS)}. Use --to openmmlab'
        )
    return name


def _list(tensor):
    return [float(f'{x:.6g}') for x in tensor.flatten().tolist()]


def _classes(model):
    return [m for m in model.head.modules() if isinstance(m, nn.Linear)][-1].out_features


def _resnet(backbone, classes):
    block = backbone.block.__name__
    build = f'ResNet({block}, {list(backbone.stage_blocks)}, num_classes={classes})'
    return build, f'from torchvision.models.resnet import {block}, ResNet'


def _mobilenet(backbone, classes):
    build = (
        f'MobileNetV2(num_classes={classes}, width_mult={backbone.widen_factor}, '
        f'inverted_residual_setting={backbone.arch_settings})'
    )
    return build, 'from torchvision.models import MobileNetV2'


def _convnext(backbone, classes):
    sizes = zip(backbone.channels, [*backbone.channels[1:], None], backbone.depths, strict=True)
    stages = ', '.join(f'CNBlockConfig({c}, {after}, {n})' for c, after, n in sizes)
    build = f'ConvNeXt([{stages}], num_classes={classes})'
    return build, 'from torchvision.models.convnext import CNBlockConfig, ConvNeXt'


def _vit(backbone, classes):
    arch = backbone.arch_settings
    build = (
        f'VisionTransformer(image_size={backbone.img_size[0]}, '
        f'patch_size={backbone.patch_embed.projection.kernel_size[0]}, num_layers={backbone.num_layers}, '
        f'num_heads={arch["num_heads"]}, hidden_dim={arch["embed_dims"]}, '
        f'mlp_dim={arch["feedforward_channels"]}, num_classes={classes})'
    )
    return build, 'from torchvision.models import VisionTransformer'


def _swin(backbone, classes):
    block = backbone.stages[0].blocks[0]
    build = (
        f'SwinTransformer({list(backbone.patch_embed.projection.kernel_size)}, {backbone.embed_dims}, '
        f'{list(backbone.depths)}, {list(backbone.num_heads)}, {2 * [block.attn.window_size]}, '
        f'num_classes={classes})'
    )
    return build, 'from torchvision.models import SwinTransformer'


_BUILDERS = {
    'ResNet': _resnet,
    'MobileNetV2': _mobilenet,
    'ConvNeXt': _convnext,
    'VisionTransformer': _vit,
    'SwinTransformer': _swin,
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


def _renamed(family, name, tensor):
    if family == 'SwinTransformer':
        tensor = ARCHS['swin_t'].layout(name, tensor, back=True)
    elif name.endswith('.gamma'):
        tensor = tensor[:, None, None]
    for pattern, replacement in _NAMES[family]:
        name = re.sub(pattern, replacement, name)
    return name, tensor
