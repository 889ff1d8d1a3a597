from pathlib import Path
from types import SimpleNamespace

import mmpretrain.datasets.samplers.repeat_aug as repeat_aug
import pytest
import torch
from mmcv.cnn.bricks import DropPath
from mmengine import registry
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from toy import write_images

from mmadn import cli
from mmadn.depth import SkipAwareNorm

ROOT = Path(__file__).resolve().parents[1] / 'configs'
WORKSHOP = '../projects/paper/configs'
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob('*.py') if '_base_' not in path.parts)
LETTERS = sorted(f'{WORKSHOP}/{path.name}' for path in (ROOT / WORKSHOP).glob('*.py'))
IN1K = [name for name in CONFIGS if name.startswith('adn/') and name.endswith('_in1k.py')]
INDIVIDUAL = [name for name in CONFIGS if name.startswith('individual/')]
STEPS = {  # epochs, where the learning rate falls, weight decay
    'adn/resnet50_adn_in1k.py': (150, (60, 100, 140), 1e-4),
    'adn/resnet50vd_adn_in1k.py': (150, (60, 100, 140), 1e-4),
    'adn/resnet101_adn_in1k.py': (150, (60, 100, 140), 1e-4),
    'adn/mobilenetv2_adn_in1k.py': (300, (150, 225, 285), 1e-5),
}
MOBILENET = 'adn/mobilenetv2_adn_in1k.py'
V2 = 'adn/resnet50_adn_v2_in1k.py'
SWIN = 'adn/swin_t_adn_in1k.py'
SWIN_V2 = 'adn/swin_v2_t_adn_in1k.py'
VIT = 'adn/vit_b16_adn_in1k.py'
VIT32 = 'adn/vit_b32_adn_in1k.py'
CONVNEXT = 'adn/convnext_t_adn_in1k.py'
COSINE = {  # epochs, learning rate, its lower end, epochs of warm-up and their start, weight decay, clip norm
    V2: (600, 0.5, 0, 5, 0.01, 2e-5, None),
    SWIN: (300, 1e-3, 1e-5, 20, 0.01, 0.05, 5.0),
    VIT: (300, 7.5e-4, 0, 30, 0.033, 0.2, 1.0),
    VIT32: (300, 7.5e-4, 0, 30, 0.033, 0.2, 1.0),
}
MIXED = {  # mixup, cutmix, label smoothing
    V2: (0.2, 1.0, 0.0),
    SWIN: (0.8, 1.0, 0.1),
    SWIN_V2: (0.8, 1.0, 0.1),
    VIT: (0.2, 1.0, 0.11),
    VIT32: (0.2, 1.0, 0.11),
    CONVNEXT: (0.8, 1.0, 0.1),
}
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


@pytest.mark.parametrize('name', CONFIGS + LETTERS)
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


@pytest.fixture(scope='module', params=IN1K)
def recipe(request):
    """One config at a time, with its model in full size."""
    cfg = load(request.param)
    return SimpleNamespace(name=request.param, cfg=cfg, model=build_model(cfg))


def test_trains_by_algorithm_1_and_keeps_the_best_base_net(recipe):
    cfg, flags = recipe.cfg, recipe.model.backbone.num_skippable_stages
    hook = registry.HOOKS.build(cfg.custom_hooks[0])
    assert (type(hook).__name__, hook.alpha) == ('SelfDistillationHook', 0.5)
    checkpoint = registry.HOOKS.build(cfg.default_hooks.checkpoint)
    assert (checkpoint.save_best, checkpoint.rules) == ([f'{"T" * flags}/accuracy/top1'], ['greater'])
    for key in ('val', 'test'):
        loop = registry.LOOPS.get(cfg[f'{key}_cfg'].type)
        assert loop.__name__ == f'Subnet{key.title()}Loop' and 'skips' not in cfg[f'{key}_cfg']
        assert cfg[f'{key}_evaluator'].topk == (1, 5)


