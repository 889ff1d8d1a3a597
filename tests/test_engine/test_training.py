"""What a training shows, and what it keeps for its log file."""

import logging
import re
import runpy
import sys

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from toy import write_images

from mmadn.engine.training import resume

TRAIN = str(ROOT / 'tools/train.py')
DIGITS = str(ROOT / 'configs/demo/resnet50_adn_digits.py')
SMALL = [
    '--cfg-options',
    *('model.backbone.base_channels=4', 'model.backbone.stem_channels=4', 'model.head.in_channels=128'),
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
    *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')),
]


@pytest.fixture
def tool(monkeypatch):
    """Runs a tool in this process."""
    monkeypatch.setattr(logging.root.manager, 'disable', logging.NOTSET)  # tests show no log otherwise

    def call(name, *arguments):
        monkeypatch.setattr(sys, 'argv', [f'tools/{name}', *map(str, arguments)])
        return runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')

    return call


@pytest.fixture
def pets(tmp_path):
    write_images(tmp_path / 'pets', number=10)
    return tmp_path / 'pets'


def test_own_data_are_trained_on_in_few_words_and_tested_by_the_config_that_stays(
    tool, pets, tmp_path, capsys
):
    work_dir = tmp_path / 'run'
    tool('train.py', DIGITS, '--data', pets, '--epochs', 1, '--work-dir', work_dir, *SMALL)
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if 'Epoch(train)' in line)
    assert first <= 15
    said = '\n'.join(lines[:first])
    for part in (
        'ADNResNet',
        '16 images to train on',
        '4 to validate',
        'cat, dog',
        '1 epochs',
        'cpu',
        str(work_dir),
    ):
        assert part in said
    assert 'eta: ' in lines[first] and 'mmengine' not in lines[first]
    assert any('TTTT/accuracy/top1' in line for line in lines[first:])
    assert 'test_subnets.py' in lines[-1] and f'{work_dir}/config.py' in lines[-1]
    log = next(work_dir.glob('*/*.log')).read_text()
    assert 'System environment' in log and 'Hooks will be executed' in log and 'Epoch(train)' in log

    checkpoint = work_dir / 'epoch_1.pth'
    meta = torch.load(checkpoint, weights_only=False)['meta']['dataset_meta']
    assert meta['classes'] == ('cat', 'dog')
    before = (work_dir / 'config.py').read_text()
    (work_dir / 'config.py').write_text(f'# edited\n{before}')
    for arguments in (['--resume'], ['--cfg-options', 'train_cfg.max_epochs=1']):
        tool('train.py', work_dir / 'config.py', *arguments)
    tool('test.py', work_dir / 'config.py', checkpoint, '--skip', 'TTFF', 'base')
    said = capsys.readouterr().out
    assert (
        'TTFF/accuracy/top1' in said and 'TTTT/accuracy/top1' in said and 'FFFF' not in said.split('test')[-1]
    )
    assert (work_dir / 'config.py').read_text() == f'# edited\n{before}'
    tool('extract_subnet.py', work_dir / 'config.py', checkpoint, tmp_path / 'small', '--skip', 'TTFF')
    small = Config.fromfile(tmp_path / 'small.py')
    assert small.test_dataloader.dataset.metainfo.classes == ('cat', 'dog')
    assert not {'launcher', 'randomness', 'test_pipeline', 'data_root'} & small.keys()
    assert small.work_dir == f'{work_dir}/TTFF'


def test_verbose_shows_all(tool, pets, tmp_path, capsys):
    tool(
        'train.py', DIGITS, '--data', pets, '--epochs', 1, '--verbose', '--work-dir', tmp_path / 'run', *SMALL
    )
    said = capsys.readouterr().out
    assert 'System environment' in said and 'Epoch(train)' in said


def test_an_interrupted_training_says_how_it_goes_on(tool, pets, tmp_path, capsys, monkeypatch):
    from mmadn.engine.calibration import CalibrationHook

    def interrupt(*_):
        raise KeyboardInterrupt

    options = ['--data', pets, '--epochs', 2, '--work-dir', tmp_path / 'run', *SMALL]
    monkeypatch.setattr(CalibrationHook, 'after_train_epoch', interrupt)
    with pytest.raises(SystemExit) as ended:
        tool('train.py', DIGITS, *options, '--resume')
    assert 'Nothing to resume' in capsys.readouterr().out
    assert 'before the first checkpoint' in ended.value.code
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/epoch_1.pth'))
    with pytest.raises(SystemExit) as ended:
        tool('train.py', DIGITS, *options)
    command = f'python {TRAIN} {tmp_path}/run/config.py --resume'
    assert ended.value.code == f'Stopped. To go on from the last checkpoint: {command}'


def test_weights_that_do_not_fit_are_told_of(tool, pets, tmp_path, capsys):
    options = ['--epochs', 1, '--work-dir', tmp_path / 'run', *SMALL]
    tool('train.py', DIGITS, '--data', pets, *options)
    write_images(tmp_path / 'more', ('cat', 'dog', 'fox'))
    capsys.readouterr()
    weights = tmp_path / 'run/epoch_1.pth'
    tool('train.py', DIGITS, '--data', tmp_path / 'more', '--load-from', weights, *options)
    (line,) = [each for each in capsys.readouterr().out.splitlines() if 'do not fit' in each]
    assert re.search('left out: size mismatch for head.fc.weight', line)


def test_a_resume_keeps_where_to_start_until_there_is_a_checkpoint(tmp_path, capsys):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='stock.pth', resume=False))
    resume(cfg, 'auto')
    assert cfg.load_from == 'stock.pth' and not cfg.resume
    assert 'has no checkpoint: the training begins anew' in capsys.readouterr().out
    (tmp_path / 'last_checkpoint').write_text('epoch_3.pth')
    resume(cfg, 'auto')
    assert cfg.load_from == 'epoch_3.pth' and cfg.resume


@pytest.mark.parametrize('name', ['demo.py', 'demo_det.py', 'evidence.py', 'train.py'])
def test_help_is_all_that_help_gives(tool, name, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    with pytest.raises(SystemExit) as ended:
        tool(name, '--help')
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert 'usage: ' in said and 'Training configs' not in said and 'Drawing' not in said
