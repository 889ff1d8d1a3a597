"""Whole detectors in ONNX files."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from torch import nn

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('mmcv.ops')

import detectors  # noqa: E402
from mmcv.ops import DeformConv2d  # noqa: E402
from mmdet.models.roi_heads.mask_heads import FCNMaskHead  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402

from mmadn.deploy import AdaptiveSession, export_onnx  # noqa: E402
from mmadn.deploy.onnx import detections, export, whole  # noqa: E402
from mmadn.deploy.onnx.comparing import runner  # noqa: E402
from mmadn.deploy.onnx.detections import _Compared, _lowered, compare_detections  # noqa: E402
from mmadn.deploy.onnx.pasting import paste_masks  # noqa: E402
from mmadn.deploy.onnx.session import describe, open_session  # noqa: E402
from mmadn.deploy.onnx.testing import ExportedFile  # noqa: E402

SHAPE = 3, 64, 96


def build(name, change=None, **test_cfg):
    """A detector of configs/demo, made as small as can be, that finds things in noise."""
    cfg = detectors.config(
        name, depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)
    ).model
    cfg.neck.update(in_channels=[4, 8], num_outs=2, norm_cfg=None)
    for head in (cfg.get('rpn_head'), cfg.get('bbox_head')):
        if head and 'anchor_generator' in head:
            head.anchor_generator.strides = [4, 8]
    for part in ('bbox_roi_extractor', 'mask_roi_extractor'):
        if part in cfg.get('roi_head', ()):
            cfg.roi_head[part].update(featmap_strides=[4, 8], finest_scale=14)
    (cfg.test_cfg.get('rcnn') or cfg.test_cfg).update(test_cfg)
    if change:
        change(cfg)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg)
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)  # the norms of two depths differ
        elif tensor.ndim > 1 and 'backbone' not in name:
            part = 0.2 if 'reg' in name else 1  # boxes stay near their anchors
            tensor.normal_(0, part * tensor[0].numel() ** -0.5)
    return model.eval()


@pytest.fixture(scope='module')
def mask_rcnn(tmp_path_factory):
    """A tiny Mask R-CNN and its adaptive file."""
    model = build('mask_rcnn')
    path = tmp_path_factory.mktemp('onnx') / 'mask_rcnn.onnx'
    rows = export_onnx(model, path, SHAPE, adaptive=True)
    return model, path, rows


def detected(model, images, sizes, score_thr=None):
    """What mmdet's own `predict` gives."""
    head = getattr(model, 'roi_head', None) or model.bbox_head
    usual = copy.copy(head.test_cfg)
    if score_thr is not None:
        head.test_cfg.score_thr = score_thr
    meta = dict(scale_factor=(1.0, 1.0), batch_input_shape=tuple(images.shape[2:]))
    meta = [dict(img_shape=size, ori_shape=size, **meta) for size in sizes]
    try:
        with torch.no_grad():
            samples = [DetDataSample(metainfo=each) for each in meta]
            return [found.pred_instances for found in model.predict(images, samples, rescale=False)]
    finally:
        head.test_cfg = usual


def run(path, images, sizes, **inputs):
    session = open_session(path, threads=1)
    names = [out.name for out in session.get_outputs()]
    inputs.update(images=images.numpy(), sizes=np.array(sizes))
    return dict(zip(names, session.run(names, inputs), strict=True))


def assert_same(expected, found, sizes):
    for i, (instances, size) in enumerate(zip(expected, sizes, strict=True)):
        number = len(instances)
        assert (found['labels'][i, number:] == -1).all() and (found['dets'][i, number:] == -1).all()
        dets = torch.cat([instances.bboxes, instances.scores[:, None]], 1).numpy()
        np.testing.assert_allclose(found['dets'][i, :number], dets, atol=1e-3)
        np.testing.assert_array_equal(found['labels'][i, :number], instances.labels.numpy())
        if 'masks' in found:
            masks = paste_masks(found['masks'][i, :number], found['dets'][i, :number, :4], *size)
            assert (masks != instances.masks.numpy()).mean() < 1e-5 if number else True


SIZES = [(72, 100), (60, 88), (72, 40)]  # of a batch; what is left of the images is padding


