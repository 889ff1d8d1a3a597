"""Detectors: trained by the hook, switched at run time, and equal to the stock ones at full depth."""

import copy
import functools
from types import SimpleNamespace

import detectors
import numpy as np
import pytest
import torch
from conftest import ROOT
from detectors import DETECTORS
from mmcv.cnn import is_norm
from mmdet.models import SemiBaseDetector
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from toy import Gradients

from mmadn import SelfDistillationHook, adaptive_backbone
from mmadn.engine.losses import feature_divergence


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')


def config(name, **changes):
    """Of a detector of `detectors`, of Fast R-CNN, or of one without a neck; `changes` replaces parts."""
    cfg = detectors.config(name if name in DETECTORS else 'faster_rcnn').model
    if name.startswith('fast_rcnn'):
        cfg.type = 'FastRCNN'
        del cfg.rpn_head, cfg.train_cfg.rpn, cfg.train_cfg.rpn_proposal, cfg.test_cfg.rpn
    if name.endswith('dc5'):
        del cfg.neck
        cfg.backbone.update(out_indices=(3,), strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
        cfg.roi_head.bbox_roi_extractor.update(featmap_strides=[16], out_channels=128)
        cfg.roi_head.bbox_head.in_channels = 128
        if 'rpn_head' in cfg:
            cfg.rpn_head.update(in_channels=128)
            cfg.rpn_head.anchor_generator.strides = [16]
    for path, value in changes.items():
        *parents, key = path.split('.')
        functools.reduce(getattr, parents, cfg)[key] = value
    return cfg


def build(name, **changes):
    torch.manual_seed(0)
    model = MODELS.build(config(name, **changes))
    model.init_weights()
    return model.train()


def batch(name='', seed=0):
    """A batch of `detectors`, for Fast R-CNN with proposals: the objects moved, and boxes without any."""
    data = detectors.batch(seed=seed)
    if name.startswith('fast_rcnn'):
        for sample in data['data_samples']:
            corner = torch.arange(0.0, 48.0, 4.0)[:, None].repeat(1, 2)
            boxes = [sample.gt_instances.bboxes + 2, torch.cat([corner, corner + 12], 1)]
            sample.proposals = InstanceData(bboxes=torch.cat(boxes))
    return data


def by_hand(model, data, neck=True, level=None, labels=True):
    """The losses and gradients of one iteration, written out from the paper's COCO runs."""
    seen = []
    compared = model.neck if model.with_neck else model.backbone
    handle = compared.register_forward_hook(lambda m, args, out: seen.append(out))
    data = model.data_preprocessor(data, True)
    model.backbone.set_skip('super')
    loss_super = 0.5 * model.parse_losses(model(**copy.deepcopy(data), mode='loss'))[0]
    loss_super.backward()
    model.backbone.set_skip('base')
    loss_base = 0.5 * model.parse_losses(model(**data, mode='loss'))[0]
    handle.remove()
    kl = torch.zeros(())
    for i, (teacher, student) in enumerate(zip(*seen, strict=True)):
        if neck and level in (None, i):
            p = teacher.detach().mean((2, 3)).softmax(1)
            kl = kl + (p * (p.log() - student.mean((2, 3)).log_softmax(1))).sum(1).mean()
    (loss_base + 0.5 * kl).backward()
    return loss_super.item(), loss_base.item(), 0.5 * kl.item()


@pytest.mark.parametrize('arguments', [{}, dict(features=())], ids=['KL', 'no KL'])
@pytest.mark.parametrize('name', [*DETECTORS, 'fast_rcnn', 'dc5', 'fast_rcnn_dc5'])
def test_an_iteration_is_the_papers(name, arguments):
    """Fast R-CNN takes the boxes out of the proposals in the batch."""
    model, expected = (build(name) for _ in range(2))
    wrapper, data = Gradients(model), batch(name)
    torch.manual_seed(1)  # two-stage heads sample
    logs = SelfDistillationHook(**arguments).train_step(model, copy.deepcopy(data), wrapper)
    torch.manual_seed(1)
    losses = by_hand(expected, data, neck='features' not in arguments)
    assert logs['loss_super'].item() == pytest.approx(losses[0], rel=1e-5)
    assert logs['loss_base'].item() == pytest.approx(losses[1], rel=1e-5)
    if arguments:
        assert 'loss_distill' not in logs
    else:
        assert logs['loss_distill'].item() == pytest.approx(losses[2], rel=1e-4)
        assert losses[2] > 1e-4
    assert logs['loss'].item() == pytest.approx(sum(losses), rel=1e-5)
    assert 'loss_bbox' in logs  # of the super-net, as stock training logs it
    for parameter_name, p in expected.named_parameters():
        assert p.grad is not None, parameter_name
        assert torch.allclose(wrapper.kept[parameter_name], p.grad, rtol=1e-3, atol=1e-6), parameter_name
    assert model.backbone.skip == 'FFFF'


@pytest.mark.parametrize('name', ['faster_rcnn', 'retinanet'])
def test_the_level_with_most_foreground_anchors(name):
    model, expected = (detectors.build(name).train() for _ in range(2))
    head = getattr(expected, 'bbox_head' if name == 'retinanet' else 'rpn_head')
    stock, counts = head.get_targets, []

    def counting(*args, **kwargs):
        targets = stock(*args, **kwargs)
        counts.append(
            [int((labels < head.num_classes).logical_and(labels >= 0).sum()) for labels in targets[0]]
        )
        return targets

    head.get_targets = counting
    data = detectors.batch()
    torch.manual_seed(1)
    seen = []
    handle = expected.neck.register_forward_hook(lambda m, args, out: seen.append(out))
    by_hand(expected, copy.deepcopy(data))
    handle.remove()
    level = counts[0].index(max(counts[0]))
    assert max(counts[0]) > sorted(counts[0])[-2]  # there is one
    teacher, student = (out[level].detach().mean((2, 3)) for out in seen)
    p = teacher.softmax(1)
    kl = (p * (p.log() - student.log_softmax(1))).sum(1).mean()

    torch.manual_seed(1)
    hook = SelfDistillationHook(levels='foreground')
    logs = hook.train_step(model, data, Gradients(model))
    assert logs['loss_distill'].item() == pytest.approx(0.5 * kl.item(), rel=1e-4)
    assert 'get_targets' not in vars(getattr(model, 'bbox_head' if name == 'retinanet' else 'rpn_head'))


DYNAMIC = dict(iou_topk=3, beta_topk=2, update_iter_interval=3, initial_iou=0.1, initial_beta=1.0)
STATISTICS = {  # the detector, what it gets instead of its own
    'Dynamic R-CNN': (
        'faster_rcnn',
        {
            'roi_head.type': 'DynamicRoIHead',
            'roi_head.bbox_head.loss_bbox': dict(type='SmoothL1Loss', beta=1.0),
            'train_cfg.rcnn.dynamic_rcnn': DYNAMIC,
        },
    ),
    'Seesaw': ('faster_rcnn', {'roi_head.bbox_head.loss_cls': dict(type='SeesawLoss', num_classes=4)}),
    'EQLv2': ('faster_rcnn', {'roi_head.bbox_head.loss_cls': dict(type='EQLV2Loss', num_classes=4)}),
    'GHM': ('retinanet', {'bbox_head.loss_cls': dict(type='GHMC', bins=5, momentum=0.75)}),
}


def statistics(model):
    """What the heads of a detector remember from iteration to iteration."""
    found = {
        f'{path}.{name}': buffer
        for path, module in model.named_modules()
        if not path.startswith('backbone') and not is_norm(module)
        for name, buffer in module.named_buffers(recurse=False)
    }
    if type(head := getattr(model, 'roi_head', None)).__name__ == 'DynamicRoIHead':
        found.update(ious=torch.tensor(head.iou_history), betas=torch.tensor(head.beta_history))
        found.update(beta=torch.tensor(head.bbox_head.loss_bbox.beta))
        assigner = head.bbox_assigner
        thresholds = assigner.pos_iou_thr, assigner.neg_iou_thr, assigner.min_pos_iou
        found.update(thresholds=torch.tensor(thresholds))
    return found


@pytest.mark.parametrize('name', STATISTICS)
def test_statistics_of_losses_follow_the_first_pass(name):
    """After each of four iterations they are those of the super-net trained alone with the same weights."""
    detector, changes = STATISTICS[name]
    model, expected = build(detector, **changes), build(detector, **changes)
    start = copy.deepcopy(statistics(model))
    hook, wrapper = SelfDistillationHook(), Gradients(model)
    for i in range(4):
        torch.manual_seed(i)  # two-stage heads sample
        hook.train_step(model, detectors.batch(seed=i), wrapper)
        torch.manual_seed(i)
        data = expected.data_preprocessor(detectors.batch(seed=i), True)
        expected(**data, mode='loss')
        found, wanted = statistics(model), statistics(expected)
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert torch.equal(found[key], wanted[key]), (i, key)
    assert any(not torch.equal(start[key], found[key]) for key in start)  # there are some


class Tracker(BaseModel):
    """A model around a detector, whose parts have other names in it."""

    def __init__(self, detector):
        super().__init__(data_preprocessor=detector.data_preprocessor)
        self.detector = detector

    def forward(self, *args, **kwargs):
        return self.detector(*args, **kwargs)


@pytest.mark.parametrize(
    'name, changes, arguments',
    [
        ('retinanet', {}, dict(levels='foreground')),
        ('fast_rcnn_dc5', {}, {}),
        ('dc5', STATISTICS['Dynamic R-CNN'][1], {}),
        (*STATISTICS['GHM'], dict(features=['neck'])),
    ],
    ids=['foreground', 'batch', 'dynamic', 'GHM'],
)
def test_a_detector_inside_a_model_trains_as_by_itself(name, changes, arguments):
    """Without a neck, too; both passes get the whole batch, and what heads remember follows the first."""
    model, alone = (build(name, **changes) for _ in range(2))
    wrapper, expected = Gradients(Tracker(model)), Gradients(alone)
    inside = {k: [f'detector.{n}' for n in v] if k == 'features' else v for k, v in arguments.items()}
    for i in range(2):
        torch.manual_seed(i)
        logs = SelfDistillationHook(**inside).train_step(wrapper.model, batch(name, seed=i), wrapper)
        torch.manual_seed(i)
        wanted = SelfDistillationHook(**arguments).train_step(alone, batch(name, seed=i), expected)
    assert logs == wanted and logs['loss_distill'] > 0
    for key, gradient in expected.kept.items():
        assert torch.equal(wrapper.kept[f'detector.{key}'], gradient), key
    found, wanted = statistics(model), statistics(alone)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted) and (wanted or not changes)


