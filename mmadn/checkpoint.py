"""The published weights: their names, and how to bring them into the classifiers of this project."""

import argparse
import re

import torch
from mmengine.registry import MODELS

from .report import replacing

# What a name here is called in a published checkpoint: substitutions, applied in turn.
_TORCHVISION_RESNET = (
    (r'^backbone\.', ''),
    (r'^head\.fc\.', 'fc.'),
    (r'\.full\.', '.'),
    (r'\.skip\.', '_skip.'),
)


def _resnet(depth, **kwargs):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='mmadn.ADNResNet', depth=depth, **kwargs),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=1000, in_channels=2048),
    )


# The published networks: the classifier that takes the weights, and the names.
ARCHS = {
    'resnet50': (_resnet(50), _TORCHVISION_RESNET),
    'resnet101': (_resnet(101), _TORCHVISION_RESNET),
    'resnet50vd': (_resnet(50, avg_down=True), _TORCHVISION_RESNET),
}


def load_published(path, key=None) -> dict:
    """Reads a published checkpoint: a bare state dict, or a training checkpoint that holds several.

    Nothing but tensors and plain values is unpickled, and argparse's Namespace, in which training
    checkpoints carry their settings.

    Args:
        path (str | Path): The file.
        key (str, optional): Which entry of a training checkpoint. By default `model_ema`, the averaged
            weights that its accuracy was measured with, else `model`.

    Returns:
        dict[str, Tensor]: The state dict.

    Raises:
        ValueError: The file is no such checkpoint, or has no entry `key`.
        OSError: The file cannot be read.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what is no checkpoint makes the unpickler raise anything
        reason = str(error).splitlines()[0] if str(error) else 'it is empty'
        raise ValueError(f'{path} is no complete checkpoint of tensors: {reason}') from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f'{path} holds a {type(checkpoint).__name__}; a state dict is expected')
    found = [k for k in ('model_ema', 'model') if isinstance(checkpoint.get(k), dict)]
    if key is not None and key not in found:
        raise ValueError(f'{path} has no entry {key!r}; it has {", ".join(found) or "one bare state dict"}')
    if found:
        checkpoint = checkpoint[key or found[0]]
    return {
        re.sub(r'^module\.', '', name): value
        for name, value in checkpoint.items()
        if name != 'n_averaged'  # the step count of an averaged model
    }


def published_names(arch: str) -> dict:
    """The network's tensors by their published names: `{published: (name here, shape)}`.

    Raises:
        ValueError: `arch` is none of `ARCHS`.
    """
    if arch not in ARCHS:
        raise ValueError(f'arch={arch!r}: choose one of {", ".join(ARCHS)}')
    model, substitutions = ARCHS[arch]
    names = {}
    for name, tensor in MODELS.build(model).state_dict().items():
        published = name
        for pattern, replacement in substitutions:
            published = re.sub(pattern, replacement, published)
        names[published] = name, tuple(tensor.shape)
    return names


def convert(state_dict: dict, arch: str) -> dict:
    """Renames a published state dict into the one of the classifier in `configs/adn/`.

    Args:
        state_dict (dict[str, Tensor]): The published weights.
        arch (str): One of `ARCHS`.

    Returns:
        dict[str, Tensor]: The same tensors under the names used here.

    Raises:
        ValueError: `arch` is unknown, or the names or shapes are not those of that network.
    """
    names = published_names(arch)
    missing = [name for name in names if name not in state_dict]
    unexpected = [name for name in state_dict if name not in names]
    if missing or unexpected:
        raise ValueError(
            f'these are not the weights of {arch}: {len(missing)} names are missing (first: '
            f'{missing[0] if missing else "none"}), {len(unexpected)} are unexpected (first: '
            f'{unexpected[0] if unexpected else "none"}); the networks known are {", ".join(ARCHS)}'
        )
    for published, (_, shape) in names.items():
        found = tuple(getattr(state_dict[published], 'shape', ('no tensor',)))
        if found != shape:
            raise ValueError(
                f'these are not the weights of {arch}: {published} has the shape {found}, not {shape}'
            )
    return {name: state_dict[published] for published, (name, _) in names.items()}


def convert_file(src, dst, arch: str, key=None) -> None:
    """Writes the checkpoint `dst` from the published weights in `src`; raises as its two steps do."""
    state_dict = convert(load_published(src, key), arch)
    with replacing(dst) as path:
        torch.save({'meta': {'arch': arch}, 'state_dict': state_dict}, path)
