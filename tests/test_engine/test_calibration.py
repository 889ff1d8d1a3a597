"""Statistics of norms by the path that leads to them."""

import copy
import json
import pickle

import pytest
import torch
import toy
from backbones import CASES, equal, randomize
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.data import DataLoader

from mmadn import CalibrationHook, calibrate
from mmadn.deploy import extract, fuse
from mmadn.depth import PathNorm
from mmadn.engine.calibration import calibration_depths, calibration_loader, training_images
from mmadn.engine.shared_prefixes import shared_prefixes

CONVOLUTIONAL = ('resnet50', 'resnet50vd', 'mobilenet_v2')


@pytest.fixture(params=CONVOLUTIONAL)
def model(request):
    """A classifier with one of the backbones that have batch norms, not calibrated yet."""
    model = toy.build()
    model.backbone = randomize(CASES[request.param].build())
    return model.eval()


def batches(number=2):
    return [toy.batch(8, seed=seed) for seed in range(number)]


def some_images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def outputs(backbone, images=None):
    images = (
        torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) if images is None else images
    )
    found = {}
    with torch.no_grad():
        for skip in backbone.subnets():
            with backbone.skipping(skip):
                found[skip] = backbone(images)
    return found


def path_norms(backbone):
    return {
        name: m for name, m in backbone.named_modules() if isinstance(m, PathNorm) and m.before is not None
    }


def by_hand(model, name, skips):
    """Mean and variance of what a norm gets at these depths, while batch norms normalise by their batch."""
    backbone, seen = copy.deepcopy(model.backbone), []
    dict(backbone.named_modules())[name].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for module in backbone.modules():
        module.training = isinstance(module, nn.BatchNorm2d)
    for data in batches():
        for skip in skips:
            with torch.no_grad(), backbone.skipping(skip):
                backbone(model.data_preprocessor(data, False)['inputs'])
    x = torch.cat(seen).double().transpose(0, 1).flatten(1)
    return x.mean(1), x.var(1)


def test_only_the_first_block_of_a_stage_depends_on_the_one_before():
    names = list(path_norms(CASES['resnet50'].build()))
    assert names == [
        f'layer{i}.0.{norm}' for i in (2, 3, 4) for norm in ('bn1', 'bn2', 'bn3', 'downsample.1')
    ]


@pytest.mark.parametrize(
    'name, skipped, before, skips',
    [
        ('layer3.0.bn2', True, True, ['TTTT']),
        ('layer3.0.bn2', True, False, ['TFTF']),
        ('layer3.0.bn2', False, True, ['FTFT']),
        ('layer4.0.bn3', False, True, ['TFTF']),
        (
            'layer2.0.downsample.1',
            False,
            False,
            ['FFFF', 'FTFT'],
        ),  # a shared norm follows the stage before alone
        ('layer2.0.downsample.1', False, True, ['TTTT', 'TFTF']),
    ],
)
def test_statistics_are_those_of_the_images_at_each_pair_of_switches(name, skipped, before, skips):
    model = toy.build().eval()
    mean, variance = by_hand(model, name, skips)
    assert calibrate(model, batches()) == 16
    norm = dict(model.backbone.named_modules())[name].ordinary(skipped, before)
    torch.testing.assert_close(norm.running_mean, mean.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, variance.float(), rtol=1e-4, atol=1e-6)


def test_four_depths_show_every_stage_all_pairs():
    for case in CASES.values():
        skips = calibration_depths(case.build())
        assert len(skips) == 4
        for i in range(1, case.flags):
            assert {(skip[i - 1], skip[i]) for skip in skips} == {
                ('F', 'F'),
                ('F', 'T'),
                ('T', 'F'),
                ('T', 'T'),
            }


def test_an_uncalibrated_network_is_what_it_was_and_its_checkpoint_has_the_names_of_before(model):
    assert not any('_mean' in name.replace('running_mean', '') for name in model.backbone.state_dict())
    before = outputs(model.backbone)
    assert calibrate(model, batches()) == 16
    after = outputs(model.backbone)
    assert not any(equal(before[skip], after[skip]) for skip in before)


