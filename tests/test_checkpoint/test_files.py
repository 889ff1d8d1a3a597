"""The one reader of checkpoints, of files that are trusted and of files that are not."""

import argparse

import pytest
import torch

from mmadn.checkpoint.files import read_checkpoint

STATE = {'conv.weight': torch.ones(2, 2), 'bn.num_batches_tracked': torch.tensor(3)}
OTHER = {name: value + 1 for name, value in STATE.items()}


class Settings:
    """What only a trusted file may hold."""


def prefixed(state):
    return {f'module.{name}': value for name, value in state.items()}


@pytest.mark.parametrize('trusted', [True, False])
@pytest.mark.parametrize(
    ('checkpoint', 'key'),
    [
        (STATE, None),
        (prefixed(STATE), None),
        ({'state_dict': STATE, 'model': OTHER}, None),
        ({'model': OTHER, 'model_ema': {'n_averaged': torch.tensor(7), **prefixed(STATE)}}, None),
        ({'model': STATE, 'model_ema': OTHER}, 'model'),
        ({'model': STATE, 'args': argparse.Namespace(lr=0.1)}, None),
    ],
    ids=['bare', 'parallel', 'mmengine', 'averaged', 'key', 'namespace'],
)
def test_reads_every_kind_of_file(checkpoint, key, trusted, tmp_path):
    torch.save(checkpoint, tmp_path / 'w.pth')
    state, meta = read_checkpoint(tmp_path / 'w.pth', key, trusted)
    assert state.keys() == STATE.keys() and meta == {}
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)


def test_gives_what_is_said_beside_the_weights(tmp_path):
    torch.save({'meta': {'dataset_meta': {'classes': ('a',)}}, 'state_dict': STATE}, tmp_path / 'w.pth')
    assert read_checkpoint(tmp_path / 'w.pth')[1] == {'dataset_meta': {'classes': ('a',)}}


def test_only_a_trusted_file_may_hold_anything(tmp_path):
    torch.save({'state_dict': STATE, 'message_hub': Settings()}, tmp_path / 'w.pth')
    assert read_checkpoint(tmp_path / 'w.pth')[0].keys() == STATE.keys()
    with pytest.raises(ValueError, match='w.pth is no complete checkpoint.*tensors and plain values'):
        read_checkpoint(tmp_path / 'w.pth', trusted=False)


@pytest.mark.parametrize('trusted', [True, False])
@pytest.mark.parametrize(
    ('content', 'message'),
    [(b'', 'is no complete checkpoint'), (b'hello', 'is no complete checkpoint'), ([1], 'holds a list')],
    ids=['empty', 'text', 'list'],
)
def test_what_is_no_checkpoint(content, message, trusted, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / 'w.pth').write_bytes(content)
    else:
        torch.save(content, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match=f'w.pth {message}'):
        read_checkpoint(tmp_path / 'w.pth', trusted=trusted)


@pytest.mark.parametrize('trusted', [True, False])
def test_no_such_file_and_no_such_entry(trusted, tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        read_checkpoint(tmp_path / 'absent.pth', trusted=trusted)
    torch.save({'model': STATE}, tmp_path / 'w.pth')
    with pytest.raises(ValueError, match="no entry 'model_ema'; it has model"):
        read_checkpoint(tmp_path / 'w.pth', 'model_ema', trusted)