@pytest.mark.parametrize('skip', ['FF', 'FT', 'TF', 'TT'])
def test_a_batch_of_images_of_other_sizes_at_every_depth(mask_rcnn, skip):
    model, path, _ = mask_rcnn
    images = torch.randn(3, 3, 72, 100, generator=torch.Generator().manual_seed(5))
    images[1] *= 0.1
    usual = detected(model, images, SIZES)
    score_thr = float(torch.cat([found.scores for found in usual]).quantile(0.7))
    with model.backbone.skipping(skip):
        for given in None, score_thr, 1.0:
            expected = detected(model, images, SIZES, given)
            inputs = {} if given is None else {'score_thr': np.array(given, np.float32)}
            found = run(path, images, SIZES, skip=np.array([flag == 'T' for flag in skip]), **inputs)
            assert_same(expected, found, SIZES)
            assert any(map(len, expected)) == (given != 1.0)
    assert len(usual[0]) > 5


def test_what_a_file_takes_and_gives(mask_rcnn):
    _, path, rows = mask_rcnn
    session = open_session(path)
    takes = {value.name: (value.type, value.shape) for value in session.get_inputs()}
    assert takes == {
        'images': ('tensor(float)', ['batch', 3, 'height', 'width']),
        'skip': ('tensor(bool)', [2]),
        'sizes': ('tensor(int64)', ['batch', 2]),
    }
    gives = {value.name: value.shape for value in session.get_outputs()}
    assert gives == {'dets': ['batch', 20, 5], 'labels': ['batch', 20], 'masks': ['batch', 20, 28, 28]}
    assert [value.name for value in session.get_overridable_initializers()] == ['score_thr']
    assert describe(session)['output'] == 'detections'
    assert [row['skip'] for row in rows] == ['FF', 'FT', 'TF', 'TT']
    assert min(row['detections'] for row in rows) >= 10 and not any(row['missing'] for row in rows)


def test_a_file_predicts_in_place_of_a_detector(mask_rcnn):
    model, path, _ = mask_rcnn
    other = build('mask_rcnn')
    for parameter in other.parameters():
        parameter.data.zero_()
    generator = torch.Generator().manual_seed(5)
    images = [torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES[:2]]
    metas = [dict(img_shape=s, ori_shape=(36, 50), scale_factor=(s[1] / 50, s[0] / 36)) for s in SIZES[:2]]

    def predict(model):
        samples = [DetDataSample(metainfo=meta) for meta in metas]
        with model.backbone.skipping('TF'):
            found = model.test_step(dict(inputs=images, data_samples=samples))
        return [sample.pred_instances for sample in found]

    expected = predict(model)
    with ExportedFile(path).predicting(other):
        found = predict(other)
    for right, got in zip(expected, found, strict=True):
        assert len(right) == len(got) > 3
        torch.testing.assert_close(got.bboxes, right.bboxes, atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(got.scores, right.scores, atol=1e-4, rtol=1e-3)
        assert got.masks.shape == right.masks.shape and (got.masks != right.masks).float().mean() < 1e-3


def test_eight_bits_with_heads_in_float_of_which_a_tower_has_a_depth_too(tmp_path):
    parts = dict(bbox_head=dict(residual_stages=['cls_convs']))
    model = build('retinanet', lambda cfg: cfg.update(type='mmadn.ADNRetinaNet', parts=parts))
    vary(model)
    path, generator = tmp_path / 'a.onnx', torch.Generator().manual_seed(3)
    images = [torch.randn(16, 3, *size, generator=generator) for size in [(64, 96), (32, 64)]]
    rows = export_onnx(model, path, SHAPE, adaptive=True, int8=images)
    assert [row['skip'] for row in rows] == model.subnets() and len(rows) == 8
    assert all(0 < row['lost'] < 0.2 and row['detections'] >= 10 and not row['missing'] for row in rows)
    session = AdaptiveSession(path)
    assert session.about['int8'] == 32 and session.about['parts'] == {'backbone': 2, 'bbox_head': 1}
    for skip in 'backbone=TF,bbox_head=T', {'backbone': 'FT'}, 'base', 'FTF':
        assert session.parse_skip(skip) == model.parse_skip(skip)
    with pytest.raises(ValueError, match='give depths of backbone, bbox_head'):
        session.parse_skip('neck=T')
    found = {skip: session.run(images[0], skip)[0] for skip in session.subnets()}
    assert len({dets.tobytes() for dets in found.values()}) == 8
    file = onnx.load(path)
    (scan,) = (node for node in file.graph.node if node.op_type == 'Scan')
    heads = {node.op_type for node in nodes(onnx.helper.get_node_attr_value(scan, 'body'))}
    assert 'Conv' in heads and 'QuantizeLinear' not in heads
    assert 'QuantizeLinear' in {node.op_type for node in file.graph.node}


def nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField('g'):
                yield from nodes(attribute.g)


def test_one_depth_and_one_size_with_suppression_across_classes(tmp_path):
    model = build('retinanet', nms=dict(type='nms', iou_threshold=0.3, class_agnostic=True), max_per_img=100)
    export_onnx(model, tmp_path / 'a.onnx', SHAPE, skip='TF', dynamic=False)
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5))
    sizes = [SHAPE[1:], (40, 96)]
    with model.backbone.skipping('TF'):
        expected = detected(model, images, sizes)
    assert_same(expected, run(tmp_path / 'a.onnx', images, sizes), sizes)
    model.bbox_head.test_cfg.nms.class_agnostic = False
    with model.backbone.skipping('TF'):
        others = detected(model, images, sizes)
    assert [len(found) for found in others] != [len(found) for found in expected]


