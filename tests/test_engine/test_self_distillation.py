from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import toy
from backbones import CASES
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import MODEL_WRAPPERS, MODELS
from torch import nn

from mmadn import DistillationHook, SelfDistillationHook
from mmadn.engine.self_distillation import draw


def algorithm_1(model, data, alpha=0.5, temperature=1.0, features=()):
    """Accumulates the gradients of one iteration, written out from the paper."""
    kept = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda m, a, out, name=name: kept.__setitem__(name, out)
        )
        for name in features
    ]

    def forward(skip):
        model.backbone.set_skip(skip)
        images = (data['inputs'].float() - 127.5) / 127.5
        logits = model.head.fc(model.neck(model.backbone(images))[-1])
        return logits, [kept[name].mean((2, 3)) for name in features]

    def kl(student, teacher):
        p = F.softmax(teacher.detach() / temperature, 1)
        return (p * (p.log() - F.log_softmax(student / temperature, 1))).sum(1).mean() * temperature**2

    labels = torch.cat([s.gt_label for s in data['data_samples']])
    y_super, h_super = forward('super')
    loss_super = alpha * F.cross_entropy(y_super, labels)
    loss_super.backward()
    y_base, h_base = forward('base')
    divergence = kl(y_base, y_super) + sum(map(kl, h_base, h_super))
    loss_distill = (1 - alpha) * divergence
    loss_distill.backward()
    model.backbone.set_skip('super')
    for handle in handles:
        handle.remove()
    return loss_super.item(), loss_distill.item()


def weights(model):
    """All parameters in one vector."""
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    'arguments',
    [
        {},
        dict(alpha=0.3, temperature=2.0),
        dict(features=('backbone.layer2', 'backbone.layer4')),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    'with_cp, norm_eval',
    [(False, True), (True, True), (False, False)],
    ids=['', 'with_cp', 'statistics'],
)
@pytest.mark.parametrize('clip', [None, 0.05], ids=['', 'clip'])
@pytest.mark.parametrize('accumulate', [1, 2], ids=['', 'accumulate'])
def test_training_is_algorithm_1(arguments, with_cp, norm_eval, clip, accumulate):
    model = toy.build(backbone=dict(with_cp=with_cp, norm_eval=norm_eval))
    expected = toy.build(backbone=dict(norm_eval=norm_eval))
    for m in (model, expected):
        m.train()
    start = weights(expected)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.001, momentum=0.9)
    wrapper = OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9),
        accumulative_counts=accumulate,
        clip_grad=clip and dict(max_norm=clip),
    )
    wrapper.initialize_count_status(model, 0, 4)
    hook = SelfDistillationHook(**arguments)
    # With batch statistics over so few values, rounding grows from step to step: one step is compared.
    for i in range(4 if norm_eval else accumulate):
        data = toy.batch(seed=i)
        log = hook.train_step(model, data, wrapper)
        loss_super, loss_distill = algorithm_1(expected, data, **arguments)
        assert log['loss_super'].item() == pytest.approx(loss_super, rel=1e-4)
        assert log['loss_distill'].item() == pytest.approx(loss_distill, rel=1e-3, abs=1e-6)
        assert log['loss'] == log['loss_super'] + log['loss_distill']
        if (i + 1) % accumulate == 0:
            for p in expected.parameters():
                p.grad /= accumulate
            if clip:
                norm = nn.utils.clip_grad_norm_(expected.parameters(), clip)
                assert norm > clip  # it does clip
            optimizer.step()
            optimizer.zero_grad()
    update = weights(expected) - start
    assert (weights(model) - weights(expected)).norm() < 1e-5 * update.norm()
    for name, value in model.named_buffers():
        assert torch.allclose(value, expected.get_buffer(name), rtol=1e-5), name
    assert model.backbone.skip == 'FFFF'


