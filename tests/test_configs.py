from pathlib import Path
from types import SimpleNamespace

import mmpretrain.datasets.samplers.repeat_aug as repeat_aug
import pytest
import torch
from mmengine import registry
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample
from test_datasets import write_images
from torch import nn
from torch.utils.data import DataLoader

from mmadn.depth import SkipAwareNorm

ROOT = Path(__file__).resolve().parents[1] / 'configs'
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob('*.py') if '_base_' not in path.parts)
IN1K = [name for name in CONFIGS if name.startswith('adn/') and name.endswith('_in1k.py')]
STEPS = ['adn/resnet50_adn_in1k.py', 'adn/resnet50vd_adn_in1k.py', 'adn/resnet101_adn_in1k.py']
V2 = 'adn/resnet50_adn_v2_in1k.py'
IMAGENET = 1281167  # training images
GPUS = 4


def load(name):
    cfg = Config.fromfile(ROOT / name)
    registry.init_default_scope(cfg.default_scope)
    return cfg


def build_model(cfg):
    model = dict(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return registry.MODELS.build(model)


def build_optimizer(cfg, model):
    wrapper = cfg.optim_wrapper.copy()
    if not torch.cuda.is_available():
        wrapper.pop('type', None)  # AmpOptimWrapper wants a GPU
    return build_optim_wrapper(model, wrapper)


def build_schedulers(cfg, optimizer, epoch_length):
    found = cfg.get('param_scheduler', [])
    return [
        registry.PARAM_SCHEDULERS.build(
            dict(end=cfg.train_cfg.get('max_epochs'), **scheduler) if 'end' not in scheduler else scheduler,
            default_args=dict(optimizer=optimizer, epoch_length=epoch_length),
        )
        for scheduler in (found if isinstance(found, (list, tuple)) else [found])
    ]


def learning_rates(cfg, epoch_length):
    """The learning rate of every iteration, as a list for each epoch."""
    optimizer = build_optimizer(cfg, nn.Linear(1, 1))
    schedulers = build_schedulers(cfg, optimizer, epoch_length)
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append([])
        for _ in range(epoch_length):
            rates[-1].append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return rates


@pytest.mark.parametrize('name', CONFIGS)
def test_builds(name):
    cfg = load(name)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    build_schedulers(cfg, optimizer, epoch_length=10)
    for key in ('train', 'val', 'test'):
        if loader := cfg.get(f'{key}_dataloader'):
            dataset = dict(loader.dataset)
            while 'pipeline' not in dataset:  # a dataset around another one
                dataset = dict(dataset['dataset'])
            registry.DATASETS.build(dict(dataset, lazy_init=True))
        if evaluator := cfg.get(f'{key}_evaluator'):
            assert evaluator
    for hook in cfg.get('custom_hooks', []):
        registry.HOOKS.build(hook)


@pytest.mark.parametrize('name', IN1K)
def test_trains_by_algorithm_1_and_keeps_the_best_base_net(name):
    cfg = load(name)
    hook = registry.HOOKS.build(cfg.custom_hooks[0])
    assert (type(hook).__name__, hook.alpha) == ('SelfDistillationHook', 0.5)
    checkpoint = registry.HOOKS.build(cfg.default_hooks.checkpoint)
    assert (checkpoint.save_best, checkpoint.rules) == (['TTTT/accuracy/top1'], ['greater'])
    for key in ('val', 'test'):
        loop = registry.LOOPS.get(cfg[f'{key}_cfg'].type)
        assert loop.__name__ == f'Subnet{key.title()}Loop' and 'skips' not in cfg[f'{key}_cfg']
        assert cfg[f'{key}_evaluator'].topk == (1, 5)


@pytest.mark.parametrize('name', IN1K)
def test_weight_decay_leaves_out_norms_and_biases(name):
    cfg = load(name)
    cfg.model.backbone.update(base_channels=4, stem_channels=4)
    cfg.model.head.in_channels = 128
    model = build_model(cfg)
    groups = build_optimizer(cfg, model).param_groups
    decay = {p: group['weight_decay'] for group in groups for p in group['params']}
    for parameter in model.parameters():
        # A norm's weight and every bias are vectors, the other weights are not.
        expected = 0 if parameter.ndim == 1 else cfg.optim_wrapper.optimizer.weight_decay
        assert decay[parameter] == expected
    norms = [m for m in model.modules() if isinstance(m, SkipAwareNorm)]
    assert norms
    for norm in norms:
        assert [decay[p] for copy in (norm.full, norm.skip) for p in copy.parameters()] == [0] * 4


@pytest.mark.parametrize('name', IN1K)
def test_residual_branches_are_not_zero_at_first(name):
    cfg = load(name)
    cfg.model.backbone.update(base_channels=4, stem_channels=4)
    cfg.model.head.in_channels = 128
    model = build_model(cfg)
    model.init_weights()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all((norm.weight == 1).all() for norm in norms)


def test_vd_averages_in_its_shortcuts():
    backbone = build_model(load('adn/resnet50vd_adn_in1k.py')).backbone
    assert backbone.conv1.kernel_size == (7, 7)
    for name in ('layer2', 'layer3', 'layer4'):
        pool, conv, _ = getattr(backbone, name)[0].downsample
        assert (pool.kernel_size, pool.stride, pool.ceil_mode, conv.stride) == (2, 2, True, (1, 1))


@pytest.mark.parametrize('name', STEPS)
def test_steps_recipe(name):
    cfg = load(name)
    assert GPUS * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 256
    rates = learning_rates(cfg, epoch_length=2)
    assert len(rates) == 150 and all(len(set(epoch)) == 1 for epoch in rates)
    lr = [epoch[0] for epoch in rates]
    expected = [0.1] * 60 + [0.01] * 40 + [0.001] * 40 + [0.0001] * 10
    assert lr == pytest.approx(expected)
    optimizer = build_optimizer(cfg, nn.Linear(1, 1)).param_groups[0]
    assert (optimizer['momentum'], optimizer['weight_decay']) == (0.9, 1e-4)


def test_v2_schedule():
    cfg = load(V2)
    assert GPUS * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 1024
    rates = learning_rates(cfg, epoch_length=20)
    assert len(rates) == 600
    warmup = sum(rates[:5], [])
    assert warmup == pytest.approx([0.005 + 0.495 * i / 99 for i in range(100)])
    expected = 0.25 * (1 + torch.cos(torch.pi * torch.arange(595) / 595))
    assert [epoch[0] for epoch in rates[5:]] == pytest.approx(expected.tolist(), abs=1e-6)
    optimizer = build_optimizer(cfg, nn.Linear(1, 1)).param_groups[0]
    assert (optimizer['momentum'], optimizer['weight_decay']) == (0.9, 2e-5)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


def test_v2_average_follows_the_warmup_and_then_moves_every_32_iterations():
    # torchvision: 1 - decay grows with batch * interval / epochs.
    decay = 1 - (1 - 0.99998) * 1024 * 32 / 600
    assert decay == pytest.approx(0.998908, abs=5e-7)
    model = nn.BatchNorm1d(1)
    hook = registry.HOOKS.build(load(V2).custom_hooks[1])
    runner = SimpleNamespace(model=model, epoch=0)
    hook.before_run(runner)

    def iterate(value):
        for tensor in (model.weight.data, model.running_mean):
            tensor.fill_(value)
        hook.after_train_iter(runner, 0)
        average = hook.ema_model.module
        assert average.running_mean == average.weight
        return average.weight.item()

    for runner.epoch in range(5):
        assert iterate(runner.epoch) == runner.epoch
    runner.epoch = 5
    assert iterate(1.0) == 1.0
    assert [iterate(2.0) for _ in range(31)] == [1.0] * 31
    assert iterate(2.0) == pytest.approx(2 - decay, rel=1e-6)


def test_v2_repeats_every_image_four_times_across_the_gpus(monkeypatch):
    loader = load(V2).train_dataloader

    def ranks(size):
        for rank in range(GPUS):
            monkeypatch.setattr(repeat_aug, 'get_dist_info', lambda rank=rank: (rank, GPUS))
            dataset = range(size)
            sampler = registry.DATA_SAMPLERS.build(loader.sampler, default_args=dict(dataset=dataset, seed=0))
            yield DataLoader(
                dataset,
                loader.batch_size,
                sampler=sampler,
                drop_last=loader.get('drop_last', False),
            )

    epochs = []
    for epoch in range(2):
        per_rank = []
        for data in ranks(64):
            data.sampler.set_epoch(epoch)
            per_rank.append(list(data.sampler))
        assert per_rank == [per_rank[0]] * GPUS  # at the same step, in four augmentations
        assert len(set(per_rank[0])) == len(per_rank[0]) == 64 // GPUS
        epochs.append(per_rank[0])
    assert epochs[0] != epochs[1]
    # As many iterations as torchvision's sampler gives, which leaves out the last 143 images.
    assert [len(data) for data in ranks(IMAGENET)] == [IMAGENET // 256 * 256 // 1024] * GPUS


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('imagenet')
    write_images(folder / 'train', size=(300, 250))
    write_images(folder / 'val', size=(300, 250))
    return folder


def batch(loader, images):
    here = dict(data_root=str(images), num_classes=2, serialize_data=False)
    dataset = registry.DATASETS.build({**loader.dataset, **here})
    return pseudo_collate([dataset[i] for i in range(len(dataset))])


@pytest.mark.parametrize('name', IN1K)
def test_batches(name, images):
    cfg = load(name)
    size, scale = (176, 232) if name == V2 else (224, 256)
    preprocessor = registry.MODELS.build(
        dict(
            type='ClsDataPreprocessor',
            **cfg.data_preprocessor,
            batch_augments=cfg.model.get('train_cfg'),
        )
    )
    data = preprocessor(batch(cfg.train_dataloader, images), training=True)
    assert data['inputs'].shape == (4, 3, size, size)
    assert data['inputs'].abs().max() < 3
    scores = [sample.get('gt_score') for sample in data['data_samples']]
    assert all((score is not None) == (name == V2) for score in scores)
    for key in ('val', 'test'):
        tested = batch(cfg[f'{key}_dataloader'], images)
        assert {sample.scale_factor[1] for sample in tested['data_samples']} == {scale / 250}
        assert preprocessor(tested)['inputs'].shape == (4, 3, 224, 224)


def test_v2_mixes_every_batch_with_soft_labels():
    cfg = load(V2)
    cfg.model.backbone.update(base_channels=4, stem_channels=4)
    cfg.model.head.in_channels = 128
    model = build_model(cfg)
    augments = model.data_preprocessor.batch_augments
    assert [(type(a).__name__, a.alpha) for a in augments.augments] == [
        ('Mixup', 0.2),
        ('CutMix', 1.0),
    ]
    assert augments.probs is None  # either of them, evenly
    target = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    target = torch.cat([target, torch.zeros(2, 998)], dim=1)
    logits = torch.randn(2, 1000)
    samples = [DataSample().set_gt_score(score) for score in target]
    losses = model.head._get_loss(logits, samples)
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    assert losses.keys() == {'loss'}  # no accuracy, which soft labels do not have
    torch.testing.assert_close(losses['loss'], expected)


def test_v2_erases_to_the_mean_colour_and_augments_in_rgb(images):
    cfg = load(V2)
    names = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    turned = (
        names.index('NumpyToPIL'),
        names.index('torchvision/TrivialAugmentWide'),
        names.index('PILToNumpy'),
    )
    assert turned == tuple(range(turned[0], turned[0] + 3))
    erase = cfg.train_dataloader.dataset.pipeline[names.index('RandomErasing')]
    erase = registry.TRANSFORMS.build(dict(erase, erase_prob=1.0))
    image = torch.full((176, 176, 3), 255, dtype=torch.uint8).numpy()
    erased = torch.from_numpy(erase(dict(img=image))['img']).permute(2, 0, 1)
    preprocessor = registry.MODELS.build(dict(type='ClsDataPreprocessor', **cfg.data_preprocessor))
    pixels = preprocessor(dict(inputs=[erased]))['inputs']
    hole = pixels.abs().amax(1) < 0.01  # zero, but for the rounding to whole colours
    assert 0.01 < hole.float().mean() < 0.34
    assert pixels.permute(0, 2, 3, 1)[~hole].min() > 2
