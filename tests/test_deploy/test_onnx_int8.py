"""Files in eight bits, with one depth and with all of them."""

import runpy
import sys
from collections import Counter
from types import SimpleNamespace
from unittest.mock import patch

import detectors
import numpy as np
import pytest
import torch
import toy
from conftest import ROOT
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

onnx = pytest.importorskip('onnx')
ort = pytest.importorskip('onnxruntime')

from mmadn import calibrate  # noqa: E402
from mmadn.deploy import AdaptiveSession, export_onnx  # noqa: E402
from mmadn.deploy.onnx import export  # noqa: E402
from mmadn.deploy.onnx.joining import Trace  # noqa: E402
from mmadn.deploy.onnx.quantising import quantise  # noqa: E402
from mmadn.deploy.onnx.session import describe, open_session  # noqa: E402

SHAPE = (3, 32, 32)
BACKBONE = dict(depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,), base_channels=16)
THREE = dict(num_stages=3, strides=(1, 2, 1), dilations=(1, 1, 1), out_indices=(2,))


def batches(n=2, seed=0):
    return [toy.batch(16, seed=seed + i)['inputs'].float() / 128 - 1 for i in range(n)]


def build(channels=32, **backbone):
    cfg = toy.model_cfg(backbone={**BACKBONE, 'stem_channels': 16, **backbone})
    cfg['head'].update(in_channels=channels)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):  # for fixtures of the module, too
        model = MODELS.build(cfg)
    model.init_weights()
    calibrate(model, [toy.batch(16, seed=seed) for seed in range(2)])
    return model.eval()


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """A network, a file of all its depths in eight bits, what the export says of it, and what was joined."""
    seen = {}

    def noting(traces, images):
        seen.update(quantise(traces, images))
        for trace in seen.values():
            for node in trace.model.graph.node:
                node.name = ''  # as onnxruntime leaves some
        return seen

    # Of three stages, the last one follows one whose size onnxruntime cannot tell.
    model = build(64, **THREE)
    path = tmp_path_factory.mktemp('int8') / 'net.onnx'
    with patch.object(export, 'quantise', noting):
        rows = export_onnx(model, path, SHAPE, adaptive=True, int8=batches())
    return SimpleNamespace(model=model, path=path, rows=rows, traces=seen)


def branches(model):
    nodes = list(model.graph.node)
    while nodes:
        for attribute in nodes.pop().attribute:
            if attribute.HasField('g'):
                yield attribute.g
                nodes += attribute.g.node


def test_every_depth_is_near_to_torch(exported):
    model = exported.model
    assert [row['skip'] for row in exported.rows] == model.backbone.subnets()
    assert all(0 < row['lost'] < 0.1 and row['same'] > 80 for row in exported.rows)
    session, (images, *_) = AdaptiveSession(exported.path), batches(1, seed=9)
    for skip in model.backbone.subnets():
        with torch.no_grad(), model.backbone.skipping(skip):
            expected = model(images).numpy()
        found = session.run(images.numpy(), skip)
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.2 * expected.std()


def test_a_file_of_all_depths_computes_what_each_export_does(exported):
    session, (images, *_) = AdaptiveSession(exported.path), batches(1, seed=9)
    assert len(exported.traces) == 4
    for skip, trace in exported.traces.items():
        alone = ort.InferenceSession(trace.model.SerializeToString())
        (expected,) = alone.run(None, {'images': images.numpy()})
        assert np.array_equal(session.run(images.numpy(), skip), expected)


def test_copies_of_a_shared_bias_do_not_take_the_names_of_other_tensors():
    """onnxruntime would call the copy of v_7 v_71, because there is a v_70."""
    rng = np.random.default_rng(0)
    weights = {
        'w': rng.normal(size=(3, 3, 1, 1)),
        'v_7': rng.normal(size=3),
        'v_70': rng.normal(size=(3, 1, 1)),
    }
    nodes = [
        onnx.helper.make_node('Conv', ['images', 'w', 'v_7'], ['v_71'], 'first'),
        onnx.helper.make_node('Conv', ['v_71', 'w', 'v_7'], ['v_72'], 'second'),
        onnx.helper.make_node('Mul', ['v_72', 'v_70'], ['v_73'], 'scaled'),
        onnx.helper.make_node('Add', ['v_71', 'v_73'], ['out'], 'sum'),
    ]
    tensors = [onnx.numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()]
    shape = ['batch', 3, 8, 8]
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in ('images', 'out')]
    graph = onnx.helper.make_graph(nodes, 'net', values[:1], values[1:], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=10)
    images = rng.normal(size=(32, 3, 8, 8)).astype(np.float32)
    found = quantise({'': Trace(model, [])}, [images])[''].model
    outputs = [
        ort.InferenceSession(each.SerializeToString()).run(['out'], {'images': images})[0]
        for each in (model, found)
    ]
    assert np.abs(outputs[0] - outputs[1]).std() < 0.05 * outputs[0].std()