@pytest.fixture
def scaled(monkeypatch):
    """Builds mmengine's wrapper with a loss scale on a CPU, without autocast: as exact as without a scale."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, device='cpu'))

    class Scaled(AmpOptimWrapper):
        optim_context = OptimWrapper.optim_context

    return partial(Scaled, loss_scale=dict(init_scale=2.0**10, growth_interval=3))


@pytest.mark.parametrize('clip', [None, 0.05], ids=['', 'clip'])
@pytest.mark.parametrize('accumulate', [1, 2], ids=['', 'accumulate'])
def test_a_loss_scale_does_not_change_the_update(scaled, accumulate, clip):
    updated = []
    for build in (OptimWrapper, scaled):
        model = toy.build(backbone=dict(norm_eval=True)).train()
        start = weights(model)
        wrapper = build(
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
            accumulative_counts=accumulate,
            clip_grad=clip and dict(max_norm=clip),
        )
        wrapper.initialize_count_status(model, 0, 4)
        for i in range(4):
            SelfDistillationHook().train_step(model, toy.batch(seed=i), wrapper)
        updated.append(weights(model))
    assert (updated[0] - updated[1]).norm() < 1e-5 * (updated[0] - start).norm()
    assert wrapper.loss_scaler.get_scale() == (2.0**11 if accumulate == 1 else 2.0**10)


@pytest.mark.parametrize('overflowing', ['FFFF', 'TTTT'])
def test_a_step_is_skipped_if_either_pass_overflows(scaled, overflowing):
    model = toy.build().train()
    wrapper = scaled(optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
    hook, start = SelfDistillationHook(), weights(model)

    def overflow(grad):
        return grad * float('inf') if model.backbone.skip == overflowing else grad

    handle = model.head.fc.weight.register_hook(overflow)
    hook.train_step(model, toy.batch(), wrapper)
    assert torch.equal(weights(model), start)
    assert wrapper.loss_scaler.get_scale() == 2.0**9
    handle.remove()
    hook.train_step(model, toy.batch(), wrapper)
    assert torch.isfinite(weights(model)).all() and not torch.equal(weights(model), start)


def test_topk_is_passed_on():
    logs = []
    for topk in (2, 500):
        model = toy.build()
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        logs.append(SelfDistillationHook(topk=topk).train_step(model, toy.batch(), wrapper))
    assert logs[0]['loss_super'] == logs[1]['loss_super']
    assert logs[0]['loss_distill'] != logs[1]['loss_distill']


def test_accuracy_of_the_head_is_logged():
    model = toy.build(cal_acc=True, topk=(1,))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    log = SelfDistillationHook().train_step(model, toy.batch(), wrapper)
    assert set(log) == {'loss', 'loss_super', 'loss_distill', 'accuracy_top-1'}


def test_mixup_is_drawn_once_for_both_passes(monkeypatch):
    augments = dict(augments=[dict(type='Mixup', alpha=1.0)])
    model = toy.build(train_cfg=augments)
    images = []
    handle = model.backbone.register_forward_pre_hook(lambda m, args: images.append(args[0].clone()))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    data = toy.batch()
    SelfDistillationHook().train_step(model, data, wrapper)
    handle.remove()
    assert len(images) == 2 and torch.equal(*images)
    assert not torch.equal(images[0], (data['inputs'].float() - 127.5) / 127.5)


class Probe(Hook):
    """Keeps what a run shows."""

    def before_train(self, runner):
        self.step = runner.model.train_step

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.outputs = outputs

    def after_train(self, runner):
        self.runner = runner


def test_runs_in_a_runner_and_gives_train_step_back(tmp_path):
    probe = Probe()
    runner = toy.runner(tmp_path, hooks=[probe])
    before = weights(runner.model)
    runner.train()
    assert not torch.equal(before, weights(runner.model))
    assert set(probe.outputs) >= {'loss', 'loss_super', 'loss_distill'}
    assert 'train_step' not in vars(runner.model)
    scalars = runner.message_hub.log_scalars
    assert {'train/loss', 'train/loss_super', 'train/loss_distill'} <= set(scalars)
    assert (tmp_path / 'epoch_2.pth').exists()


def test_ema_averages_both_copies(tmp_path):
    ema = dict(type='EMAHook', momentum=0.5, update_buffers=True)
    runner = toy.runner(tmp_path, hooks=[ema])
    runner.train()
    averaged = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    assert set(averaged['state_dict']) == set(toy.build().state_dict())
    name = 'backbone.layer1.0.bn1.skip.weight'
    assert not torch.equal(averaged['state_dict'][name], averaged['ema_state_dict'][f'module.{name}'])


def test_resume_goes_on_where_it_stopped(tmp_path):
    whole = toy.runner(tmp_path / 'whole', epochs=3)
    whole.train()
    toy.runner(tmp_path / 'parts', epochs=2).train()
    resumed = toy.runner(tmp_path / 'parts', epochs=3, resume=True, experiment_name='resumed')
    resumed.train()
    assert resumed.epoch == 3
    assert torch.allclose(weights(whole.model), weights(resumed.model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    'arguments',
    [dict(alpha=a) for a in (0, 1, -0.1, 1.5)]
    + [dict(temperature=0), dict(temperature=-1), dict(topk=0), dict(features='neck')],
    ids=str,
)
def test_bad_arguments(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f'{name}={value!r}: give'):
        SelfDistillationHook(**arguments)


def test_a_feature_that_is_no_module_stops_before_the_first_iteration(tmp_path):
    hook = dict(type='mmadn.SelfDistillationHook', features=('backbone.layer9',))
    runner = toy.runner(tmp_path, custom_hooks=[hook])
    with pytest.raises(ValueError, match="no module 'backbone.layer9'.*backbone.layer4"):
        runner.train()
    assert runner.iter == 0


def test_a_stock_backbone_stops_before_the_first_iteration(tmp_path):
    model = toy.model_cfg(backbone=dict(type='mmpretrain.ResNet'))
    runner = toy.runner(tmp_path, model=model, val_cfg=dict(), test_cfg=dict())
    with pytest.raises(TypeError, match='backbone ResNet, which has no adaptive depth'):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(cfg=Config(dict(compile=True))), '"compile" in the config'),
        (
            dict(cfg=Config(dict(efficient_conv_bn_eval=['backbone']))),
            r"efficient_conv_bn_eval=\['backbone'\]",
        ),
        (dict(model=toy.model_cfg(backbone=dict(fixed=True, skip='base'))), 'fixed=True freezes'),
        (dict(hooks=[dict(type='mmadn.SelfDistillationHook')]), 'another hook of this kind'),
    ],
    ids=['compile', 'efficient_conv_bn_eval', 'fixed', 'two hooks'],
)
def test_what_does_not_go_together_stops_before_the_first_iteration(arguments, message, tmp_path):
    runner = toy.runner(tmp_path, **arguments)
    with pytest.raises(ValueError, match=message) as error:
        runner.train()
    assert runner.iter == 0 and 'remove' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('option', ['find_unused_parameters', 'static_graph'])
def test_options_of_the_wrapper_that_stop_a_training_are_refused(option, tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        model = MMDistributedDataParallel(toy.build(), **{option: True})
        with pytest.raises(ValueError, match=f'^{option}=True: .* remove {option} from the config') as error:
            SelfDistillationHook().before_train(SimpleNamespace(model=model))
        assert '\n' not in str(error.value)
    finally:
        torch.distributed.destroy_process_group()


def test_a_sharding_wrapper_is_refused():
    @MODEL_WRAPPERS.register_module(force=True)
    class Sharded(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    runner = type('R', (), dict(model=Sharded(toy.build())))
    try:
        with pytest.raises(TypeError, match="cannot drive Sharded.*'MMDistributedDataParallel'"):
            SelfDistillationHook().before_train(runner)
    finally:
        MODEL_WRAPPERS.module_dict.pop('Sharded')


GAP = ('resnet50', 'mobilenet_v2', 'swin')
FAMILIES = {
    'resnet50': ('LinearClsHead', 128, 'backbone.layer3'),
    'mobilenet_v2': ('LinearClsHead', 1280, 'backbone.layer5'),
    'swin': ('LinearClsHead', 64, 'backbone.stages.2'),
    'vit': ('VisionTransformerClsHead', 16, 'backbone.layers.8'),
    'convnext': ('LinearClsHead', 16, 'backbone.stages.1'),
}


@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_trains_by_algorithm_1(family):
    head, channels, feature = FAMILIES[family]
    case = CASES[family]

    def build():
        torch.manual_seed(0)
        args = {k: v for k, v in case.args.items() if k != 'out_indices'}
        model = MODELS.build(
            dict(
                type='mmpretrain.ImageClassifier',
                backbone=dict(type=case.adn, **args),
                neck=dict(type='mmpretrain.GlobalAveragePooling') if family in GAP else None,
                head=dict(type=f'mmpretrain.{head}', num_classes=5, in_channels=channels),
            )
        )
        for p in model.parameters():  # away from zero-initialised branches
            p.data.add_(torch.randn_like(p), alpha=0.05)
        return model.train()

    samples = toy.batch()['data_samples']
    images = torch.randn(8, 3, case.image_size, case.image_size)
    model, expected = build(), build()

    class Wrapper(OptimWrapper):
        def step(self):
            self.grads = {name: p.grad.clone() for name, p in model.named_parameters()}

    wrapper = Wrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    SelfDistillationHook(features=(feature,)).train_step(
        model, dict(inputs=images, data_samples=samples), wrapper
    )

    kept = []
    expected.get_submodule(feature).register_forward_hook(lambda m, a, out: kept.append(out))
    expected.backbone.set_skip('super')
    y_super = expected(images)
    labels = torch.cat([s.gt_label for s in samples])
    (0.5 * F.cross_entropy(y_super, labels)).backward()
    expected.backbone.set_skip('base')
    y_base = expected(images)
    h_super, h_base = (out[0] if isinstance(out, tuple) else out for out in kept)
    pool = (2, 3) if h_super.ndim == 4 else 1
    pairs = [(y_super, y_base), (h_super.mean(pool), h_base.mean(pool))]
    kl = sum(
        (t.detach().softmax(1) * (t.detach().log_softmax(1) - s.log_softmax(1))).sum(1).mean()
        for t, s in pairs
    )
    (0.5 * kl).backward()
    for name, p in expected.named_parameters():
        assert p.grad is not None, name
        assert torch.allclose(wrapper.grads[name], p.grad, rtol=1e-3, atol=1e-6), name


def test_depths_are_chosen_and_drawn():
    backbone = toy.build().backbone
    assert draw(backbone, ('super', 'base'), 0, 7) == ['FFFF', 'TTTT']
    assert draw(backbone, ('TFFF', 'base'), 0, 7) == ['TFFF', 'TTTT']
    for depths in (('random', 'base'), ('super', 'random'), ('random', 'random')):
        pairs = [draw(backbone, depths, 0, i) for i in range(400)]
        assert pairs == [draw(backbone, depths, 0, i) for i in range(400)]  # on every process
        assert all(a != b for a, b in pairs)
        for pass_, depth in enumerate(depths):
            fixed = {'super': {'FFFF'}, 'base': {'TTTT'}}.get(depth)
            everything = set(backbone.subnets())
            others = {'base': {'TTTT'}, 'super': {'FFFF'}}.get(depths[1 - pass_], set())
            assert {pair[pass_] for pair in pairs} == (fixed or everything - others)


def test_the_two_passes_run_at_the_drawn_depths(tmp_path):
    seen = []

    class Watch(Hook):
        def before_train(self, runner):
            backbone = runner.model.backbone
            backbone.register_forward_pre_hook(lambda *args: seen.append(backbone.skip))

    hook = dict(type='mmadn.SelfDistillationHook', depths=('random', 'random'))
    runner = toy.runner(
        tmp_path, custom_hooks=[hook, Watch()], val_cfg=None, val_dataloader=None, val_evaluator=None
    )
    runner.train()
    expected = [s for i in range(8) for s in draw(runner.model.backbone, ('random', 'random'), 0, i)]
    assert seen == expected
    assert all(torch.isfinite(p).all() for p in runner.model.parameters())


class Depths(Hook):
    """Keeps the depths of all iterations."""

    def __init__(self):
        self.drawn = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        (hook,) = (hook for hook in runner.hooks if isinstance(hook, SelfDistillationHook))
        self.drawn.append(tuple(hook.skips))


@pytest.fixture
def drawn(tmp_path):
    """Runs a training with random depths and returns the pairs of all its iterations, and the runner."""

    def run(name, **settings):
        depths = Depths()
        hook = dict(type='mmadn.SelfDistillationHook', depths=('random', 'random'))
        never = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)
        runner = toy.runner(tmp_path / name, custom_hooks=[hook, depths], **never, **settings)
        runner.train()
        return depths.drawn, runner

    return run


def test_another_seed_draws_other_depths(drawn):
    pairs = [drawn(str(i), randomness=dict(seed=seed), epochs=1)[0] for i, seed in enumerate((1, 2, 1))]
    assert pairs[0] == pairs[2] != pairs[1]


@pytest.mark.parametrize('seed', [None, 3], ids=str)
def test_a_resumed_run_draws_the_depths_that_it_would_have_drawn(drawn, seed):
    """Also where mmengine chose the seed, and a run that is started again would get another one."""
    begun, first = drawn('run', randomness=dict(seed=seed), epochs=1)
    settings = dict(resume=True, epochs=2, experiment_name='resumed')
    resumed, _ = drawn('run', randomness=dict(seed=seed), **settings)
    whole, _ = drawn('whole', randomness=dict(seed=first.seed), epochs=2)
    assert len(begun) == len(resumed) == 4
    assert begun + resumed == whole


@pytest.mark.parametrize('depths', ['super', ('super',), ('super', 'TT'), ('some', 'base')], ids=str)
def test_bad_depths(depths, tmp_path):
    with pytest.raises(ValueError, match='give two|give 4 letters'):
        toy.runner(tmp_path, custom_hooks=[dict(type='mmadn.SelfDistillationHook', depths=depths)]).train()


@pytest.fixture
def teacher(tmp_path):
    """The config and the checkpoint of a stock classifier."""
    cfg = toy.model_cfg(backbone=dict(type='mmpretrain.ResNet'))
    model = MODELS.build(cfg)
    for p in model.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.02)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'teacher.pth')
    Config(dict(model=cfg)).dump(tmp_path / 'teacher.py')
    paths = dict(config=str(tmp_path / 'teacher.py'), checkpoint=str(tmp_path / 'teacher.pth'))
    return paths, model.eval()


@pytest.mark.parametrize('labels', [None, True])
def test_an_external_teacher_teaches_what_learns_from_the_labels(teacher, tmp_path, labels):
    paths, model_of_teacher = teacher
    hook = SelfDistillationHook(teacher=paths, labels=labels)
    model = toy.build(backbone=dict(norm_eval=True))
    hook.teacher.build(model)
    data = toy.batch()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    log = hook.train_step(model, data, wrapper)
    images = (data['inputs'].float() - 127.5) / 127.5
    classes = torch.cat([s.gt_label for s in data['data_samples']])
    log_p = (model_of_teacher(images) / 2).log_softmax(1)
    taught = {'super': 'loss_super', 'base': 'loss_base'} if labels else {'super': 'loss_super'}
    for skip, name in taught.items():
        with model.backbone.skipping(skip), torch.no_grad():
            ours = model(images)
        kl = 4 * (log_p.exp() * (log_p - (ours / 2).log_softmax(1))).sum(1).mean()
        assert kl > 1e-3
        expected = 0.5 * (0.9 * kl + 0.1 * F.cross_entropy(ours, classes))
        assert log[name].item() == pytest.approx(expected.item(), rel=1e-5)
    assert ('loss_base' in log) == bool(labels)


def test_a_teacher_stays_out_of_the_checkpoint(teacher, tmp_path):
    paths, model = teacher[0], toy.build()
    runner = toy.runner(
        tmp_path / 'run', custom_hooks=[dict(type='mmadn.SelfDistillationHook', teacher=paths)]
    )
    runner.train()
    saved = torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=False)['state_dict']
    assert saved.keys() == model.state_dict().keys()


def test_a_teacher_that_does_not_fit(teacher):
    paths, _ = teacher
    model = toy.build()
    model.data_preprocessor.mean += 1
    with pytest.raises(ValueError, match=r'normalises images by mean=\[127.5.*both see the same images'):
        SelfDistillationHook(teacher=paths).teacher.build(model)
    with pytest.raises(ValueError, match='teacher weight=2: give a number above 0, at most 1'):
        SelfDistillationHook(teacher=dict(**paths, weight=2))


def test_a_teacher_that_sees_the_channels_in_another_order(teacher):
    model = toy.build()
    model.data_preprocessor = MODELS.build(
        dict(type='mmpretrain.ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
    )
    with pytest.raises(ValueError, match='to_rgb=False, the model by True'):
        SelfDistillationHook(teacher=teacher[0]).teacher.build(model)


def test_a_teacher_does_not_bring_the_logits_into_the_second_pass(teacher):
    """`logits=False` compares the features alone, with a teacher of the super-net as without one."""
    logs = []
    for arguments in (dict(teacher=teacher[0]), {}):
        hook = SelfDistillationHook(logits=False, features=('backbone.layer3',), **arguments)
        model = toy.build(backbone=dict(norm_eval=True)).train()
        if hook.teacher:
            hook.teacher.build(model)
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
        logs.append(hook.train_step(model, toy.batch(), wrapper))
    assert logs[0]['loss_super'] != logs[1]['loss_super']
    assert logs[0]['loss_distill'] == logs[1]['loss_distill'] > 0


def test_an_individual_network_is_distilled(teacher, tmp_path):
    paths, model_of_teacher = teacher
    hook = DistillationHook(teacher=dict(**paths, weight=0.3, temperature=1.5))
    torch.manual_seed(3)
    model = MODELS.build(toy.model_cfg(backbone=dict(type='mmpretrain.ResNet', norm_eval=True)))
    model.train()
    hook.teacher.build(model)
    data = toy.batch()
    images = (data['inputs'].float() - 127.5) / 127.5
    labels = torch.cat([s.gt_label for s in data['data_samples']])
    with torch.no_grad():
        ours, theirs = model(images), model_of_teacher(images)
    log_p, log_q = (theirs / 1.5).log_softmax(1), (ours / 1.5).log_softmax(1)
    kl = 1.5**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()
    expected = 0.3 * kl + 0.7 * F.cross_entropy(ours, labels)
    log = hook.train_step(model, data, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01)))
    assert log['loss'].item() == pytest.approx(expected.item(), rel=1e-5)
    assert not torch.equal(model(images), ours)

    stock = toy.model_cfg(backbone=dict(type='mmpretrain.ResNet'))
    hooks = [dict(type='mmadn.DistillationHook', teacher=paths)]
    runner = toy.runner(tmp_path / 'run', model=stock, custom_hooks=hooks, val_cfg=dict(), test_cfg=dict())
    runner.train()
    assert (tmp_path / 'run' / 'epoch_2.pth').exists() and 'train_step' not in vars(runner.model)