def test_weight_decay_leaves_out_norms_and_biases(recipe):
    """And position-bias tables; in ViT it is on everything."""
    cfg, model = recipe.cfg, recipe.model
    groups = build_optimizer(cfg, model).param_groups
    decay = {p: group['weight_decay'] for group in groups for p in group['params']}
    full = cfg.optim_wrapper.optimizer.weight_decay
    none = full if recipe.name in (VIT, VIT32) else 0
    for name, parameter in model.named_parameters():
        # A norm's weight and every bias are vectors, the other weights are not.
        vector = parameter.ndim == 1 or name.endswith('relative_position_bias_table')
        assert decay[parameter] == (none if vector else full), name
    norms = [m for m in model.modules() if isinstance(m, SkipAwareNorm)]
    assert norms
    for norm in norms:
        assert [decay[p] for copy in (norm.full, norm.skip) for p in copy.parameters()] == [none] * 4


@pytest.mark.parametrize('name', [name for name in IN1K if 'resnet' in name])
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


def test_mobilenet_drops_features_before_the_classifier():
    head = build_model(load(MOBILENET)).head.train()
    features = head.pre_logits((torch.ones(100, 1280),))
    assert features.unique().tolist() == [0, 1.25]
    assert (features == 0).float().mean() == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(head((torch.zeros(1, 1280),)), head.fc.bias[None])
    assert head.eval().pre_logits((torch.ones(1, 1280),)).unique().tolist() == [1]


def test_swin_has_the_stochastic_depth_of_the_paper():
    rates = [m.drop_prob for m in build_model(load(SWIN)).modules() if isinstance(m, DropPath)]
    assert sorted(set(rates)) == pytest.approx([0.1 * i / 11 for i in range(12)])
    assert rates == sorted(rates) and len(rates) == 24


def test_vit_is_the_one_of_torchvision():
    model = build_model(load(VIT32))
    drops = [m for m in model.modules() if isinstance(m, (DropPath, nn.Dropout))]
    assert not any(getattr(m, 'drop_prob', getattr(m, 'p', 0)) for m in drops)
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert model.backbone.patch_embed.projection.kernel_size == (32, 32)
    assert [type(m) for m in model.head.layers.children()] == [nn.Linear]


@pytest.mark.parametrize('name', STEPS)
def test_steps_recipe(name):
    epochs, milestones, decay = STEPS[name]
    cfg = load(name)
    assert GPUS * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 256
    rates = learning_rates(cfg, epoch_length=2)
    assert len(rates) == epochs and all(len(set(epoch)) == 1 for epoch in rates)
    expected = [0.1 * 0.1 ** sum(epoch >= m for m in milestones) for epoch in range(epochs)]
    assert [epoch[0] for epoch in rates] == pytest.approx(expected)
    optimizer = build_optimizer(cfg, nn.Linear(1, 1)).param_groups[0]
    assert (optimizer['momentum'], optimizer['weight_decay']) == (0.9, decay)
    assert 'clip_grad' not in cfg.optim_wrapper


@pytest.mark.parametrize('name', COSINE)
def test_cosine_recipe(name):
    epochs, lr, end, warmup, start, decay, clip = COSINE[name]
    cfg = load(name)
    assert GPUS * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 1024
    rates = learning_rates(cfg, epoch_length=4)
    assert len(rates) == epochs
    steps = 4 * warmup
    expected = [lr * (start + (1 - start) * i / (steps - 1)) for i in range(steps)]
    assert sum(rates[:warmup], []) == pytest.approx(expected)
    rest = epochs - warmup
    expected = end + (lr - end) / 2 * (1 + torch.cos(torch.pi * torch.arange(rest) / rest))
    assert [epoch[0] for epoch in rates[warmup:]] == pytest.approx(expected.tolist(), abs=1e-6)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.weight_decay == decay
    assert optimizer.type == 'SGD' and optimizer.momentum == 0.9 if name == V2 else optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.get('clip_grad') == (clip and dict(max_norm=clip))


@pytest.mark.parametrize(
    'name, warmup, decay', [(V2, 5, 0.998908), (SWIN, 20, 0.997815), (VIT, 30, 0.997815)]
)
def test_average_follows_the_warmup_and_then_moves_every_32_iterations(name, warmup, decay):
    # torchvision: 1 - decay grows with batch * interval / epochs.
    assert decay == pytest.approx(1 - (1 - 0.99998) * 1024 * 32 / COSINE[name][0], abs=5e-7)
    model = nn.BatchNorm1d(1)
    hook = registry.HOOKS.build(load(name).custom_hooks[1])
    runner = SimpleNamespace(model=model, epoch=0)
    hook.before_run(runner)

    def iterate(value):
        for tensor in (model.weight.data, model.running_mean):
            tensor.fill_(value)
        hook.after_train_iter(runner, 0)
        average = hook.ema_model.module
        assert average.running_mean == average.weight
        return average.weight.item()

    for runner.epoch in range(warmup):
        assert iterate(runner.epoch) == runner.epoch
    runner.epoch = warmup
    assert iterate(1.0) == 1.0
    assert [iterate(2.0) for _ in range(31)] == [1.0] * 31
    assert iterate(2.0) == pytest.approx(2 - decay, rel=1e-6)