def test_weights_modes_and_the_depth_stay(model):
    model.backbone.set_skip('base')
    model.backbone.train()
    parameters = copy.deepcopy(list(model.parameters()))
    counts = {n: b.clone() for n, b in model.named_buffers() if n.endswith('num_batches_tracked')}
    modes = [m.training for m in model.modules()]
    calibrate(model, batches())
    assert equal(list(model.parameters()), parameters)
    assert [m.training for m in model.modules()] == modes and set(model.backbone.skip) == {'T'}
    assert all(torch.equal(dict(model.named_buffers())[n], count) for n, count in counts.items())
    assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_calibrated_networks_travel(model):
    calibrate(model, batches())
    expected = outputs(model.backbone)
    again = copy.deepcopy(model.backbone)
    for module in again.modules():  # what a new network has before it loads
        if isinstance(module, PathNorm):
            module.calibrated = False
    again.load_state_dict(model.backbone.state_dict(), strict=True)
    for other in (again, copy.deepcopy(model.backbone), pickle.loads(pickle.dumps(model.backbone))):
        found = outputs(other)
        assert all(equal(found[skip], expected[skip]) for skip in expected)


def test_a_checkpoint_without_them_ends_a_calibration(model):
    plain = copy.deepcopy(model.backbone.state_dict())
    before = outputs(model.backbone)
    calibrate(model, batches())
    model.backbone.load_state_dict(plain, strict=True)
    after = outputs(model.backbone)
    assert all(equal(before[skip], after[skip]) for skip in before)


def test_training_ends_a_calibration():
    model = toy.build()
    calibrate(model, batches())
    model.train()
    with model.backbone.skipping('base'):
        model.backbone(torch.randn(2, 3, 32, 32))
    assert not all(norm.calibrated for norm in path_norms(model.backbone).values())


def test_extracted_shared_and_fused_networks_equal_the_calibrated_one(model):
    calibrate(model, batches())
    expected = outputs(model.backbone)
    images = some_images()
    with torch.no_grad(), shared_prefixes(model.backbone):
        found = outputs(model.backbone, images)
    assert all(equal(found[skip], expected[skip]) for skip in expected)
    for skip in expected:
        for share in (False, True):
            network = extract(model.backbone, skip, share=share)
            with torch.no_grad():
                assert equal(network(images), expected[skip]), skip
    fused = outputs(fuse(copy.deepcopy(model)).backbone)
    for skip in expected:
        for a, b in zip(fused[skip], expected[skip], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_a_transformer_has_nothing_to_calibrate():
    model = toy.build()
    model.backbone = CASES['vit'].build()
    assert calibrate(model, iter([])) == 0


@pytest.mark.parametrize('kind', ['clips', 'several'])
def test_a_tracker_and_a_semi_supervised_detector_get_images_too(kind, monkeypatch):
    model, expected = toy.build(), toy.build()
    calibrate(expected, batches())
    preprocess = model.data_preprocessor.forward

    def arranged(data, training):
        images = preprocess(data, training)['inputs']
        return {'inputs': images.unflatten(0, (4, 2)) if kind == 'clips' else {'sup': images}}

    monkeypatch.setattr(model.data_preprocessor, 'forward', arranged)
    assert calibrate(model, batches()) == 16
    assert all(map(torch.equal, model.state_dict().values(), expected.state_dict().values()))


def test_no_images_are_refused(model):
    with pytest.raises(ValueError, match='there are no images to calibrate'):
        calibrate(model, [])


def test_broken_weights_are_refused_and_nothing_changes(model):
    first = next(iter(path_norms(model.backbone).values()))
    before = first.full.running_mean.clone()
    next(model.backbone.parameters()).data.fill_(float('nan'))
    with pytest.raises(ValueError, match='statistics that are not finite'):
        calibrate(model, batches())
    assert torch.equal(first.full.running_mean, before) and not first.calibrated


@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
def test_the_hook_calibrates_before_validation_and_checkpoint(tmp_path, by_epoch):
    train_cfg = (
        dict(by_epoch=True, max_epochs=2) if by_epoch else dict(by_epoch=False, max_iters=8, val_interval=4)
    )
    runner = toy.runner(
        tmp_path,
        hooks=[dict(type='mmadn.CalibrationHook', num_images=32)],
        train_cfg=train_cfg,
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1 if by_epoch else 4, by_epoch=by_epoch)
        ),
    )
    runner.train()
    for path in sorted(tmp_path.glob('*_*.pth')):
        state = torch.load(path, weights_only=False)['state_dict']
        assert 'backbone.layer2.0.bn1.skip_mean' in state, path
    assert all(norm.calibrated for norm in path_norms(runner.model.backbone).values())


