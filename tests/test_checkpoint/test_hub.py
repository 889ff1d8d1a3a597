"""Weights by address; nothing is downloaded here."""

import sys
from types import ModuleType, SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain import get_model

from mmadn.checkpoint import hub
from mmadn.checkpoint.files import read_checkpoint
from mmadn.errors import InputError, MissingPackageError

STATE = {'weight': torch.arange(4.0)}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A stub of huggingface_hub and safetensors; `.calls` are the downloads, `.error` what one raises."""
    stub = SimpleNamespace(calls=[], error=None, state=STATE)

    def hf_hub_download(repo_id, filename):
        stub.calls.append((repo_id, filename))
        if stub.error:
            raise stub.error
        path = tmp_path / filename
        path.touch()
        return str(path)

    packages = {name: ModuleType(name) for name in ('huggingface_hub', 'safetensors', 'safetensors.torch')}
    packages['huggingface_hub'].hf_hub_download = hf_hub_download
    packages['safetensors.torch'].load_file = lambda path, device: stub.state
    for name, package in packages.items():
        monkeypatch.setitem(sys.modules, name, package)
    return stub


@pytest.mark.parametrize(
    'address, file',
    [
        ('hf://owner/name', ('owner/name', 'model.safetensors')),
        ('hf://owner/name/resnet50.safetensors', ('owner/name', 'resnet50.safetensors')),
    ],
)
def test_a_repository(repository, address, file):
    assert CheckpointLoader.load_checkpoint(address, 'cpu') == {'state_dict': STATE}
    assert read_checkpoint(address) == (STATE, {})
    assert repository.calls == [file, file]


def test_a_local_file(repository, tmp_path):
    (tmp_path / 'w.safetensors').touch()
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'w.safetensors')) == {'state_dict': STATE}
    assert read_checkpoint(tmp_path / 'w.safetensors', trusted=False) == (STATE, {})
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / 'absent.safetensors')
    assert not repository.calls


def test_a_model_with_the_weights_of_a_repository(repository):
    backbone = dict(stem_channels=4, base_channels=4)  # the head stays wide, and does not run
    trained = get_model('resnet50_adn_in1k', backbone=backbone)
    repository.state = trained.state_dict()
    model = get_model('resnet50_adn_in1k', pretrained='hf://owner/name', backbone=backbone)
    assert all(torch.equal(weight, repository.state[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize('address', ['hf://name', 'hf://owner/', 'hf://owner/name/model.pth'])
def test_what_is_no_address(repository, address):
    with pytest.raises(InputError, match='give hf://owner/name or hf://owner/name/file.safetensors'):
        hub.fetch(address)


def test_offline(repository, monkeypatch, tmp_path):
    repository.error = ConnectionError('offline mode\nis on')
    message = r'cannot be fetched \(offline mode\); on a machine without a network give the path of the file'
    for load in (CheckpointLoader.load_checkpoint, read_checkpoint):
        with pytest.raises(InputError, match=message):
            load('hf://owner/name')

    def no_network(*_, **__):
        raise URLError('no route')

    monkeypatch.setattr(hub, 'load_from_http', no_network)
    monkeypatch.setattr(torch.hub, 'download_url_to_file', no_network)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    for load in (CheckpointLoader.load_checkpoint, read_checkpoint):
        with pytest.raises(InputError, match='https://host/w.pth cannot be fetched .*no route'):
            load('https://host/w.pth')


def test_a_url_is_downloaded_once(monkeypatch, tmp_path):
    urls = []

    def download(url, path):
        urls.append(url)
        torch.save({'state_dict': STATE}, path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    for _ in range(2):
        state, _ = read_checkpoint('https://host/w.pth')
        assert torch.equal(state['weight'], STATE['weight'])
    assert urls == ['https://host/w.pth']


def test_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(MissingPackageError, match='pip install huggingface_hub safetensors'):
        hub.fetch('hf://owner/name')