@pytest.mark.parametrize('name, times', [(V2, 4), (SWIN, 4), (VIT, 3)])
def test_repeats_every_image_across_the_gpus(name, times, monkeypatch):
    loader = load(name).train_dataloader

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
        drawn = [image for step in zip(*per_rank, strict=True) for image in step]
        assert drawn == [image for image in dict.fromkeys(drawn) for _ in range(times)][:64]
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
    here = dict(data_root=str(images), serialize_data=False)
    if loader.dataset.type == 'ImageNet':  # mmpretrain's own
        here['metainfo'] = dict(classes=['a', 'b'])
    else:
        here['num_classes'] = 2
    dataset = registry.DATASETS.build({**loader.dataset, **here})
    return pseudo_collate([dataset[i] for i in range(len(dataset))])


def test_batches(recipe, images):
    cfg, preprocessor = recipe.cfg, recipe.model.data_preprocessor
    size, scale = {V2: (176, 232), SWIN: (224, 224), SWIN_V2: (256, 256)}.get(recipe.name, (224, 256))
    tested_size = 256 if recipe.name == SWIN_V2 else 224
    data = preprocessor(batch(cfg.train_dataloader, images), training=True)
    assert data['inputs'].shape == (4, 3, size, size)
    if recipe.name != CONVNEXT:  # erases with normal noise
        assert data['inputs'].abs().max() < 3
    scores = [sample.get('gt_score') for sample in data['data_samples']]
    assert all((score is not None) == (recipe.name in MIXED) for score in scores)
    for key in ('val', 'test'):
        tested = batch(cfg[f'{key}_dataloader'], images)
        assert {sample.scale_factor[1] for sample in tested['data_samples']} == {scale / 250}
        assert preprocessor(tested)['inputs'].shape == (4, 3, tested_size, tested_size)


@pytest.mark.parametrize('name', MIXED)
def test_mixes_every_batch_with_soft_labels(name):
    mixup, cutmix, smoothing = MIXED[name]
    cfg = load(name)
    preprocessor = registry.MODELS.build(
        dict(type='ClsDataPreprocessor', **cfg.data_preprocessor, batch_augments=cfg.model.train_cfg)
    )
    augments = preprocessor.batch_augments
    assert [(type(a).__name__, a.alpha) for a in augments.augments] == [('Mixup', mixup), ('CutMix', cutmix)]
    assert augments.probs is None  # either of them, evenly
    assert cfg.get('randomness', {}).get('diff_rank_seed', False) == (name != CONVNEXT)
    head = registry.MODELS.build(cfg.model.head)
    target = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    target = torch.cat([target, torch.zeros(2, 998)], dim=1)
    logits = torch.randn(2, 1000)
    losses = head._get_loss(logits, [DataSample().set_gt_score(score) for score in target])
    assert losses.keys() == {'loss'}  # no accuracy, which soft labels do not have
    expected = cross_entropy(logits, target, label_smoothing=smoothing)
    torch.testing.assert_close(losses['loss'], expected)


@pytest.mark.parametrize(
    'name, policy, interpolation',
    [
        (V2, 'TrivialAugmentWide', 'bilinear'),
        (SWIN, 'TrivialAugmentWide', 'bicubic'),
        (VIT, 'RandAugment', 'bilinear'),
    ],
)
def test_augments_in_rgb(name, policy, interpolation):
    cfg = load(name)
    pipeline = cfg.train_dataloader.dataset.pipeline
    crop, (to_pil, augment, to_numpy) = pipeline[1], pipeline[3:6]
    assert (to_pil.type, to_pil.to_rgb) == ('NumpyToPIL', True)
    assert (to_numpy.type, to_numpy.to_bgr) == ('PILToNumpy', True)
    assert augment.type == f'torchvision/{policy}'
    resize = cfg.test_dataloader.dataset.pipeline[1]
    assert augment.interpolation == interpolation
    assert {step.get('interpolation', 'bilinear') for step in (crop, resize)} == {interpolation}
    built = registry.TRANSFORMS.build(augment).t
    assert built.interpolation.value == interpolation and getattr(built, 'magnitude', 9) == 9
    erases = [step.erase_prob for step in pipeline if step.type == 'RandomErasing']
    assert erases == {V2: [0.1], SWIN: [0.25], VIT: []}[name]