def test_the_student_learns_and_the_teacher_stays_at_its_depth():
    """Semi-supervised: a hand-written iteration on labelled images and on pseudo labels of the teacher."""
    detector = config('faster_rcnn')
    detector.test_cfg.rcnn.score_thr = 0.0  # an untrained teacher is sure of nothing

    def make():
        torch.manual_seed(0)
        model = SemiBaseDetector(
            detector,
            semi_train_cfg=ConfigDict(cls_pseudo_thr=0.0),
            semi_test_cfg=ConfigDict(predict_on='teacher'),
            data_preprocessor=dict(
                type='MultiBranchDataPreprocessor', data_preprocessor=detector.data_preprocessor
            ),
        )
        model.teacher.load_state_dict(model.student.state_dict())
        return model.train()

    def data():
        kinds = {kind: detectors.batch(1, seed=i) for i, kind in enumerate(['sup', 'unsup_teacher'])}
        kinds['unsup_student'] = copy.deepcopy(kinds['unsup_teacher'])
        for kind in kinds.values():
            kind['data_samples'][0].set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
        return {
            key: {kind: values[key] for kind, values in kinds.items()} for key in ('inputs', 'data_samples')
        }

    model, expected = make(), make()
    wrapper, depths = Gradients(model), []
    model.teacher.backbone.register_forward_hook(lambda m, args, out: depths.append(m.skip))
    SelfDistillationHook(levels='foreground').prepare(SimpleNamespace(model=model, iter=0))
    torch.manual_seed(1)
    logs = SelfDistillationHook().train_step(model, data(), wrapper)
    assert depths == ['FFFF', 'FFFF'] and adaptive_backbone(model) is model.student.backbone

    seen, losses = [], []
    expected.student.neck.register_forward_hook(lambda m, args, out: seen.append(out))
    torch.manual_seed(1)
    for skip in ('super', 'base'):
        expected.student.backbone.set_skip(skip)
        inputs = expected.data_preprocessor(data(), True)
        parts = expected(**inputs, mode='loss')
        assert parts['unsup_loss_bbox'] > 0
        losses.append(0.5 * expected.parse_losses(parts)[0])
        if skip == 'super':
            losses[0].backward()
    kl = sum(feature_divergence(seen[i + 2], seen[i]) for i in range(2)) / 2  # labelled and unlabelled
    (losses[1] + 0.5 * kl).backward()
    found = [logs[f'loss_{name}'].item() for name in ('super', 'base', 'distill')]
    assert found == pytest.approx([losses[0].item(), losses[1].item(), 0.5 * kl.item()], rel=1e-5)
    for key, p in expected.named_parameters():
        assert (p.grad is None) == key.startswith('teacher.') == (wrapper.kept[key] is None), key
        if p.grad is not None:
            assert torch.allclose(wrapper.kept[key], p.grad, rtol=1e-4, atol=1e-6), key
    assert adaptive_backbone(model.eval()) is model.teacher.backbone  # which predicts