def test_all_convolutions_compute_in_eight_bits(exported, tmp_path):
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / 'optimised.onnx')
    options.log_severity_level = 3
    ort.InferenceSession(str(exported.path), options)
    optimised = onnx.load(tmp_path / 'optimised.onnx')
    for graph in [optimised.graph, *branches(optimised)]:
        kinds = Counter(node.op_type for node in graph.node)
        assert not kinds['Conv'] and not kinds['Gemm']
        passes_on = set(kinds) <= {'Identity'}
        assert 'If' in kinds or passes_on or (kinds['QLinearConv'] >= 2 and not kinds['QuantizeLinear'])
        # Channels are last, as onnxruntime computes fastest, and nothing is turned on the way in or out.
        assert all(node.domain == 'com.microsoft' for node in graph.node if node.op_type == 'QLinearConv')
        assert 'If' in kinds or not kinds['Transpose']


def test_the_weights_of_both_copies_of_a_norm_are_stored_once(exported):
    file = onnx.load(exported.path)
    stored = [weight for graph in [file.graph, *branches(file)] for weight in graph.initializer]
    kernels = [w for w in stored if w.data_type == onnx.TensorProto.INT8 and len(w.dims) > 1]
    assert len(kernels) == sum(
        isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) for m in exported.model.modules()
    )
    assert not [w for w in stored if w.data_type == onnx.TensorProto.FLOAT and len(w.dims) > 1]


def test_a_file_of_one_depth_and_what_it_says_of_itself(tmp_path):
    model, path = build(), tmp_path / 'net.onnx'
    (row,) = export_onnx(model, path, SHAPE, skip='TF', int8=batches(3))
    assert row['skip'] == 'TF' and row['lost'] < 0.1
    assert describe(open_session(path))['int8'] == 48


def test_feature_maps_of_a_detector(tmp_path):
    two = dict(depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    cfg = detectors.config('retinanet', **two).model
    cfg.neck.update(in_channels=[4, 8], num_outs=2)
    cfg.bbox_head.anchor_generator.strides = [4, 8]
    model = detectors.initialized(cfg).eval()
    images = [torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    (row,) = export_onnx(model, tmp_path / 'net.onnx', (3, 64, 64), features=True, int8=images)
    assert 0 < row['lost'] < 0.2 and 'same' not in row


@pytest.mark.parametrize(
    'given, message',
    [
        (lambda: batches(1), '16 images are too few for the ranges of eight bits; give 32 or more'),
        (lambda: [], '0 images are too few'),
        (lambda: [torch.zeros(40, 1, 32, 32)], r'\(40, 1, 32, 32\) is no batch of images of shape'),
        (lambda: [[1, 2]], 'list is no batch of images'),
    ],
)
def test_images_that_give_no_ranges_are_refused(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(build(), tmp_path / 'net.onnx', SHAPE, adaptive=True, int8=given())
    assert not list(tmp_path.iterdir())


def test_what_eight_bits_destroy_is_not_written(tmp_path):
    model = build()
    with torch.no_grad():  # one channel dwarfs all others, of which nothing is left
        model.neck.register_forward_hook(
            lambda m, args, out: tuple(x.index_fill(1, torch.tensor(0), 1e6) for x in out)
        )
        model.head.fc.weight[:, 0] = 0
    with pytest.raises(RuntimeError, match='eight bits leave nothing of logits at depth TF'):
        export_onnx(model, tmp_path / 'net.onnx', SHAPE, skip='TF', int8=batches())
    assert not list(tmp_path.iterdir())


def test_the_tool_takes_images_of_the_training_data(tmp_path, monkeypatch, capsys):
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        path = tmp_path / f'data/train/{"ab"[i % 2]}/{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    cfg = toy.model_cfg(backbone={**BACKBONE, 'stem_channels': 16})
    cfg['head'].update(in_channels=32)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    dataset = dict(
        type='mmadn.ImageFolder', data_root=f'{tmp_path}/data', data_prefix='train', pipeline=pipeline
    )
    loader = dict(
        batch_size=16, num_workers=0, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=True)
    )
    text = f"default_scope = 'mmpretrain'\nmodel = {cfg!r}\n"
    config, plain, out = tmp_path / 'cfg.py', tmp_path / 'plain.py', tmp_path / 'net.onnx'
    plain.write_text(text)
    config.write_text(f'{text}train_dataloader = {loader!r}\n')
    torch.save({'state_dict': build().state_dict(), 'meta': {}}, tmp_path / 'net.pth')

    def run(config, *options):
        command = [
            'export_onnx.py',
            config,
            tmp_path / 'net.pth',
            out,
            '--shape',
            3,
            32,
            32,
            '--skip',
            'TF',
            *options,
        ]
        monkeypatch.setattr(sys, 'argv', list(map(str, command)))
        runpy.run_path(str(ROOT / 'tools/export_onnx.py'), run_name='__main__')

    with pytest.raises(SystemExit, match='16 images are too few'):
        run(config, '--int8', 16)
    with pytest.raises(SystemExit, match='has no train_dataloader'):
        run(plain, '--int8')
    (tmp_path / 'data').rename(tmp_path / 'moved')
    with pytest.raises(SystemExit, match='no images in'):
        run(config, '--int8')
    (tmp_path / 'moved').rename(tmp_path / 'data')
    assert not out.exists()
    run(config, '--int8')
    assert describe(open_session(out))['int8'] == 32 and 'same class (%)' in capsys.readouterr().out
    config.write_text(
        config.read_text().replace('mmadn.ImageFolder', 'CustomDataset')
    )  # of the config's scope
    run(config, '--int8')
    assert 'The ranges are those of 32 images.' in capsys.readouterr().out