@pytest.mark.parametrize('name', [V2, SWIN])
def test_erases_to_the_mean_colour(name):
    cfg = load(name)
    (erase,) = (s for s in cfg.train_dataloader.dataset.pipeline if s.type == 'RandomErasing')
    erase = registry.TRANSFORMS.build(dict(erase, erase_prob=1.0))
    image = torch.full((176, 176, 3), 255, dtype=torch.uint8).numpy()
    erased = torch.from_numpy(erase(dict(img=image))['img']).permute(2, 0, 1)
    preprocessor = registry.MODELS.build(dict(type='ClsDataPreprocessor', **cfg.data_preprocessor))
    pixels = preprocessor(dict(inputs=[erased]))['inputs']
    hole = pixels.abs().amax(1) < 0.01  # zero, but for the rounding to whole colours
    assert 0.01 < hole.float().mean() < 0.34
    assert pixels.permute(0, 2, 3, 1)[~hole].min() > 2


def test_distilled_network_differs_in_its_teacher_only():
    cfg, plain = load('individual/resnet50-base_distilled_in1k.py'), load('individual/resnet50-base_in1k.py')
    hook = registry.HOOKS.build(cfg.pop('custom_hooks')[0])
    assert load(hook.teacher.config.removeprefix('configs/')).model.backbone.type == 'ResNet'
    cfg.pop('teacher')
    plain.pop('custom_hooks', None)
    assert cfg.to_dict() == plain.to_dict()


@pytest.mark.parametrize('name', [name for name in INDIVIDUAL if 'distilled' not in name])
def test_individual_network_is_trained_by_the_same_recipe(name):
    cfg = load(name)
    adn = load(f'adn/{Path(name).name.replace("-base", "").replace("_in1k", "_adn_in1k")}')
    own = ('mmadn.SelfDistillationHook', 'mmadn.CalibrationHook')
    assert cfg.custom_hooks == [hook for hook in adn.custom_hooks if hook.type not in own]
    assert registry.HOOKS.build(cfg.default_hooks.checkpoint).save_best == ['accuracy/top1']
    assert cfg.val_cfg == cfg.test_cfg == {}  # the stock loops
    assert not cfg.model.backbone.type.startswith('mmadn.ADN')
    for each in (cfg, adn):
        each.default_hooks.checkpoint.pop('save_best')
        for key in ('type', 'arch', 'blocks'):
            each.model.backbone.pop(key, None)
        for key in ('custom_hooks', 'val_cfg', 'test_cfg'):
            each.pop(key)
    assert cfg.to_dict() == adn.to_dict()


@pytest.mark.parametrize('name', IN1K)
def test_data_root_reaches_all_datasets(name):
    cfg = load(name)
    cli.merge_options(cfg, {'data_root': '/elsewhere'})
    for key in ('train', 'val', 'test'):
        assert cfg[f'{key}_dataloader'].dataset.data_root == '/elsewhere'


LABELS_ONLY = {'custom_hooks.0.labels': True, 'custom_hooks.0.logits': False}
SHARED = {'model.backbone.skip_aware_norms': False}
ABLATIONS = {  # how each differs from the network it is an ablation of, in settings or the hook's
    'no-distillation': LABELS_ONLY,
    'shared-norms': SHARED,
    'neither': {**LABELS_ONLY, **SHARED},
    'shared-shortcuts': {'model.backbone.skip_aware_norms': True},
    'doubled-shortcuts': {'model.backbone.skip_aware_norms': 'all'},
    'features': {'custom_hooks.0.features': [f'backbone.layer{i}' for i in range(1, 5)]},
    'random-teacher': {'custom_hooks.0.depths': ('random', 'base')},
    'random-student': {'custom_hooks.0.depths': ('super', 'random')},
    'random-both': {'custom_hooks.0.depths': ('random', 'random')},
    'mandatory1121': {'model.backbone.mandatory': (1, 1, 2, 1)},
    'mandatory2342': {'model.backbone.mandatory': (2, 3, 4, 2)},
    'mandatory1111': {'model.backbone.mandatory': (1, 1, 1, 1)},
}


