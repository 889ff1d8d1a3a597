"""The session that takes images and gives what is in them, on small files written by hand."""

import json
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from mmadn.deploy import AdaptiveSession, DepthController  # noqa: E402
from mmadn.deploy.onnx import preprocessing  # noqa: E402
from mmadn.deploy.onnx.pipeline import describe_outputs, describe_preprocessing  # noqa: E402
from mmadn.deploy.onnx.preprocessing import preprocess, read_image, resize  # noqa: E402
from mmadn.errors import InputError, MissingPackageError  # noqa: E402

HEAD = '<ir_version: 9, opset_import: ["" : 18]>'
# The logits are the mean of each channel, plus for the first one how many stages are skipped.
CLASSIFIER = """
network (float[batch, 3, height, width] images, bool[2] skip) => (float[batch, 3] logits)
<float[3] first = {1.0, 0.0, 0.0}, int64[2] sides = {2, 3}>
{
    means = ReduceMean<keepdims = 0>(images, sides)
    flags = Cast<to = 1>(skip)
    skipped = ReduceSum<keepdims = 0>(flags)
    more = Mul(first, skipped)
    logits = Add(means, more)
}"""
# Each image is found as a whole, and nothing beside it; what probabilities its mask has says the flag.
DETECTOR = """
network (float[batch, 3, height, width] images, bool[2] skip, int64[batch, 2] sizes)
    => (float[batch, 2, 5] dets, int64[batch, 2] labels, float[batch, 2, 4, 4] masks)
<float[5, 2] corners = {0, 0, 0, 0, 0, 1, 1, 0, 0, 0}, float[1, 1, 5] score = {0, 0, 0, 0, 0.75},
 float[1, 2, 1] both = {1, 1}, int64[1, 2] one = {1, -1}, int64[2] last = {0, 1}, int64[3] shape = {-1, 1, 5},
 float[1, 2, 4, 4] full = {1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1}>
{
    numbers = Cast<to = 1>(sizes)
    turned = Transpose<perm = [1, 0]>(corners)
    flat = MatMul(numbers, turned)
    box = Reshape(flat, shape)
    scored = Add(box, score)
    dets = Mul(scored, both)
    zeros = Sub(sizes, sizes)
    labels = Add(zeros, one)
    any = Cast<to = 1>(skip)
    skipped = ReduceMean<keepdims = 0>(any)
    dims = Shape(labels)
    side = Constant<value_ints = [1, 1]>()
    outer = Concat<axis = 0>(dims, side)
    ones = Expand(full, outer)
    masks = Mul(ones, skipped)
}"""
KNOWN = dict(mmadn='0.2.0', skip='adaptive', flags=2)
PLAIN = dict(steps=[], pad_size_divisor=1, pad_value=0)


def write(path, network, **about):
    model = onnx.parser.parse_model(HEAD + network)
    texts = {
        f'mmadn.{name}': json.dumps(value) for name, value in {**KNOWN, **about}.items() if value is not None
    }
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, path)
    return AdaptiveSession(path, threads=1)


def classifier(path, **about):
    known = dict(output='logits', classes=['blue', 'green', 'red'], probabilities='softmax', preprocess=PLAIN)
    return write(path / 'classifier.onnx', CLASSIFIER, **{**known, **about})


def detector(path, network=DETECTOR, **about):
    steps = [dict(type='Resize', scale=[64, 32], keep_ratio=True, interpolation='bilinear', backend='cv2')]
    known = dict(
        output='detections', classes=['cat', 'dog'], mask_threshold=0.2
    )  # towards the corners probabilities fade
    known['preprocess'] = dict(PLAIN, steps=steps, pad_size_divisor=32)
    return write(path / 'detector.onnx', network, **{**known, **about})


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_classifier_gives_classes_best_first(tmp_path):
    session, image = classifier(tmp_path), np.zeros((5, 4, 3), np.uint8)
    image[..., 2] = 2
    found = session(image)
    assert found['names'] == ['red', 'blue', 'green'] and found['labels'].tolist() == [2, 0, 1]
    np.testing.assert_allclose(found['scores'], np.exp([2, 0, 0]) / np.exp([2, 0, 0]).sum(), rtol=1e-6)
    both = session([image, 3 * image], 'TT')
    np.testing.assert_allclose(
        both[0]['scores'], [0.5, 0.5, 0.5 * np.exp(-2)] / (1 + 0.5 * np.exp(-2)), rtol=1e-6
    )
    assert [found['names'][0] for found in both] == ['blue', 'red'] and session([]) == []
    assert classifier(tmp_path, classes=None)(image)['names'] is None


