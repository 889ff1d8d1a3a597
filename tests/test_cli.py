"""What a command line shows of an error."""

from pathlib import Path

import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS
from torch.utils.data import DataLoader
from toy import model_cfg

from mmadn import errors
from mmadn.cli import merge_options, plain_errors


@pytest.mark.parametrize(
    'error',
    [
        errors.InputError('alpha=2: give a number between 0 and 1'),
        errors.NotAdaptiveError('the backbone has no adaptive depth'),
        errors.MissingPackageError('pip install onnx'),
        errors.FailedError('the training failed'),
        PermissionError(13, 'Permission denied', 'a.pth'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_user_can_mend_is_one_line(error):
    with pytest.raises(SystemExit) as ended, plain_errors():
        raise error
    assert ended.value.code == f'error: {error}'


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(SystemExit) as ended, plain_errors():
        open('absent.pth')
    assert ended.value.code == "error: 'absent.pth': there is no such file or folder; check the path"


@pytest.mark.parametrize(
    'error',
    [
        ModuleNotFoundError("No module named 'mmdet'", name='mmdet'),
        ModuleNotFoundError(
            'mmdet is not installed, please install mmdet manually'
        ),  # mmengine's, for a base
        ModuleNotFoundError("No module named 'mmcv._ext'", name='mmcv._ext'),
    ],
)
def test_a_set_up_for_classifiers_says_what_detectors_need(error):
    with pytest.raises(SystemExit, match='detectors need mmdet, .*: `make setup`'), plain_errors():
        raise error


@pytest.mark.parametrize('error', [ValueError, TypeError, RuntimeError, ImportError, KeyError])
def test_a_fault_of_torch_or_mmdet_keeps_its_traceback(error):
    with pytest.raises(error), plain_errors():
        raise error('shape mismatch')


@pytest.mark.parametrize(
    'kind, base',
    [
        (errors.InputError, ValueError),
        (errors.NotAdaptiveError, TypeError),
        (errors.MissingPackageError, ImportError),
        (errors.FailedError, RuntimeError),
    ],
)
def test_python_code_catches_them_as_the_builtin_kinds(kind, base):
    assert issubclass(kind, base) and issubclass(kind, errors.UserError)


DIGITS = ROOT / 'configs/demo/resnet50_adn_digits.py'


@pytest.mark.parametrize(
    'option, guess',
    [
        ('trian_cfg.max_epochs', "no 'trian_cfg'; did you mean 'train_cfg'?"),
        ('load_form', "no 'load_form'; did you mean 'load_from'?"),
        ('train_cfg.max_epoch', "no 'max_epoch'; did you mean 'max_epochs'?"),
        ('train_dataloader.batch_sise', "no 'batch_sise'; did you mean 'batch_size'?"),
        ('something', "a config has no 'something'"),
    ],
)
def test_an_option_that_nothing_reads_names_the_nearest(option, guess):
    with pytest.raises(errors.InputError) as error:
        merge_options(Config.fromfile(DIGITS), {option: 1})
    assert guess in str(error.value) and str(error.value).startswith(option)


@pytest.mark.parametrize(
    'option', ['model.backbone.frozen_stages', 'train_cfg.val_begin', 'sync_bn', 'train_dataloader.drop_last']
)
def test_an_option_that_the_config_does_not_have_yet_is_set(option):
    cfg = Config.fromfile(DIGITS)
    merge_options(cfg, {option: 1})
    for name in option.split('.'):
        cfg = cfg[name]
    assert cfg == 1


def build(**backbone):
    MODELS.build(model_cfg(backbone=backbone))


@pytest.mark.parametrize(
    'call, line',
    [
        (lambda: build(depht=50), "ResNet has no setting 'depht'; did you mean 'depth'?"),
        (
            lambda: build(skip_aware_norm=True),
            "no setting 'skip_aware_norm'; did you mean 'skip_aware_norms'?",
        ),
        (
            lambda: build(type='mmadn.ADNResnet'),
            "type='mmadn.ADNResnet' is not known; did you mean 'mmadn.ADN",
        ),
        (
            lambda: DataLoader([], batch_sise=1),
            "DataLoader has no setting 'batch_sise'; did you mean 'batch_size'?",
        ),
    ],
    ids=['stock', 'own', 'type', 'loader'],
)
def test_a_misspelt_setting_of_a_class_is_one_line_with_the_nearest(call, line):
    with pytest.raises(SystemExit) as ended, plain_errors():
        call()
    assert line in ended.value.code and ended.value.code.startswith('error: ')
    assert '\n' not in ended.value.code


def test_an_error_of_a_data_worker_is_one_line(tmp_path):
    class Broken:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise errors.InputError('cat.png cannot be read as an image')

    with pytest.raises(SystemExit) as ended, plain_errors():
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert ended.value.code == 'error: cat.png cannot be read as an image'


def child(folder, text):
    path = Path(folder) / 'child.py'
    path.write_text(f"_base_ = '{DIGITS}'\n{text}\n")
    return Config.fromfile(path)


def roots(cfg):
    return {split: cfg[f'{split}_dataloader'].dataset.data_root for split in ('train', 'val', 'test')}


def test_the_data_root_of_a_child_config_reaches_the_data(tmp_path):
    cfg = child(tmp_path, "data_root = 'mine/'")
    merge_options(cfg, {})
    assert set(roots(cfg).values()) == {'mine'}
    merge_options(cfg, {'data_root': 'other'})
    assert set(roots(cfg).values()) == {'other'}


def test_a_data_root_that_the_config_has_no_name_for_reaches_the_data():
    loader = dict(dataset=dict(data_root='data/imagenet/', ann_file='data/imagenet/list.txt'))
    cfg = Config(dict(train_dataloader=loader, val_dataloader=loader))
    merge_options(cfg, {'data_root': '/disk'})
    assert cfg.train_dataloader.dataset == dict(data_root='/disk/', ann_file='/disk/list.txt')


def test_a_data_root_that_only_a_base_names_does_not_move_other_data(tmp_path):
    split = "dict(dataset=dict(data_root='mine', metainfo=dict(classes=('a', 'b'))))"
    cfg = child(tmp_path, ''.join(f'{name}_dataloader = {split}\n' for name in ('train', 'val', 'test')))
    merge_options(cfg, {})
    assert set(roots(cfg).values()) == {'mine'} and 'data_root' not in cfg
    merge_options(cfg, {'data_root': 'other'})
    assert set(roots(cfg).values()) == {'other'}


def test_a_data_root_of_no_data_is_an_error(tmp_path):
    cfg = child(tmp_path, "data_root = 'mine'\ntrain_dataloader = dict(dataset=dict(data_root='yours'))")
    with pytest.raises(errors.InputError, match="data_root='mine' is that of no data set here.*'yours'"):
        merge_options(cfg, {})