@pytest.mark.parametrize('levels', ['all', 'foreground'])
@pytest.mark.parametrize('name', DETECTORS)
def test_images_without_objects_and_absent_classes_are_no_trouble(name, levels):
    """The gradients of a batch without any object are finite; some class never occurs in any batch here."""
    model = detectors.build(name).train()
    wrapper = Gradients(model)
    logs = SelfDistillationHook(levels=levels).train_step(model, detectors.batch(objects=False), wrapper)
    assert all(torch.isfinite(value).all() for value in logs.values())
    assert all(torch.isfinite(grad).all() for grad in wrapper.kept.values() if grad is not None)
    mixed = detectors.batch(n=2)
    mixed['data_samples'][1] = detectors.batch(objects=False)['data_samples'][1]
    labels = mixed['data_samples'][0].gt_instances.labels
    assert len(set(labels.tolist())) < 4
    logs = SelfDistillationHook(levels=levels).train_step(model, mixed, wrapper)
    assert all(torch.isfinite(value).all() for value in logs.values())


def test_what_does_not_fit_a_detector_is_said():
    model = detectors.build('retinanet')
    runner = type('R', (), dict(model=model, iter=0))
    for arguments, message in {
        'levels': (dict(levels='most'), "levels='most': give 'all' or 'foreground'"),
        'neck': (dict(levels='foreground', features=()), "needs 'neck' among the features"),
        'head': (dict(logits=True), "no module 'head' to distil in RetinaNet"),
        'nothing': (dict(labels=False, features=()), 'nothing is left for the base-net to learn from'),
    }.values():
        with pytest.raises(ValueError, match=message):
            SelfDistillationHook(**arguments).prepare(runner)
    del model.bbox_head
    with pytest.raises(ValueError, match="no head with get_targets: .*levels='all'"):
        SelfDistillationHook(levels='foreground').prepare(runner)