@pytest.mark.parametrize('skip, covered', [('TT', True), ('FF', False)])
def test_a_detector_gives_boxes_and_masks_in_pixels_of_the_image(tmp_path, skip, covered):
    session, sizes = detector(tmp_path), [(48, 90), (100, 31), (7, 5)]
    for (height, width), found in zip(sizes, session([noise(*size) for size in sizes], skip), strict=True):
        np.testing.assert_allclose(found['bboxes'], [[0, 0, width, height]], rtol=1e-6)
        assert found['labels'].tolist() == [1] and found['names'] == ['dog']
        assert found['scores'].tolist() == [0.75]
        assert found['masks'].shape == (1, height, width) and found['masks'].dtype == bool
        assert (found['masks'] == covered).all()


def test_images_are_padded_to_the_size_that_a_file_has(tmp_path):
    fixed = DETECTOR.replace('3, height, width]', '3, 64, 96]')
    session = detector(tmp_path, fixed)
    assert session(noise(48, 90))['bboxes'].tolist() == [[0, 0, 90, 48]]
    with pytest.raises(ValueError, match='takes images of 16x96 alone, and .* gives 32x96: resize'):
        detector(tmp_path, fixed.replace('64, 96', '16, 96'))(noise(48, 90))


def test_the_networks_own_tensors(tmp_path):
    session, images = detector(tmp_path), np.zeros((2, 3, 8, 6), np.float32)
    dets, labels, masks = session.run(images, 'TF', [[4, 6], [8, 3]])
    assert dets[:, 0].tolist() == [[0, 0, 6, 4, 0.75], [0, 0, 3, 8, 0.75]] and (masks == 0.5).all()
    assert session.run(images)[0][:, 0, :4].tolist() == [[0, 0, 6, 8]] * 2
    for wrong in ([[4, 6]], [[4, 6], [9, 3]], [[0, 1], [1, 1]], [[1.0, 1.0]] * 2):
        with pytest.raises(InputError, match=r'give whole numbers of shape \(2, 2\)'):
            session.run(images, 'TF', wrong)


@pytest.mark.parametrize(
    'about, says',
    [
        (dict(output='feature maps'), 'outputs of this file are feature maps: run'),
        (dict(output=None), 'not described in it'),
        (
            dict(preprocess=None, no_preprocess='a step CLAHE'),
            r'\(a step CLAHE\): give normalised ones to run',
        ),
        (dict(preprocess=None, mmadn='0.1.0'), r'\(it was written by mmadn 0.1.0\)'),
        (dict(preprocess=dict(PLAIN, steps=[dict(type='Warp')])), 'mmadn 0.2.0 and asks for the step .*Warp'),
        (dict(probabilities=None), 'how logits become probabilities'),
    ],
)
def test_what_a_file_does_not_say_is_not_guessed(tmp_path, about, says):
    with pytest.raises(InputError, match=says) as error:
        classifier(tmp_path, **about)(noise(8, 8))
    assert '\n' not in str(error.value)


def test_a_classifier_has_no_threshold(tmp_path):
    with pytest.raises(InputError, match='score_thr=0.5: this file has no such input'):
        classifier(tmp_path)(noise(8, 8), score_thr=0.5)


def test_a_mask_needs_its_threshold(tmp_path):
    with pytest.raises(InputError, match='from which probability a mask begins'):
        detector(tmp_path, mask_threshold=None)(noise(8, 8))


def test_files_of_others(tmp_path):
    path = tmp_path / 'a.onnx'
    with pytest.raises(InputError, match='has the inputs pixels, skip: it is no file of export_onnx'):
        write(path, CLASSIFIER.replace('images', 'pixels'))
    model = onnx.parser.parse_model(HEAD + CLASSIFIER)
    onnx.helper.set_model_props(model, {'mmadn.classes': '[not JSON'})
    onnx.save(model, path)
    with pytest.raises(InputError, match='mmadn.classes=.*is not JSON'):
        AdaptiveSession(path)
    model.opset_import[0].version = 99
    onnx.save(model, path)
    with pytest.raises(InputError, match='no ONNX file that onnxruntime can load') as error:
        AdaptiveSession(path)
    assert '\n' not in str(error.value)


