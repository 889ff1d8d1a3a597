"""A sample of the zoos; `make zoo` tries one config of every folder."""

from functools import partial

import pytest
import zoo
import zoo_table
from mmengine.registry import DefaultScope
from zoo import Findings

from mmadn import SelfDistillationHook

SAMPLE = [
    'mmdet/dcn',  # Mask R-CNN
    'mmdet/dynamic_rcnn',
    'mmdet/libra_rcnn',  # Fast R-CNN
    'mmdet/mask2former',
    'mmdet/retinanet',
    'mmdet/yolo',  # MobileNetV2
    'mmseg/pspnet',
    'mmseg/upernet',
    'mmrotate/rotated_retinanet',
]


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.mark.parametrize('folder', SAMPLE)
def test_a_model_of_the_zoo_holds(folder):
    library = folder.partition('/')[0]
    if not zoo.configs(library):
        pytest.skip(f"{library} is not installed: pip install '.[hosts]'")
    found = zoo.check(folder)
    assert found.verdict == 'holds', found


def test_another_argument_than_stock_is_found(monkeypatch):
    def careless(cfg, make=zoo.make_adaptive):
        cfg = make(cfg)
        cfg.model.backbone.norm_eval = False
        return cfg

    monkeypatch.setattr(zoo, 'make_adaptive', careless)
    found = zoo.check('mmdet/retinanet')
    assert found.verdict == 'fails' and 'loss differs from that of stock' in found.ours


def test_a_parameter_without_a_gradient_is_found(monkeypatch):
    monkeypatch.setattr(zoo, 'SelfDistillationHook', partial(SelfDistillationHook, depths=('super', 'super')))
    (fault,) = zoo.check('mmdet/retinanet').ours
    assert 'parameters have no gradient' in fault and '.skip.weight' in fault


@pytest.mark.parametrize('folder, reason', [('mmdet/misc', 'no config'), ('mmdet/efficientnet', 'not known')])
def test_a_backbone_that_cannot_be_adaptive(folder, reason):
    found = zoo.check(folder)
    assert found.verdict == 'not adaptive' and reason in found.not_adaptive


def test_what_stock_cannot_do_is_not_asked_of_us():
    found = zoo.check('mmdet/ssd')  # stock's SSD cannot predict in this version of mmdet
    assert found.verdict == 'holds in part' and found.holds == ['loss']


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """The run with folders that need no models; returns the folders that were checked."""
    checked = []

    def check(name):
        checked.append(name)
        if name == 'mmseg/last' and len(checked) == 2:
            raise KeyboardInterrupt
        return Findings(name, 'a.py', 'ResNet', holds=['loss'])

    monkeypatch.setattr(zoo_table, 'check', check)
    monkeypatch.setattr(zoo_table, 'folders', lambda: ['mmdet/first', 'mmseg/last'])
    monkeypatch.setattr(zoo_table, 'settings', lambda library: {})
    monkeypatch.setattr(zoo_table, 'PROGRESS', tmp_path / 'zoo.json')
    monkeypatch.setattr(zoo_table, 'PAGE', tmp_path / 'zoo.md')
    monkeypatch.setattr(zoo_table, 'ROOT', tmp_path)
    return checked


def test_an_interrupted_run_goes_on(fake, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        zoo_table.main([])
    assert not zoo_table.PAGE.exists()
    assert zoo_table.main([]) == 0
    assert fake == ['mmdet/first', 'mmseg/last', 'mmseg/last']
    assert '| mmdet/first | a | ResNet | holds |' in zoo_table.PAGE.read_text()
    assert not zoo_table.PROGRESS.exists()