def changed(path, folder, name, change):
    """A copy of a file in which a number of the heads is another one."""
    made = onnx.load(path)
    (body,) = (node.attribute for node in made.graph.node if node.op_type == 'Scan')
    graph = next(attribute.g for attribute in body if attribute.name == 'body')
    weight = next(w for w in graph.initializer if name in w.name)
    weight.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(weight)), weight.name))
    onnx.save(made, folder / 'changed.onnx')
    return folder / 'changed.onnx'


@pytest.mark.parametrize(
    'name, change, says',
    [
        (
            'fc_cls.bias',
            lambda bias: bias + np.eye(5, dtype=np.float32)[0],
            'would detect something else .* FF',
        ),
        ('fc_reg.bias', lambda bias: bias + np.float32(0.05), 'would detect something else .* at depth FF'),
        ('conv_logits.bias', lambda bias: bias + np.float32(2), 'masks .* would differ .* at depth FF'),
    ],
)
def test_a_file_that_detects_something_else_is_refused(mask_rcnn, tmp_path, name, change, says, monkeypatch):
    model, path, _ = mask_rcnn
    monkeypatch.setattr(detections, 'TRIES', 2)
    path = changed(path, tmp_path, name, change)
    with pytest.raises(RuntimeError, match=says), torch.no_grad():
        compare_detections(model, path, SHAPE, ['FF'], True, True)


def test_what_differs_in_some_images_alone_is_compared_in_others(mask_rcnn, monkeypatch):
    """As where scores are equal, whose order nobody promises."""
    model, path, _ = mask_rcnn
    examples, seeds = detections._examples, []

    def watched(*args):
        seeds.append(args[-2])  # the last are the feature maps
        return examples(*args)

    def unlucky(path, adaptive):
        run = runner(path, adaptive)
        return lambda skip, **inputs: {
            name: values + 1 if name == 'labels' and seeds[-1] < 2 else values
            for name, values in run(skip, **inputs).items()
        }

    monkeypatch.setattr(detections, '_examples', watched)
    monkeypatch.setattr(detections, 'runner', unlucky)
    (row,) = compare_detections(model, path, SHAPE, ['TF'], True, True)
    assert seeds == 2 * [0, 1, 2] and row['detections'] >= 10 and not row['missing']


def test_a_comparison_lowers_the_threshold_until_there_are_detections():
    scores = torch.linspace(0, 0.1, 30)
    threshold, found = _lowered(0.5, lambda least: [scores[scores > least]])
    assert threshold == 0.5 / 16 and len(found[0]) == 20


def test_what_finds_nothing_or_computes_no_numbers_cannot_be_compared(mask_rcnn):
    with pytest.raises(RuntimeError, match='mmdet detects nothing at depth TF even at scores near 0'):
        _Compared(0.5).check(' at depth TF')
    model, path, _ = mask_rcnn
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.neck.fpn_convs[0].conv.bias.fill_(float('nan'))
        with pytest.raises(RuntimeError, match='torch itself computes NaN .* at depth TF'):
            compare_detections(model, path, SHAPE, ['TF'], True, True)


def test_a_file_that_fails_on_a_size_is_refused_in_one_line(mask_rcnn):
    model, path, _ = mask_rcnn
    with pytest.raises(
        RuntimeError, match=r'would fail on images of shape \(1, 3, 0, 0\); it was not written'
    ):
        runner(path, True)('FF', images=np.zeros((1, 3, 0, 0), np.float32), sizes=np.array([[0, 0]]))