@pytest.fixture(params=['with OpenCV and Pillow', 'with numpy alone'])
def installed(request, monkeypatch):
    if 'alone' in request.param:
        monkeypatch.setattr(preprocessing, 'cv2', None)
        monkeypatch.setattr(preprocessing, 'Image', None)


PIPELINES = {
    'mmdet': [dict(type='Resize', scale=(133, 80), keep_ratio=True)],
    'mmdet, to a fixed size': [dict(type='Resize', scale=(96, 64), keep_ratio=False)],
    'RTMDet': [
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='Pad', size=(64, 64), pad_val=dict(img=(114, 114, 114))),
    ],
    'a square': [
        dict(type='Resize', scale=(50, 70), keep_ratio=True),
        dict(type='Pad', size_divisor=16, pad_to_square=True, pad_val=7),
    ],
    'mmpretrain': [dict(type='ResizeEdge', scale=48, edge='short'), dict(type='CenterCrop', crop_size=33)],
    'ImageNet': [
        dict(type='ResizeEdge', scale=48, edge='short', backend='pillow'),
        dict(type='CenterCrop', crop_size=(40, 41)),
    ],
    'Swin': [dict(type='ResizeEdge', scale=40, edge='long', backend='pillow', interpolation='bicubic')],
    'digits': [dict(type='Resize', scale=32)],
}
IMAGES = [noise(70, 101), noise(200, 51, 1), noise(33, 33, 2)]


@pytest.mark.parametrize('name', PIPELINES)
def test_preprocessing_is_that_of_the_library(name, installed):
    fixed = name not in ('mmdet', 'a square', 'Swin')
    scope = 'mmpretrain' if name in ('mmpretrain', 'ImageNet', 'Swin', 'digits') else 'mmdet'
    settings = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], pad_value=2)
    if scope == 'mmdet':
        settings.update(type='DetDataPreprocessor', bgr_to_rgb=True, pad_size_divisor=32)
    else:
        settings.update(type='ClsDataPreprocessor', to_rgb=True, pad_size_divisor=1 if fixed else 8)
    packed = [dict(type='PackDetInputs' if scope == 'mmdet' else 'PackInputs', meta_keys=('img_shape',))]
    pipeline = [dict(type='LoadImageFromFile', backend_args=None), *PIPELINES[name], *packed]
    cfg = Config(dict(default_scope=scope, test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    with DefaultScope.overwrite_default_scope(scope):
        model = SimpleNamespace(data_preprocessor=MODELS.build(settings))
        steps = Compose(pipeline[1:])
        samples = [steps(dict(img=image, img_shape=image.shape[:2])) for image in IMAGES]
        inputs = dict(
            inputs=[s['inputs'] for s in samples], data_samples=[s['data_samples'] for s in samples]
        )
        expected = model.data_preprocessor(inputs)['inputs'].numpy()
    about = json.loads(json.dumps(describe_preprocessing(cfg, model)))
    about.update(mean=settings['mean'], std=settings['std'], to_rgb=True)
    batch, sizes, factors = preprocess(IMAGES, about)
    assert batch.shape == expected.shape and batch.dtype == np.float32
    assert np.abs(batch - expected).max() < 1e-5  # a grey level is 0.017
    assert sizes.tolist() == [list(sample['inputs'].shape[1:]) for sample in samples]
    if len(PIPELINES[name]) == 1:
        scales = [
            size[::-1] / np.array(image.shape[1::-1]) for size, image in zip(sizes, IMAGES, strict=True)
        ]
        np.testing.assert_allclose(factors, scales, rtol=1e-6)


@pytest.mark.parametrize(
    'backend, interpolation', [('cv2', 'bilinear'), ('pillow', 'bilinear'), ('pillow', 'bicubic')]
)
@pytest.mark.parametrize('size', [(31, 17), (101, 70), (202, 140), (300, 41), (1, 1)])
def test_numpy_resizes_as_the_libraries(monkeypatch, backend, interpolation, size):
    expected = resize(IMAGES[0], *size, interpolation, backend)
    monkeypatch.setattr(preprocessing, 'cv2', None)
    monkeypatch.setattr(preprocessing, 'Image', None)
    np.testing.assert_array_equal(resize(IMAGES[0], *size, interpolation, backend), expected)


@pytest.mark.parametrize(
    'step, says',
    [
        (
            dict(type='mmdet.FixScaleResize', scale=(9, 9)),
            'a step that a session does not know, FixScaleResize',
        ),
        (dict(type='mmdet.Resize', scale_factor=0.5), 'does not know, Resize'),
        (dict(type='mmdet.Resize', scale=(9, 9), interpolation='area'), 'does not know, Resize'),
        (dict(type='LoadImageFromFile', to_float32=True), 'does not know, LoadImageFromFile'),
        (dict(type='CenterCrop', crop_size=9, auto_pad=True), 'does not know, CenterCrop'),
        (dict(type='Pad', size=(9, 9), padding_mode='edge'), 'does not know, Pad'),
        (dict(type='mmpretrain.ColorJitter'), 'does not know, ColorJitter'),
        (dict(type='mmpretrain.CenterCrop', crop_size=9), 'its test pipeline crops'),
    ],
)
def test_a_pipeline_that_is_not_understood_is_not_written(step, says):
    cfg = Config(dict(test_dataloader=dict(dataset=dict(dataset=dict(pipeline=[step])))))
    model = SimpleNamespace(data_preprocessor=MODELS.build(dict(type='mmdet.DetDataPreprocessor')))
    about = describe_preprocessing(cfg, model)
    assert says in about.pop('no_preprocess') and not about


@pytest.mark.parametrize(
    'cfg, says', [(None, 'exported without cfg'), (Config({}), 'no pipeline for test data')]
)
def test_no_pipeline_and_another_preprocessor(cfg, says):
    assert says in describe_preprocessing(cfg, SimpleNamespace())['no_preprocess']
    known = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[]))))
    strange = SimpleNamespace(data_preprocessor=object())
    assert 'a session does not know, object' in describe_preprocessing(known, strange)['no_preprocess']