def flat(node, prefix=''):
    if prefix.endswith(('features.', 'depths.', 'mandatory.')) or not isinstance(node, (dict, list)):
        return {prefix[:-1]: node}
    items = node.items() if isinstance(node, dict) else enumerate(node)
    return {k: v for name, value in items for k, v in flat(value, f'{prefix}{name}.').items()}


IN1K_ABLATIONS = [name for name in CONFIGS if name.startswith('ablation/')]
# Those of the letters are of ResNet50, and some of them trained long; fine-tuning has a test of its own.
LETTERS_ABLATIONS = [
    name for name in LETTERS if '_adn-' in name and '_adn-long' not in name and 'finetune' not in name
]


@pytest.mark.parametrize('name', IN1K_ABLATIONS + LETTERS_ABLATIONS)
def test_ablation_differs_in_one_thing_only(name):
    network, rest = Path(name).stem.split('_adn-')
    ablation, task = rest.rsplit('_', 1)
    short = ablation.removesuffix('-long')
    schedule = ablation[len(short) :]
    parent = f'{dict(in1k="adn", letters=WORKSHOP)[task]}/{network}_adn{schedule}_{task}.py'
    ours, theirs = (flat(load(each).to_dict()) for each in (name, parent))
    for each in (ours, theirs):
        each.pop('work_dir', None)
        each.setdefault('custom_hooks.0.alpha', 0.5)  # which is the hook's default
    assert {k: v for k, v in ours.items() if k not in theirs or theirs[k] != v} == ABLATIONS[short]
    assert theirs.keys() <= ours.keys()


def test_every_ablation_is_there_for_imagenet_and_for_the_letters():
    found = [Path(name).stem for name in (*IN1K_ABLATIONS, *LETTERS_ABLATIONS)]
    assert sum(name.endswith('in1k') for name in found) == 10 + 4  # of ResNet50 and of ViT
    # Of ResNet50, two of them trained long too, and of ViT that of the mandatory blocks.
    assert sum(name.endswith('letters') for name in found) == 10 + 2 + 1


FINETUNING = {  # how each differs from the recipe
    'no-labels': {'labels': None, 'teacher': False},
    'teacher': {'labels': True, 'teacher': True},
    'teacher-no-labels': {'labels': None, 'teacher': True},
}


@pytest.mark.parametrize('name', FINETUNING)
def test_fine_tuning_differs_in_what_is_learnt_from(name):
    ours, theirs = (load(f'{WORKSHOP}/resnet50_adn-finetune{each}_letters.py') for each in (f'-{name}', ''))
    hook = ours.custom_hooks[0]
    assert theirs.custom_hooks[0] == dict(type='mmadn.SelfDistillationHook', labels=True)
    assert {'labels': hook.get('labels'), 'teacher': 'teacher' in hook} == FINETUNING[name]
    for each in (ours, theirs):
        each.pop('work_dir'), each.custom_hooks.pop(0), each.pop('teacher', None)
    assert ours.to_dict() == theirs.to_dict()
    assert theirs.load_from == 'work_dirs/resnet50-long_letters/iter_3600.pth'


LONG = {
    'train_cfg.max_iters': 3600,
    'train_cfg.val_interval': 400,
    'param_scheduler.0.end': 540,
    'param_scheduler.1.begin': 540,
    'param_scheduler.1.end': 3600,
}


@pytest.mark.parametrize('network', ['resnet50_adn', 'resnet50', 'resnet50-base'])
def test_long_training_differs_in_its_schedule_only(network):
    short = flat(load(f'{WORKSHOP}/{network}_letters.py').to_dict())
    long = flat(load(f'{WORKSHOP}/{network}-long_letters.py').to_dict())
    assert long.pop('work_dir') != short.pop('work_dir') and long.keys() == short.keys()
    assert {name: value for name, value in long.items() if value != short[name]} == LONG
