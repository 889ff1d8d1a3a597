"""The model of a config with the weights of a checkpoint, or an error that says why not."""

import argparse
import copy
from pathlib import Path
from textwrap import shorten

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from ..errors import InputError
from ..utils.quiet_imports import import_quietly
from .hub import fetch, load_from_safetensors


def build_model(cfg: Config) -> nn.Module:
    """The classifier or detector of a config, with untrained weights, in eval mode."""
    import_quietly(cfg.get('default_scope'))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        settings = copy.deepcopy(cfg.model)
        if cfg.get('data_preprocessor'):
            settings.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
        return MODELS.build(settings).eval()


def read_checkpoint(path: str | Path, key: str | None = None, trusted: bool = True) -> tuple[dict, dict]:
    """The state dict in a file, bare or in a checkpoint of a training, and what `meta` says beside it.

    Args:
        path: The file, or an address that `hub.fetch` knows.
        key: Which entry holds the state dict. By default `state_dict`, which one of mmengine has, or
            `model_ema` (the averaged weights that the accuracy of a published one was measured with), or
            `model`.
        trusted: Whether the file may run code, as what mmengine saves of a training has to. Else nothing
            is unpickled but tensors, plain values and argparse's Namespace, in which published
            checkpoints carry their settings.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no checkpoint, or has no entry `key`.
    """
    path = fetch(path)
    if path.suffix == '.safetensors':
        return load_from_safetensors(str(path))['state_dict'], {}
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location='cpu', weights_only=not trusted)
    except Exception as error:  # what is no checkpoint makes the unpickler raise anything
        if isinstance(error, OSError) and error.filename:
            raise
        hint = 'give one that tools/train.py wrote'
        if not trusted:
            hint = (
                'it has to hold tensors and plain values alone; one that was trained here goes --to published'
            )
        raise InputError(f'{path} is no complete checkpoint ({type(error).__name__}); {hint}') from error
    if not isinstance(checkpoint, dict):
        raise InputError(f'{path} holds a {type(checkpoint).__name__}; a checkpoint is expected')
    found = [name for name in ('state_dict', 'model_ema', 'model') if isinstance(checkpoint.get(name), dict)]
    if key is not None and key not in found:
        raise InputError(f'{path} has no entry {key!r}; it has {", ".join(found) or "one bare state dict"}')
    state = checkpoint[key or found[0]] if found else checkpoint
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    state.pop('n_averaged', None)  # how many steps averaged weights are of
    return state, checkpoint.get('meta') or {}


def fill(model: nn.Module, state: dict, path: str | Path) -> None:
    """Loads a state dict strictly; raises ValueError where it is another model's."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise another_model(path, error) from error


def another_model(path: str | Path, error: Exception) -> InputError:
    return InputError(f'{path} is not a checkpoint of the model in this config: {shorten(str(error), 300)}')


def load_model(
    cfg: Config, checkpoint: str | Path | None = None, device: str | torch.device = 'cpu'
) -> nn.Module:
    """The model of a config, in eval mode, with untrained weights if there is no checkpoint.

    Its `dataset_meta` is that of the checkpoint.

    Raises:
        OSError: The checkpoint cannot be read.
        ValueError: The device is not there, or the file is no checkpoint or one of another model.
    """
    device = torch.device(device)
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f'device={device}: torch sees {torch.cuda.device_count()} CUDA devices here')
    model = build_model(cfg)
    if checkpoint is not None:
        state, meta = read_checkpoint(checkpoint)
        fill(model, state, checkpoint)
        model.dataset_meta = meta.get('dataset_meta')
    return model.to(device)


def load_weights(runner: Runner, checkpoint: str | Path) -> None:
    """Loads a checkpoint into the model of a runner; mmengine itself only warns if it is another's.

    Raises:
        ValueError: The checkpoint is not one of this model.
    """
    try:
        runner.load_checkpoint(str(checkpoint), strict=True)
    except RuntimeError as error:
        raise another_model(checkpoint, error) from error