def test_the_hook_refuses_too_few_images():
    with pytest.raises(ValueError, match='8 images are too few to calibrate norms with: give 32 or more'):
        CalibrationHook(num_images=8)


def test_the_training_data_may_be_those_of_a_detector(tmp_path):
    pytest.importorskip('mmdet')
    images = [dict(id=i, file_name=f'{i}.png', height=8, width=8) for i in range(3)]
    (tmp_path / 'train.json').write_text(json.dumps(dict(images=images, annotations=[], categories=[])))
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='train.json',
        data_prefix=dict(img='img'),
        metainfo=dict(classes=('a',)),
        pipeline=[],
    )
    sampler = dict(type='DefaultSampler', shuffle=True)
    loader = dict(batch_size=2, num_workers=0, sampler=sampler, dataset=dataset)
    cfg = Config(dict(default_scope='mmdet', train_dataloader=loader))
    assert len(training_images(cfg, 2).dataset) == 3 and len(training_images(cfg, 2)) == 1


def test_the_loader_of_a_training_goes_on_undisturbed():
    data = toy.Images()
    loader = DataLoader(data, batch_size=4, collate_fn=pseudo_collate)
    training = iter(loader)
    first = next(training)['inputs'][0]
    other = calibration_loader(loader, 9)
    assert sum(len(batch['inputs']) for batch in other) == 8  # a single image left over is left out
    assert torch.equal(data[0]['inputs'], first) and len(list(training)) == 3
    assert [len(batch['inputs']) for batch in calibration_loader(loader, 1000)] == [4] * 4


@pytest.mark.parametrize('update_buffers', [False, True])
def test_averaged_weights_are_saved_and_load(tmp_path, update_buffers):
    hooks = [
        dict(type='mmadn.CalibrationHook', num_images=32),
        dict(type='EMAHook', momentum=0.1, update_buffers=update_buffers),
    ]
    runner = toy.runner(tmp_path, hooks=hooks)
    runner.train()
    checkpoint = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    model = toy.build()
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    averaged = checkpoint['state_dict']['backbone.layer2.0.bn1.skip.weight']
    assert not torch.equal(averaged, runner.model.backbone.layer2[0].bn1.skip.weight)


def test_other_norms_are_estimated_at_the_ends():
    model = toy.build().eval()
    expected = {name: by_hand(model, name, ends) for name, ends in OTHERS.items()}
    calibrate(model, batches())
    modules = dict(model.backbone.named_modules())
    for name, (mean, variance) in expected.items():
        torch.testing.assert_close(modules[name].running_mean, mean.float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(modules[name].running_var, variance.float(), rtol=1e-4, atol=1e-6)


OTHERS = {  # a norm, and the depths at which it is run of the super-net and the base-net
    'bn1': ['FFFF', 'TTTT'],
    'layer1.0.downsample.1': ['FFFF', 'TTTT'],
    'layer3.1.bn2.full': ['FFFF'],
    'layer3.1.bn2.skip': ['TTTT'],
    'layer3.4.bn1': ['FFFF'],
}


@pytest.mark.parametrize('frozen', ['norm_eval', 'scale'])
def test_frozen_norms_keep_the_statistics_of_their_checkpoint(frozen):
    model = toy.build(backbone=dict(norm_eval=frozen == 'norm_eval'))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and frozen == 'scale':
            module.weight.requires_grad = False
    before = copy.deepcopy(model.state_dict())
    assert calibrate(model, batches()) == 0
    assert before.keys() == model.state_dict().keys()
    assert equal(before.values(), model.state_dict().values())
