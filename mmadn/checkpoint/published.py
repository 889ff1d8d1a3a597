"""The published weights: their names, and how to bring them into the classifiers of this project."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmengine.registry import MODELS, DefaultScope

from ..depth import PATH_STATISTICS
from ..errors import InputError
from ..utils.report import replacing
from .files import read_checkpoint


@dataclass
class Arch:
    """A published network.

    Args:
        model (dict): The classifier, or the backbone, here that takes its weights.
        names (Sequence[tuple]): How a name here becomes the published one: arguments of `re.sub`,
            applied in turn.
        layout (Callable, optional): `layout(name here, tensor, back)` brings a tensor that the two
            sides lay out differently from the published layout to the one here, or `back`.
    """

    model: dict
    names: tuple
    layout: Callable = lambda name, tensor, back: tensor


def _classifier(backbone, in_channels, gap=True, head='LinearClsHead', **kwargs):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type=f'mmadn.{backbone}', **kwargs),
        neck=dict(type='mmpretrain.GlobalAveragePooling') if gap else None,
        head=dict(type=f'mmpretrain.{head}', num_classes=1000, in_channels=in_channels),
    )


_OPTIONAL = 'relative_position_index', 'num_batches_tracked'
_COPIES = ((r'\.full\.', '.'), (r'\.skip\.', '_skip.'))


def _resnet(in_channels=2048, **kwargs):
    return Arch(
        _classifier('ADNResNet', in_channels, **kwargs),
        ((r'^backbone\.', ''), (r'^head\.fc\.', 'fc.'), *_COPIES),
    )


_UNIT = 'conv', 'norm'  # the parts of RT-DETR's convolutions

# RT-DETR's ResNet-vd: mmdet's ResNetV1d, whose stem is three convolutions. Its first stage does not average
# before its shortcut.
_RTDETR_RESNET = Arch(
    dict(type='mmadn.mmdet.ADNResNetV1d', depth=50),
    (
        (r'^stem\.(\d)\.', lambda m: f'conv1.conv1_{int(m[1]) // 3 + 1}.{_UNIT[int(m[1]) % 3]}.'),
        (r'^layer(\d)\.', lambda m: f'res_layers.{int(m[1]) - 1}.blocks.'),
        (r'\.conv([123])\.', lambda m: f'.branch2{"abc"[int(m[1]) - 1]}.conv.'),
        (r'\.bn([123])\.', lambda m: f'.branch2{"abc"[int(m[1]) - 1]}.norm.'),
        (r'^(res_layers\.0\..*)downsample\.(\d)\.', lambda m: f'{m[1]}short.{_UNIT[int(m[2]) - 1]}.'),
        (r'downsample\.(\d)\.', lambda m: f'short.conv.{_UNIT[int(m[1]) - 1]}.'),
        *_COPIES,
    ),
)

_MOBILENET = Arch(
    _classifier('ADNMobileNetV2', 1280),
    (
        (r'^head\.fc\.', 'classifier.1.'),
        (r'^backbone\.conv1\.', 'features.0.'),
        (r'^backbone\.conv2\.', 'features.8.'),
        (r'^backbone\.layer([17])\.0\.', r'features.\1.'),
        (r'^backbone\.layer', 'features.'),
        (r'\.conv\.(?=\w+$)', '.conv_layer.'),
        (r'\.bn\.', '.norm.'),
        *_COPIES,
    ),
)


def _vit(patch_size):
    return Arch(
        _classifier(
            'ADNVisionTransformer',
            768,
            gap=False,
            head='VisionTransformerClsHead',
            arch='base',
            patch_size=patch_size,
        ),
        (
            (r'^head\.layers\.head', 'heads.head'),
            (r'^backbone\.cls_token', 'class_token'),
            (r'^backbone\.pos_embed', 'encoder.pos_embedding'),
            (r'^backbone\.patch_embed\.projection', 'conv_proj'),
            (r'^backbone\.ln1\.', 'encoder.ln.'),
            (r'^backbone\.layers\.', 'encoder.layers.encoder_layer_'),
            (r'\.ln([12])', r'.ln_\1'),
            (r'\.attn\.qkv\.', '.self_attention.in_proj_'),
            (r'\.attn\.proj', '.self_attention.out_proj'),
            (r'\.ffn\.layers\.0\.0', '.mlp.0'),
            (r'\.ffn\.layers\.1', '.mlp.3'),
            *_COPIES,
        ),
    )


def _swin_layout(name, tensor, back):
    if name.endswith('relative_position_index'):
        return tensor.flatten() if back else tensor.view(2 * [round(len(tensor) ** 0.5)])
    if '.downsample.' not in name:
        return tensor
    # The channels of a patch merging: published are the four positions of the window (rows after
    # columns) with all channels each, here are the channels with the four positions (row by row) each.
    if back:
        return tensor.unflatten(-1, (-1, 4)).transpose(-1, -2)[..., [0, 2, 1, 3], :].flatten(-2)
    return tensor.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2)


_SWIN = Arch(
    _classifier('ADNSwinTransformer', 768, arch='tiny'),
    (
        (r'^head\.fc\.', 'head.'),
        (r'^backbone\.patch_embed\.projection', 'pre.0'),
        (r'^backbone\.patch_embed\.norm', 'pre.2'),
        (r'^backbone\.norm3', 'norm'),
        (r'^backbone\.stages\.(\d)\.blocks', lambda m: f'features.{2 * int(m[1])}'),
        (r'^backbone\.stages\.(\d)\.downsample', lambda m: f'features.{2 * int(m[1]) + 1}'),
        (r'\.attn\.w_msa', '.attn'),
        (r'\.ffn\.layers\.0\.0', '.mlp.0'),
        (r'\.ffn\.layers\.1', '.mlp.3'),
        *_COPIES,
    ),
    _swin_layout,
)

ARCHS = {
    'resnet18': _resnet(512, depth=18),
    'resnet34': _resnet(512, depth=34),
    'resnet50': _resnet(depth=50),
    'resnet101': _resnet(depth=101),
    'resnet50vd': _resnet(depth=50, avg_down=True),
    'resnet50vd_rtdetr': _RTDETR_RESNET,
    'mobilenet_v2': _MOBILENET,
    'vit_b_16': _vit(16),
    'vit_b_32': _vit(32),
    'swin_t': _SWIN,
}


def _arch(name) -> Arch:
    if name not in ARCHS:
        raise InputError(f'arch={name!r}: choose one of {", ".join(ARCHS)}')
    return ARCHS[name]


def published_names(arch: str) -> dict:
    """The tensors of a network by their published names: `{published: (name here, tensor here)}`.

    Raises:
        ValueError: `arch` is none of `ARCHS`.
    """
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        state_dict = MODELS.build(_arch(arch).model).state_dict()
    names = {}
    for name, tensor in state_dict.items():
        published = name
        for pattern, replacement in _arch(arch).names:
            published = re.sub(pattern, replacement, published)
        names[published] = name, tensor
    return names


def convert(state_dict: dict, arch: str) -> dict:
    """Turns published weights into those of the classifier in `configs/adn/`, or of the backbone alone.

    Args:
        state_dict (dict[str, Tensor]): The published weights.
        arch (str): One of `ARCHS`.

    Returns:
        dict[str, Tensor]: The weights under the names and in the layout used here.

    Raises:
        ValueError: `arch` is unknown, or the names or shapes are not those of that network.
    """
    layout, names = _arch(arch).layout, published_names(arch)
    if 'backbone' not in _arch(arch).model:  # of a whole detector, its backbone
        inside = {name: value for name, value in state_dict.items() if name.startswith('backbone.')}
        state_dict = {name.removeprefix('backbone.'): value for name, value in (inside or state_dict).items()}
    here = {published: (name, layout(name, tensor, back=True)) for published, (name, tensor) in names.items()}
    # What follows from the window size may be left out, and a frozen norm has counted nothing.
    own = {name: value for name, (_, value) in here.items() if name.endswith(_OPTIONAL)}
    state_dict = {**own, **state_dict}
    _check(state_dict, {name: tensor for name, (_, tensor) in here.items()}, arch)
    return {name: layout(name, state_dict[published], back=False) for published, (name, _) in names.items()}


def convert_back(state_dict: dict, arch: str) -> dict:
    """The inverse of `convert`: from the weights used here to the published names and layout.

    The published networks have one set of statistics for each copy of a norm. What `mmadn.calibrate` has
    estimated beside these is left out.

    Raises:
        ValueError: As `convert` does.
    """
    layout, names = _arch(arch).layout, published_names(arch)
    state_dict = {name: value for name, value in state_dict.items() if not name.endswith(PATH_STATISTICS)}
    _check(state_dict, dict(names.values()), arch)
    return {published: layout(name, state_dict[name], back=True) for published, (name, _) in names.items()}


def _check(state_dict, expected, arch):
    missing = [name for name in expected if name not in state_dict]
    unexpected = [name for name in state_dict if name not in expected]
    if missing or unexpected:
        raise InputError(
            f'these are not the weights of {arch}: {len(missing)} names are missing (first: '
            f'{missing[0] if missing else "none"}), {len(unexpected)} are unexpected (first: '
            f'{unexpected[0] if unexpected else "none"}); the networks known are {", ".join(ARCHS)}'
        )
    for name, tensor in expected.items():
        found, shape = tuple(getattr(state_dict[name], 'shape', ('no tensor',))), tuple(tensor.shape)
        if found != shape:
            raise InputError(
                f'these are not the weights of {arch}: {name} has the shape {found}, not {shape}'
            )


def convert_file(src, dst, arch: str, key: str | None = None, to: str = 'mmadn') -> None:
    """Writes the checkpoint `dst` from the weights in `src`.

    Args:
        to: 'mmadn' from published weights, or 'published' from a checkpoint of this project, which is
            trusted.
        src, dst, arch, key: See `read_checkpoint` and `convert`, whose errors this raises too.
    """
    state, _ = read_checkpoint(src, key, trusted=to == 'published')
    if to == 'published':
        checkpoint = convert_back(state, arch)
    else:
        checkpoint = {'meta': {'arch': arch}, 'state_dict': convert(state, arch)}
    with replacing(dst) as path:
        torch.save(checkpoint, path)
