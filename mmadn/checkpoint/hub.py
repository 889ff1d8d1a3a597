"""Weights by address: a URL, or a file of safetensors in a Hugging Face repository.

mmengine asks a loader by the beginning of an address. With those below `load_from`, `init_cfg` and
`pretrained=` of mmpretrain's `get_model` know `hf://owner/name` and local files of safetensors too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from mmengine.runner.checkpoint import CheckpointLoader, load_from_http
from mmpretrain.apis.model import ModelHub

from ..errors import InputError, MissingPackageError
from ..utils.packaged import PACKAGED

ModelHub.register_model_index(PACKAGED / 'model-index.yml', config_prefix=PACKAGED)


def fetch(address: str | Path) -> Path:
    """The local file of an address, downloaded unless it is in the cache; a path is returned as it is.

    Args:
        address: `hf://owner/name`, whose file is `model.safetensors`, or `hf://owner/name/file.safetensors`;
            `http://` or `https://`; or a path.

    Raises:
        ValueError: The address is malformed, or cannot be reached.
        ImportError: huggingface_hub is not installed.
    """
    address = str(address)
    if address.startswith('hf://'):
        owner, name, file, *_ = [*address.removeprefix('hf://').split('/', 2), '', '']
        file = file or 'model.safetensors'
        if not owner or not name or not file.endswith('.safetensors'):
            raise InputError(f'{address}: give hf://owner/name or hf://owner/name/file.safetensors')
        with explained(address):
            return Path(_package('huggingface_hub').hf_hub_download(f'{owner}/{name}', file))
    if address.startswith(('http://', 'https://')):
        path = Path(torch.hub.get_dir(), 'checkpoints', address.rpartition('/')[2])  # as mmengine's loader
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with explained(address):
                torch.hub.download_url_to_file(address, str(path))
        return path
    return Path(address)


@CheckpointLoader.register_scheme([r'hf://', r'.*\.safetensors$'])
def load_from_safetensors(filename: str, map_location: str | None = None) -> dict:
    """Reads a file of safetensors, local or of a Hugging Face repository, as a checkpoint."""
    path = fetch(filename)
    if not path.is_file():
        raise FileNotFoundError(2, 'No such file', str(path))
    return {'state_dict': _package('safetensors.torch').load_file(path, device=str(map_location or 'cpu'))}


@CheckpointLoader.register_scheme(['http://', 'https://'], force=True)
def load_from_url(filename: str, map_location: str | None = None) -> dict:
    with explained(filename):
        return load_from_http(filename, map_location)


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Says what to do where an address cannot be reached."""
    try:
        yield
    except (OSError, ValueError) as error:  # what urllib and huggingface_hub raise
        reason = str(error).strip().partition('\n')[0] or type(error).__name__
        raise InputError(
            f'{address} cannot be fetched ({reason}); on a machine without a network give the path of the '
            'file instead, downloaded elsewhere'
        ) from error


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackageError(f'{error}: pip install huggingface_hub safetensors') from error