@pytest.mark.parametrize(
    'change, says',
    [
        (lambda m: m.roi_head.test_cfg.nms.update(type='soft_nms'), "'soft_nms'.*: a file takes type='nms'"),
        (
            lambda m: m.rpn_head.test_cfg.nms.update(offset=1),
            "'offset': 1.*: a file takes type='nms' with offset=0",
        ),
        (
            lambda m: m.roi_head.test_cfg.update(max_per_img=-1),
            'test_cfg of StandardRoIHead has no max_per_img',
        ),
        (
            lambda m: setattr(m.roi_head.bbox_roi_extractor.roi_layers[0], 'pool_mode', 'max'),
            'RoIAlign.*no form',
        ),
        (lambda m: m.neck.add_module('extra', DeformConv2d(4, 4, 3)), 'has a DeformConv2d that has no form'),
        (lambda m: setattr(m, 'roi_head', None), 'MaskRCNN has no roi_head or bbox_head'),
    ],
)
def test_what_has_no_form_in_onnx_is_refused_at_once(mask_rcnn, tmp_path, monkeypatch, change, says):
    model = copy.deepcopy(mask_rcnn[0])
    change(model)
    monkeypatch.setattr(whole, 'trace_heads', None)
    with pytest.raises(ValueError, match=f'{says}.*--features') as refused:
        export_onnx(model, tmp_path / 'a.onnx', SHAPE)
    assert '\n' not in str(refused.value) and not any(tmp_path.iterdir())


def test_heads_that_cannot_be_traced_are_refused_in_one_line(mask_rcnn, tmp_path, monkeypatch):
    model = copy.deepcopy(mask_rcnn[0])
    monkeypatch.setattr(export, '_fixed', None)  # nothing else is done before
    monkeypatch.setattr(model.roi_head, 'predict', lambda *args, **kwargs: 1 / 0)
    with pytest.raises(
        RuntimeError, match='heads of MaskRCNN cannot be exported .*division by zero.*--features'
    ):
        export_onnx(model, tmp_path / 'a.onnx', SHAPE)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    'guard, fits',
    [
        ("min(9, 3*L['features'][0].size()[1]) <= 3*L['features'][0].size()[1]", True),
        ("L['features'][0].size()[1] == 8", False),
        ("9 < L['features'][0].size()[2]*L['features'][0].size()[1]", True),
        ("100 > L['features'][0].size()[2]*L['features'][0].size()[1]", False),
    ],
)
def test_a_trace_that_holds_for_one_size_alone_is_refused(guard, fits):
    program, features = SimpleNamespace(_guards_code=[guard]), [torch.zeros(3, 8, 6)]
    if fits:
        return whole._check_guards(program, features)
    with pytest.raises(RuntimeError, match='would only fit images of which .*size'):
        whole._check_guards(program, features)


