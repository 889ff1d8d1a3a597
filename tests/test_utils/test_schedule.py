"""Schedules of the recipes for other numbers of epochs, and for small data."""

import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.optim.scheduler import CosineAnnealingLR, LinearLR
from torch import nn
from torch.optim import SGD

from mmadn.utils.schedule import fit_schedule, set_epochs


def test_warm_up_and_decay_keep_their_share():
    cfg = Config.fromfile(ROOT / 'configs/demo/resnet50_adn_digits.py')  # 6 of 36 epochs are the warm-up
    set_epochs(cfg, 3)
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    rates, length = [], 20
    schedulers = [
        {'LinearLR': LinearLR, 'CosineAnnealingLR': CosineAnnealingLR}[
            each.pop('type')
        ].build_iter_from_epoch(
            optimizer, epoch_length=length, **{k: v for k, v in each.items() if k != 'convert_to_iter_based'}
        )
        for each in cfg.param_scheduler
    ]
    for _ in range(3 * length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for each in schedulers:
            each.step()
    assert rates[0] == pytest.approx(0.04)
    assert rates.index(max(rates)) == 10 - 1 and max(rates) == pytest.approx(1)
    assert rates[-1] < 0.01


@pytest.mark.parametrize('epochs, interval', [(1, 1), (7, 1), (36, 6), (72, 12)])
def test_the_last_epoch_is_validated(epochs, interval):
    cfg = Config.fromfile(ROOT / 'configs/demo/resnet50_adn_digits.py')
    set_epochs(cfg, epochs)
    assert cfg.train_cfg.val_interval == interval and epochs % interval == 0
    assert cfg.train_cfg.max_epochs == cfg.default_hooks.checkpoint.interval == epochs


def test_steps_and_hooks_that_wait_for_an_epoch_move_too():
    cfg = Config.fromfile(ROOT / 'configs/adn/resnet50_adn_in1k.py')
    set_epochs(cfg, 15)
    assert cfg.param_scheduler.milestones == [6, 10, 14]
    cfg = Config.fromfile(ROOT / 'configs/adn/resnet50_adn_v2_in1k.py')
    set_epochs(cfg, 60)
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.end, cosine.begin, cosine.end, cosine.T_max) == (0.5, 0.5, 60, 59.5)
    assert cosine.convert_to_iter_based
    assert cfg.custom_hooks[1].begin_epoch == 1


def test_a_warm_up_in_iterations_is_a_small_part_of_a_small_training():
    cfg = Config.fromfile(ROOT / 'configs/det/retinanet_r50adn_coco.py')
    set_epochs(cfg, 2)
    fit_schedule(cfg, 50)
    assert cfg.param_scheduler[0].end == 10


def test_a_warm_up_of_less_than_an_iteration_goes():
    cfg = Config.fromfile(ROOT / 'configs/demo/resnet50_adn_digits.py')
    set_epochs(cfg, 2)
    fit_schedule(cfg, 2)
    assert [each.type for each in cfg.param_scheduler] == ['CosineAnnealingLR']


@pytest.mark.parametrize('train_cfg, epochs', [(dict(max_iters=9), 2), (dict(max_epochs=9), 0)])
def test_what_cannot_be_scaled_is_said(train_cfg, epochs):
    with pytest.raises(ValueError, match='train_cfg.max_iters|from 1 on'):
        set_epochs(Config(dict(train_cfg=train_cfg)), epochs)


@pytest.mark.parametrize('epochs, interval', [(1, 1), (3, 1), (12, 2), (30, 5)])
def test_own_data_are_validated_and_saved_during_the_training(epochs, interval):
    cfg = Config.fromfile(ROOT / 'configs/demo/resnet50_adn_digits.py')
    set_epochs(cfg, epochs)
    fit_schedule(cfg, 10)
    assert epochs % cfg.train_cfg.val_interval == 0
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == interval