@pytest.mark.parametrize('name', DETECTORS)
def test_full_depth_is_the_stock_detector(name):
    """With a stock detector's weights: the same bits at FFFF, the same form elsewhere."""

    def narrow(config):
        cfg = Config.fromfile(ROOT / f'configs/det/{name}_{config}_coco.py')
        cfg.model.backbone.update(base_channels=4, stem_channels=4, init_cfg=None)
        cfg.model.neck.in_channels = [16, 32, 64, 128]
        cfg.model.test_cfg.get('rcnn', cfg.model.test_cfg).update(score_thr=0.0, max_per_img=10)
        torch.manual_seed(0)
        return MODELS.build(cfg.model).eval()

    stock, adaptive = narrow('r50'), narrow('r50adn')
    assert type(stock.backbone).__module__.startswith('mmdet.')
    generator = torch.Generator().manual_seed(0)
    state = stock.state_dict()
    for key, value in state.items():  # statistics and weights unlike those at the start
        if value.is_floating_point() and 'backbone' in key:
            value.mul_(1 + 0.2 * torch.rand(value.shape, generator=generator))
    adaptive.load_state_dict(state)
    data = detectors.batch()

    def predict(model):
        with torch.no_grad():
            return [sample.pred_instances for sample in model.test_step(copy.deepcopy(data))]

    expected = predict(stock)
    assert all(len(found) for found in expected)
    for skip in adaptive.backbone.subnets():
        adaptive.backbone.set_skip(skip)
        found = predict(adaptive)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.keys() == theirs.keys()
            for key in theirs.keys():
                assert ours[key].dtype == theirs[key].dtype and ours[key].shape[1:] == theirs[key].shape[1:]
                if skip == 'FFFF':
                    assert torch.equal(ours[key], theirs[key]), key
    assert not torch.equal(found[0].scores, expected[0].scores)