def test_what_is_known_of_outputs():
    head = MODELS.build(dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=2))
    multi = MODELS.build(dict(type='mmpretrain.MultiLabelLinearClsHead', num_classes=2, in_channels=2))
    assert describe_outputs(SimpleNamespace(head=head)) == {'probabilities': 'softmax'}
    assert describe_outputs(SimpleNamespace(head=multi)) == {}
    for threshold, known in ((0.4, {'mask_threshold': 0.4}), (-1, {})):
        assert describe_outputs(SimpleNamespace(test_cfg=dict(rcnn=dict(mask_thr_binary=threshold)))) == known


def test_images_as_files_and_of_pillow(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / 'a.png'), IMAGES[0])
    (tmp_path / 'b.png').write_bytes(b'no image')
    (tmp_path / 'c.png').touch()
    for library in ('cv2', 'Image', None):
        if library == 'Image':
            monkeypatch.setattr(preprocessing, 'cv2', None)
        if library:
            with Image.open(tmp_path / 'a.png') as opened:
                np.testing.assert_array_equal(read_image(opened), IMAGES[0])
            np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), IMAGES[0])
            for name in ('b.png', 'c.png'):
                with pytest.raises(InputError, match=f'{name} is no image that'):
                    read_image(str(tmp_path / name))
    monkeypatch.setattr(preprocessing, 'Image', None)
    with pytest.raises(MissingPackageError, match='a.png is read by OpenCV or Pillow'):
        read_image(tmp_path / 'a.png')
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / 'missing.png')


@pytest.mark.parametrize(
    'image, says',
    [
        (np.zeros((4, 4, 3)), r'shape \(4, 4, 3\) and type float64'),
        (np.zeros((4, 4), np.uint8), r'shape \(4, 4\)'),
        (np.zeros((1, 4, 4, 3), np.uint8), 'or a list of them'),
        (np.zeros((0, 4, 3), np.uint8), r'shape \(0, 4, 3\)'),
        (torch.zeros(4, 4, 3), 'type torch.float32'),
        (None, 'type NoneType'),
        (7, 'type int'),
    ],
)
def test_what_is_no_image(tmp_path, image, says):
    with pytest.raises(InputError, match=says):
        classifier(tmp_path)([image])


