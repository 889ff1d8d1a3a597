"""Segmentors of mmseg: trained by the hook, and tested at several depths."""

import copy
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image
from toy import Gradients

from mmadn import SelfDistillationHook
from mmadn.engine.anatomy import logits
from mmadn.evaluation.flops import measure
from mmadn.evaluation.subnets import evaluate_subnets, is_adaptive, write_report

pytest.importorskip('mmseg')
import segmentors  # noqa: E402


def by_hand(model, data):
    """The losses and gradients of one iteration; the logits are read where heads classify pixels."""
    convs = [m for n, m in model.decode_head.named_modules() if n.endswith('conv_seg')]
    seen = {conv: [] for conv in convs}
    handles = [c.register_forward_hook(lambda m, args, out: seen[m].append(out)) for c in convs]
    losses = []
    for skip in ('super', 'base'):
        model.backbone.set_skip(skip)
        inputs = model.data_preprocessor(copy.deepcopy(data), True)
        losses.append(0.5 * model.parse_losses(model(**inputs, mode='loss'))[0])
        if skip == 'super':
            losses[0].backward()
    kl = torch.zeros(())
    for outputs in seen.values():  # heads of a cascade run twice in a pass, on the same input
        teacher, student = outputs[0].detach().log_softmax(1), outputs[-1].log_softmax(1)
        kl = kl + (teacher.exp() * (teacher - student)).sum(1).mean()  # of all pixels
    (losses[1] + 0.5 * kl).backward()
    for handle in handles:
        handle.remove()
    return losses[0].item(), losses[1].item(), 0.5 * kl.item()


@pytest.mark.parametrize('name', ['pspnet', 'semantic_fpn', 'danet', 'ocrnet'])
def test_an_iteration_is_labels_twice_and_the_divergence_of_the_pixels(name):
    model, expected = (segmentors.build(name).train() for _ in range(2))
    wrapper, data = Gradients(model), segmentors.batch()
    logs = SelfDistillationHook().train_step(model, copy.deepcopy(data), wrapper)
    losses = by_hand(expected, data)
    found = [logs[key].item() for key in ('loss_super', 'loss_base', 'loss_distill')]
    assert found == pytest.approx(losses, rel=1e-4) and losses[2] > 1e-3
    for key, p in expected.named_parameters():
        assert p.grad is not None, key
        assert (wrapper.kept[key] - p.grad).abs().max() <= 1e-6 * p.grad.abs().max().clamp(min=1), key


@pytest.mark.parametrize(
    'name, heads',
    {
        'pspnet': ['decode_head'],
        'ocrnet': ['decode_head.0', 'decode_head.1'],
        'pointrend': ['decode_head.0'],  # the other one classifies points that are drawn
    }.items(),
)
def test_the_heads_that_classify_pixels(name, heads):
    model = segmentors.build(name).train()
    assert logits(model) == heads
    logs = SelfDistillationHook().train_step(model, segmentors.batch(), Gradients(model))
    assert all(value.isfinite().all() for value in logs.values()) and logs['loss_distill'] > 0


def test_pixels_without_a_label_are_learnt_from_the_first_pass():
    data = segmentors.batch()
    for sample in data['data_samples']:
        sample.gt_sem_seg.data.fill_(255)
    model = segmentors.build().train()
    logs = SelfDistillationHook().train_step(model, data, Gradients(model))
    assert logs['loss_super'] == logs['loss_base'] == 0 < logs['loss_distill']


def runner(work_dir, test_cfg):
    loader = dict(batch_size=2, num_workers=0, dataset=segmentors.Rectangles())
    return Runner(
        model=segmentors.config(norm_eval=False),
        work_dir=str(work_dir),
        train_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=False, max_iters=4, val_interval=4),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg=dict(type='mmadn.SubnetValLoop'),
        val_evaluator=dict(type='IoUMetric'),
        test_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        test_cfg=test_cfg,
        test_evaluator=dict(type='IoUMetric'),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.01)),
        custom_hooks=[
            dict(type='mmadn.SelfDistillationHook'),
            dict(type='mmadn.CalibrationHook', num_images=32),
        ],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False)),
        default_scope='mmseg',
        randomness=dict(seed=0),
        log_level='ERROR',
        experiment_name=str(work_dir).replace('/', '_'),
    )


def test_a_runner_trains_calibrates_and_tests_at_each_depth(tmp_path):
    run = runner(tmp_path / 'trained', dict(type='mmadn.SubnetTestLoop', skips=['FFFF', 'TTFF', 'TTTT']))
    run.train()
    torch.nn.init.normal_(run.model.decode_head.conv_seg.weight)  # else every pixel is of one class
    found = run.test()
    for skip in ('FFFF', 'TTFF', 'TTTT'):
        alone = runner(tmp_path / skip, dict())
        alone.model.load_state_dict(run.model.state_dict())
        alone.model.backbone.set_skip(skip)
        expected = alone.test()
        assert {key: found[f'{skip}/{key}'] for key in expected} == expected and 'mIoU' in expected
    assert len({found[f'{skip}/mIoU'] for skip in ('FFFF', 'TTFF', 'TTTT')}) > 1


def test_a_table_of_all_depths(tmp_path):
    """From files, by a config, and as JSON: mmseg's metrics are numbers of numpy. Also of an ONNX file."""
    cfg = Config(dict(model=segmentors.config(), default_scope='mmseg', work_dir=str(tmp_path)))
    for i in range(2):
        data = segmentors.batch(1, seed=i)
        (image,), (sample,) = data['inputs'], data['data_samples']
        for folder, pixels in {'img': image.permute(1, 2, 0), 'ann': sample.gt_sem_seg.data[0]}.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels.numpy().astype('uint8')).save(tmp_path / folder / f'{i}.png')
    steps = [dict(type=name) for name in ('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs')]
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        img_suffix='.png',
        metainfo=segmentors.Rectangles.metainfo,
        pipeline=steps,
    )
    cfg.test_dataloader = dict(
        batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset
    )
    cfg.test_evaluator = dict(type='IoUMetric')
    cfg.test_cfg = dict()
    torch.save(segmentors.build().state_dict(), tmp_path / 'weights.pth')
    rows = evaluate_subnets(cfg, str(tmp_path / 'weights.pth'), ['FFFF', 'TTTT'])
    write_report(rows, tmp_path / 'report')
    written = json.loads((tmp_path / 'report/subnets.json').read_text())['subnets']
    assert [row['skip'] for row in written] == ['FFFF', 'TTTT'] and written[0]['mIoU'] == rows[0]['mIoU'] > 0

    pytest.importorskip('onnxruntime')
    from mmadn.deploy import export_onnx

    size = (3, segmentors.SIZE, segmentors.SIZE)
    export_onnx(segmentors.build(), tmp_path / 'net.onnx', size, skip='TTTT')
    (found,) = evaluate_subnets(cfg, tmp_path / 'net.onnx')
    assert {**found, 'latency_ms': 0} == pytest.approx({**rows[1], 'latency_ms': 0})


def test_costs_follow_the_depth():
    cfg = Config(dict(model=segmentors.config(), default_scope='mmseg'))
    assert is_adaptive(cfg)
    whole, base = measure(cfg, (3, 64, 64))
    assert whole['gflops'] > base['gflops'] and whole['params'] > base['params']