@pytest.mark.parametrize('name', DETECTORS)
def test_a_stream_that_changes_depth(name):
    """Image by image at another depth: what detectors that stay at that depth find."""
    model = detectors.build(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
    model.test_cfg.get('rcnn', model.test_cfg).score_thr = 0.0
    skips = ['FFFF', 'TTTT', 'TFFT', 'FFFF', 'FTTF', 'TTTT']
    images = [detectors.batch(n=1, seed=i) for i in range(len(skips))]

    def find(model, image):
        with torch.no_grad():
            return model.test_step(copy.deepcopy(image))[0].pred_instances

    stream = []
    for skip, image in zip(skips, images, strict=True):
        model.backbone.set_skip(skip)
        stream.append(find(model, image))
    for skip in set(skips):
        fixed = copy.deepcopy(model)
        fixed.backbone.set_skip(skip)
        for i, image in enumerate(images):
            if skips[i] == skip:
                expected = find(fixed, image)
                assert len(expected) and all(
                    torch.equal(stream[i][key], expected[key]) for key in expected.keys()
                )


@pytest.mark.parametrize('kind', ['adn-super', 'adn-base', '', '-base'])
@pytest.mark.parametrize('name', DETECTORS)
def test_one_depth_leaves_no_parameter_without_a_gradient(name, kind):
    """As DistributedDataParallel asks, without a search for unused parameters; norms and stem frozen."""
    cfg = Config.fromfile(ROOT / f'configs/det/{name}_r50{kind}_coco.py')
    cfg.model.backbone.update(base_channels=4, stem_channels=4, init_cfg=None)
    cfg.model.neck.in_channels = [16, 32, 64, 128]
    model = MODELS.build(cfg.model).train()
    data = model.data_preprocessor(detectors.batch(), True)
    model.parse_losses(model(**data, mode='loss'))[0].backward()
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert trained == {key for key, p in model.named_parameters() if p.grad is not None}
    frozen = set(dict(model.named_parameters())) - trained
    assert all(
        f'backbone.{part}.' in ' '.join(frozen) for part in ('conv1', 'layer1.0.conv1', 'layer4.0.bn1')
    )
    assert any('layer2.0.conv1' in key for key in trained)
    assert ('layer2.3.conv1' in ' '.join(trained)) == (kind in ('', 'adn-super'))