def test_a_detector_under_a_deadline_from_the_file_alone(tmp_path):
    session, image = detector(tmp_path), noise(48, 90)
    rows = session.profile(image, seconds=0.5)
    assert [row['skip'] for row in rows] == session.subnets()
    assert all(0 < row['latency_p50_ms'] <= row['latency_p95_ms'] for row in rows)
    (tmp_path / 'rows.json').write_text(json.dumps(rows))
    controller = DepthController(tmp_path / 'rows.json', deadline_ms=1000)
    assert controller.skip == 'F' * session.num_skippable_stages
    for _ in range(3):
        with controller.frame() as skip:
            assert session(image, skip)['names'] == ['dog']
    assert controller.frames == 3 and controller.missed == 0


@pytest.mark.parametrize('deadline, chosen', [(100, 'FF'), (10, 'TT')])
def test_without_accuracies_noise_does_not_make_a_shallower_depth_the_better_one(deadline, chosen):
    measured = dict(FF=20.0, FT=20.5, TF=19.9, TT=9.0)
    rows = [
        dict(skip=skip, latency_p50_ms=ms, latency_p95_ms=ms, stages=skip.count('F'))
        for skip, ms in measured.items()
    ]
    controller = DepthController(rows, deadline)
    assert controller.skip == chosen


@pytest.mark.parametrize(
    'given, says',
    [
        (dict(images=[]), 'give one or more'),
        (dict(seconds=0), 'seconds=0: give a number above 0'),
        (dict(seconds='x'), "seconds='x': give"),
    ],
)
def test_what_cannot_be_profiled(tmp_path, given, says):
    with pytest.raises(InputError, match=says):
        classifier(tmp_path).profile(**{'images': noise(8, 8), **given})


def test_more_than_bytes_and_a_turned_image_of_pillow(tmp_path):
    with pytest.raises(InputError, match='more than 8 bits a channel is read by OpenCV alone'):
        read_image(Image.fromarray(np.full((4, 4), 60000, np.uint16)))
    turned = Image.fromarray(noise(4, 6))
    turned.getexif()[0x0112] = 6  # the camera was turned
    assert read_image(turned).shape == (6, 4, 3)


def test_accuracies_say_how_good_the_depths_of_a_file_are(tmp_path):
    session, table = classifier(tmp_path), tmp_path / 'subnets.json'
    accuracies = dict(FF=80.0, FT=50.0, TF=70.0, TT=60.0)
    rows = [{'skip': skip, 'params': 1.0, 'accuracy/top1': value} for skip, value in accuracies.items()]
    table.write_text(json.dumps(dict(subnets=rows)))
    measured = session.profile(noise(8, 8), 0.2, table)
    assert {row['skip']: row['accuracy/top1'] for row in measured} == accuracies
    assert DepthController(measured, 1000).skip == 'FF'


RUN_ALONE = """
import sys
blocked = 'torch', 'torchvision', 'mmcv', 'mmengine', 'mmpretrain', 'mmdet', 'matplotlib', 'rich', 'cv2'
sys.modules.update(dict.fromkeys((*blocked, 'PIL', 'onnx', 'onnx_ir', 'onnxscript', 'pycocotools', 'scipy')))
import numpy
from mmadn.deploy import AdaptiveSession, DepthController, select
session = AdaptiveSession(sys.argv[1], threads=1)
image = numpy.zeros((40, 80, 3), numpy.uint8)
rows = session.profile(image, 0.2)
controller = DepthController(rows, 1000)
with controller.frame() as skip:
    print(session(image, skip)['bboxes'].tolist(), select(rows, max_latency_ms=1000) in session.subnets())
try:
    from mmadn import ADNResNet
except ImportError as error:
    print(error)
try:
    from mmadn.deploy import extract
except ImportError as error:
    print(error)
"""


def test_a_session_needs_nothing_but_numpy_and_onnxruntime(tmp_path):
    session = detector(tmp_path)
    command = [sys.executable, '-c', RUN_ALONE, str(tmp_path / 'detector.onnx')]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert session.about['output'] == 'detections'
    found, *refused = done.stdout.splitlines() if done.stdout else (done.stderr, '', '')
    assert found == '[[0.0, 0.0, 80.0, 40.0]] True'
    for name, line in zip(('ADNResNet', 'deploy.extract'), refused, strict=True):
        assert line.startswith(f'mmadn.{name} needs PyTorch and OpenMMLab')