def test_feature_maps_of_a_detector_on_demand(mask_rcnn, tmp_path, monkeypatch):
    monkeypatch.setattr(whole, 'trace_heads', None)
    monkeypatch.setattr(export, '_fixed', lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_onnx(mask_rcnn[0], tmp_path / 'a.onnx', SHAPE, features=True)


@pytest.fixture(scope='module')
def dino():
    """A tiny DINO, whose decoder alone has a depth."""
    cfg = detectors.dino(parts=['decoder'], num_feature_levels=2).model
    two = dict(depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    cfg.backbone.update(two, type='ResNet')
    cfg.neck.update(in_channels=[4, 8], num_outs=2)
    for coder, number in (cfg.encoder, 1), (cfg.decoder, 2):
        coder.num_layers = number
        for attention in 'self_attn_cfg', 'cross_attn_cfg':
            if 'num_levels' in coder.layer_cfg.get(attention, ()):
                coder.layer_cfg[attention].num_levels = 2
    cfg.backbone.pop('zero_init_residual')
    model = detectors.initialized(cfg).eval()
    vary(model)
    return model


def vary(model):
    """Makes all depths differ, and all scores."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if '.skip.' in name or 'cls_branches' in name:
            parameter.data += torch.randn(parameter.shape, generator=generator)


def test_a_detr_in_padded_images(dino, tmp_path):
    (row,) = export_onnx(dino, tmp_path / 'dino.onnx', SHAPE, skip='decoder=T')
    assert row['skip'] == 'T' and not row['missing']
    images = torch.randn(3, 3, 72, 100, generator=torch.Generator().manual_seed(5))
    found = run(tmp_path / 'dino.onnx', images, SIZES)
    whole = detected(dino, images, SIZES)
    with dino.skipping('T'):
        expected = detected(dino, images, SIZES)
    assert_same(expected, found, SIZES)
    assert all(len(instances) == 20 for instances in expected)
    assert (whole[0].scores - expected[0].scores).abs().max() > 1e-3


def test_a_session_leaves_out_scores_where_the_file_does_not(mask_rcnn, tmp_path):
    """As of a DETR, which has no threshold of its own."""
    model, path, _ = mask_rcnn
    file, cfg = onnx.load(path), detectors.config('mask_rcnn')
    export._write_description(file, model, model.backbone.skip, True, cfg, None)
    (given,) = (value for value in file.graph.input if value.name == 'score_thr')
    file.graph.input.remove(given)
    onnx.save(file, tmp_path / 'a.onnx')
    session = AdaptiveSession(tmp_path / 'a.onnx', threads=1)
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    scores = session(image)['scores']
    least = float(np.median(scores))
    assert len(scores) > 5 and (session(image, score_thr=least)['scores'] == scores[scores > least]).all()
    with pytest.raises(ValueError, match='score_thr=2: give a number from 0 to 1'):
        session(image, score_thr=2)


def test_what_a_file_itself_keeps_stays(mask_rcnn, tmp_path, monkeypatch):
    """As of FCOS, whose scores are weighted after the threshold."""
    model, path, _ = mask_rcnn
    file, cfg = onnx.load(path), detectors.config('mask_rcnn')
    export._write_description(file, model, model.backbone.skip, True, cfg, None)
    onnx.save(file, tmp_path / 'a.onnx')
    session, compute, given = AdaptiveSession(tmp_path / 'a.onnx', threads=1), AdaptiveSession.run, []

    def weighted(self, images, skip, sizes, score_thr):
        given.append(score_thr)
        dets, *others = compute(self, images, skip, sizes)
        return dets * [1, 1, 1, 1, 0.1], *others

    monkeypatch.setattr(AdaptiveSession, 'run', weighted)
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    assert len(session(image, score_thr=0.5)['scores']) == len(session(image)['scores']) > 5
    assert given == [0.5, None]


def test_each_flag_chooses_among_the_heads():
    kinds = dict(feature_0=onnx.TensorProto.FLOAT, size=onnx.TensorProto.INT64)
    kinds.update(padded=onnx.TensorProto.INT64, score_thr=onnx.TensorProto.FLOAT)
    inputs = [onnx.helper.make_tensor_value_info(name, kind, [2]) for name, kind in kinds.items()]
    gives = onnx.helper.make_tensor_value_info('added', onnx.TensorProto.FLOAT, [2])
    heads = {}
    for number, letters in enumerate(['FF', 'FT', 'TF', 'TT']):
        weights = [
            onnx.numpy_helper.from_array(np.full(2, value, np.float32), name)
            for name, value in (('own', 10 * number), ('shared', 1))
        ]
        nodes = [
            onnx.helper.make_node('Add', ['feature_0', 'own'], ['sum']),
            onnx.helper.make_node('Add', ['sum', 'shared'], ['added']),
        ]
        graph = onnx.helper.make_graph(nodes, 'heads', inputs, [gives], initializer=weights)
        heads[letters] = onnx.helper.make_model(graph)
    body = whole._joined(heads, ['flag.4', 'flag.5'])
    assert [weight.name for weight in body.initializer] == ['heads.shared']
    assert str(body).count('name: "heads.shared"') == 1
    for flag in 'flag.4', 'flag.5':
        body.input.append(onnx.helper.make_tensor_value_info(flag, onnx.TensorProto.BOOL, []))
    file = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=10)
    session = onnxruntime.InferenceSession(file.SerializeToString())
    for number, flags in enumerate([(False, False), (False, True), (True, False), (True, True)]):
        inputs = {'heads.feature_0': np.zeros(2, np.float32), 'heads.size': np.zeros(2, np.int64)}
        inputs.update({'flag.4': np.array(flags[0]), 'flag.5': np.array(flags[1])})
        assert session.run(None, inputs)[0].tolist() == [10 * number + 1] * 2


def test_parts_of_a_neck_have_one_depth_in_a_file(dino, tmp_path, monkeypatch):
    monkeypatch.setattr(dino, 'parts', ['neck.convs', 'decoder'])
    with pytest.raises(ValueError, match='DINO has neck.convs, decoder; give features=True'):
        export_onnx(dino, tmp_path / 'a.onnx', SHAPE, adaptive=True)


def test_masks_are_pasted_as_mmdet_pastes_them():
    generator = torch.Generator().manual_seed(0)
    logits = nn.functional.avg_pool2d(10 * torch.randn(60, 1, 14, 14, generator=generator), 5, 1, 2)
    centre = torch.rand(60, 2, generator=generator) * torch.tensor([90, 70])
    extent = 50 * torch.rand(60, 2, generator=generator) ** 2
    boxes = torch.cat([(centre - extent).clamp(min=0), centre + extent], 1)
    # Without a width, without any extent, at the border, over its corner, and along the pixels' borders.
    boxes[:4, 2] = boxes[:4, 0]
    boxes[4:6, 2:] = boxes[4:6, :2] = 10.5
    boxes[6:9] = torch.tensor([[88.0, 20, 90, 40], [-20, -30, 200, 100], [10, 10, 24, 24]])
    meta = dict(scale_factor=(1.0, 1.0), ori_shape=(70, 90))
    head = FCNMaskHead(class_agnostic=True, loss_mask=dict(type='mmdet.CrossEntropyLoss'))
    expected = head._predict_by_feat_single(logits, boxes, None, meta, ConfigDict(mask_thr_binary=0.5))
    found = paste_masks(logits.sigmoid().numpy()[:, 0], boxes.numpy(), 70, 90)
    assert found.any(axis=(1, 2)).sum() > 40
    np.testing.assert_array_equal(found, expected.numpy())


def test_no_masks():
    none = np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32)
    assert paste_masks(*none, 7, 9).shape == (0, 7, 9)


def test_a_session_finds_in_images_of_any_size_what_mmdet_finds(mask_rcnn, tmp_path):
    model, path, _ = mask_rcnn
    cfg, file = detectors.config('mask_rcnn'), onnx.load(path)
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[1].scale = (100, 72)
    export._write_description(file, model, model.backbone.skip, True, cfg, None)
    onnx.save(file, tmp_path / 'a.onnx')
    session = AdaptiveSession(tmp_path / 'a.onnx', threads=1)
    assert session.about['mask_threshold'] == 0.5
    with DefaultScope.overwrite_default_scope('mmdet'):
        steps = Compose(pipeline[1:])
    for i, (height, width) in enumerate([(90, 200), (210, 77), (40, 30)]):
        image = np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)
        about = dict(img=image, img_shape=(height, width), ori_shape=(height, width), img_id=i, img_path='')
        data = steps(about)
        data = model.data_preprocessor({name: [value] for name, value in data.items()})
        for skip in 'FF', 'TT':
            with model.backbone.skipping(skip), torch.no_grad():
                expected = model.predict(*data.values(), rescale=True)[0].pred_instances
            found = session(image, skip)
            number = np.count_nonzero(found['scores'] > 0.3)
            assert (
                0 < len(session(image, skip, 0.3)['scores']) == number < len(expected) == len(found['labels'])
            )
            np.testing.assert_array_equal(found['labels'], expected.labels)
            np.testing.assert_allclose(found['bboxes'], expected.bboxes, atol=1e-2)
            np.testing.assert_allclose(found['scores'], expected.scores, atol=1e-4)
            assert (found['masks'] != expected.masks.numpy()).mean() < 1e-5
    for wrong in (-1, 2, '0.5'):
        with pytest.raises(ValueError, match='score_thr=.*give a number from 0 to 1'):
            session(image, score_thr=wrong)


def test_every_depth_of_a_whole_detector_in_openvino(mask_rcnn):
    openvino = pytest.importorskip('openvino')
    model, path, rows = mask_rcnn
    images, session = torch.randn(3, 3, 72, 100), AdaptiveSession(path, threads=1)
    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': 1}
    compiled = openvino.compile_model(path, 'CPU', settings)
    for row in rows:
        flags = np.array([letter == 'T' for letter in row['skip']])
        inputs = {'images': images.numpy(), 'skip': flags, 'sizes': np.array(SIZES)}
        expected = session.run(images, row['skip'], SIZES)
        found = list(compiled(inputs).values())
        np.testing.assert_array_equal(found[1], expected[1])
        for a, b in zip(found[::2], expected[::2], strict=True):
            np.testing.assert_allclose(a[expected[1] >= 0], b[expected[1] >= 0], atol=1e-3)
