"""Export to ONNX, and the session that runs what was exported."""

import copy
import os
import runpy
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import toy
from conftest import ROOT
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from toy import model_cfg

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from mmadn import calibrate, deploy  # noqa: E402
from mmadn.deploy import AdaptiveSession, export_onnx, fuse  # noqa: E402
from mmadn.deploy.onnx import comparing, export  # noqa: E402
from mmadn.deploy.onnx.session import open_session  # noqa: E402
from mmadn.depth import PathNorm  # noqa: E402
from mmadn.errors import MissingPackageError  # noqa: E402
from mmadn.models.backbones import ADNMobileNetV2  # noqa: E402

HEAVY = ('Conv', 'Gemm', 'MatMul')
RESNET = dict(
    type='mmadn.ADNResNet',
    depth=18,
    num_stages=2,
    strides=(1, 2),
    dilations=(1, 1),
    out_indices=(1,),
    stem_channels=4,
    base_channels=4,
)

# The backbone, what follows it, the sides of an image, and the heavy operators outside of all stages.
FAMILIES = {
    'resnet': (RESNET, True, 'LinearClsHead', 8, (40, 32), 2),
    'swin': (
        dict(
            type='mmadn.ADNSwinTransformer',
            arch=dict(embed_dims=8, depths=[2, 2], num_heads=[1, 2]),
            window_size=2,
            out_indices=(1,),
        ),
        True,
        'LinearClsHead',
        16,
        (32, 32),
        2,
    ),
    'vit': (
        dict(
            type='mmadn.ADNVisionTransformer',
            arch=dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32),
            group=2,
            img_size=32,
            patch_size=8,
            drop_path_rate=0.1,
        ),
        False,
        'VisionTransformerClsHead',
        16,
        (32, 32),
        2,
    ),
}


def vary(model):
    """Values unlike the initial ones, where many branches are zero and both copies of a norm equal."""
    for tensor in model.state_dict().values():
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model.eval()


def config(family):
    backbone, pooled, head, channels, _, _ = FAMILIES[family]
    cfg = model_cfg(backbone)
    cfg.update(
        backbone=backbone,
        neck=dict(type='mmpretrain.GlobalAveragePooling') if pooled else None,
        head=dict(type=f'mmpretrain.{head}', num_classes=5, in_channels=channels),
    )
    return cfg


@pytest.fixture(scope='module', params=FAMILIES)
def exported(request, tmp_path_factory):
    """A tiny classifier of each family and its adaptive file."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = vary(MODELS.build(config(request.param)))
    model.dataset_meta = dict(classes=list('abcde'))
    path = tmp_path_factory.mktemp('onnx') / f'{request.param}.onnx'
    dynamic = None if request.param == 'resnet' else False  # which takes longer
    rows = export_onnx(model, path, (3, *FAMILIES[request.param][4]), adaptive=True, dynamic=dynamic)
    return request.param, model, path, rows


only_resnet = pytest.mark.parametrize('exported', ['resnet'], indirect=True)


def test_every_depth_equals_torch(exported):
    family, model, path, rows = exported
    session = AdaptiveSession(path)
    assert session.subnets() == model.backbone.subnets() == [row['skip'] for row in rows]
    images = torch.randn(3, 3, *FAMILIES[family][4])
    logits = {}
    for skip in session.subnets():
        with model.backbone.skipping(skip), torch.no_grad():
            expected = model(images)
        logits[skip] = session.run(images, skip)
        assert np.abs(logits[skip] - expected.numpy()).max() <= 1e-4 * expected.std()
    scale = 1e-3 * logits[session.subnets()[0]].std()
    different = [a for a in logits.values() if sum(np.abs(a - b).max() < scale for b in logits.values()) == 1]
    assert len(different) == len(logits), 'two depths compute the same'


def test_a_branch_knows_the_shapes_of_what_it_adds(exported):
    """Without them onnxruntime fuses no addition to a convolution in a branch."""
    family, _, path, _ = exported
    for branch in graphs_in(onnx.load(path).graph)[1:]:
        shapes = {value.name: str(value.type.tensor_type.shape) for value in branch.value_info}
        made = {name for node in branch.node for name in node.output}
        assert set(shapes) <= made
        for node in branch.node if family == 'resnet' else ():
            if node.op_type == 'Add':
                assert len({shapes[name] for name in made & set(node.input)}) == 1


def test_what_is_skipped_stands_in_the_other_branch(exported):
    family, model, path, _ = exported
    graph = onnx.load(path).graph
    assert heavy(graph) == FAMILIES[family][5]
    stages = [node for node in graph.node if node.op_type == 'If']
    assert len(stages) == model.backbone.num_skippable_stages
    for node in stages:
        branch = {a.name: a.g for a in node.attribute}
        assert heavy(branch['then_branch']) < heavy(branch['else_branch'])


def heavy(graph):
    return sum(node.op_type in HEAVY for node in graph.node)


def test_no_weight_is_stored_twice(exported):
    graph = onnx.load(exported[2]).graph
    weights = [onnx.numpy_helper.to_array(w) for g in graphs_in(graph) for w in g.initializer]
    assert len(weights) == len({(w.shape, w.tobytes()) for w in weights})


def graphs_in(graph):
    """A graph and those of each `If` in it, however deep."""
    inner = [a.g for node in graph.node if node.op_type == 'If' for a in node.attribute]
    return [graph, *(g for branch in inner for g in graphs_in(branch))]


def test_every_depth_in_openvino(exported):
    openvino = pytest.importorskip('openvino')
    family, _, path, rows = exported
    session = AdaptiveSession(path)
    images = np.random.default_rng(0).normal(size=(3, 3, *FAMILIES[family][4]))
    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': 1}
    compiled = openvino.compile_model(path, 'CPU', settings)
    for row in rows:
        flags = np.array([letter == 'T' for letter in row['skip']])
        (logits,) = compiled({'images': images.astype(np.float32), 'skip': flags}).values()
        assert difference(logits, session.run(images, row['skip'])) <= 1e-4


@only_resnet
def test_a_file_says_what_it_is_and_where_it_comes_from_does_not_show(exported):
    _, _, path, _ = exported
    about = AdaptiveSession(path).about
    assert about['skip'] == 'adaptive' and about['flags'] == 2 and about['output'] == 'logits'
    assert about['classes'] == list('abcde')
    assert about['mean'] == about['std'] == [127.5] * 3 and about['to_rgb'] is False
    assert str(ROOT).encode() not in path.read_bytes()


@only_resnet
def test_images_of_any_size_and_depths_in_any_form(exported):
    _, model, path, _ = exported
    session = AdaptiveSession(path, threads=1)
    images = torch.randn(1, 3, 48, 56)
    with model.backbone.skipping('base'), torch.no_grad():
        expected = model(images).numpy()
    for skip in ('base', 'TT', [True] * 2, True):
        np.testing.assert_allclose(session.run(images.double().numpy(), skip), expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(session.run(images), expected, atol=1e-3)


@only_resnet
@pytest.mark.parametrize(
    'images, skip, says',
    [
        (np.zeros((1, 3, 40, 32), np.float32), 'TTF', 'give 2 letters'),
        (
            np.zeros((3, 40, 32), np.float32),
            'TF',
            r'give normalised ones of shape \(batch, 3, height, width\)',
        ),
        (np.zeros((1, 1, 40, 32), np.float32), 'TF', 'images of shape'),
        (np.zeros((1, 3, 40, 32), np.uint8), 'TF', 'type uint8'),
    ],
)
def test_the_session_refuses_what_does_not_fit(exported, images, skip, says):
    with pytest.raises(ValueError, match=says):
        AdaptiveSession(exported[2]).run(images, skip)


@pytest.mark.parametrize('exported', ['vit'], indirect=True)
def test_a_size_the_network_is_not_made_for(exported):
    with pytest.raises(ValueError, match=r'\(batch, 3, 32, 32\)'):
        AdaptiveSession(exported[2]).run(np.zeros((1, 3, 64, 64), np.float32))


@only_resnet
def test_files_that_cannot_be_run(exported, tmp_path):
    whole = exported[2].read_bytes()
    (tmp_path / 'corrupt.onnx').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match='corrupt.onnx is no ONNX file'):
        AdaptiveSession(tmp_path / 'corrupt.onnx')
    with pytest.raises(FileNotFoundError, match='there is no such file'):
        AdaptiveSession(tmp_path / 'missing.onnx')


@only_resnet
def test_a_file_that_would_be_wrong_is_not_written(exported, tmp_path, monkeypatch):
    _, model, path, _ = exported
    made = onnx.load(path)
    for node in made.graph.node:
        if node.name == 'stage.1':  # one stage the wrong way round
            then, other = node.attribute
            then.name, other.name = other.name, then.name
    monkeypatch.setattr(export, '_adaptive', lambda *args: made)
    with pytest.raises(RuntimeError, match='would differ from torch at depth FF'):
        export_onnx(model, tmp_path / 'wrong.onnx', (3, 40, 32), adaptive=True)
    assert not any(tmp_path.iterdir())


def replaced(made, name, value):
    """Fills a weight in a file."""
    (weight,) = (w for w in made.graph.initializer if w.name.endswith(name))
    values = np.full_like(onnx.numpy_helper.to_array(weight), value)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


@only_resnet
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize(
    'broken, says',
    [
        ('file', 'the file would compute NaN or infinity at depth FF'),
        ('weights', 'torch itself computes NaN or infinity at depth FF, so the weights are at fault'),
    ],
)
def test_what_is_not_finite_is_not_written(exported, tmp_path, monkeypatch, broken, says, value):
    _, model, path, _ = exported
    made = onnx.load(path)
    if broken == 'file':
        replaced(made, 'head.fc.bias', value)
    else:
        model = copy.deepcopy(model)
        model.head.fc.bias.data.fill_(value)
    monkeypatch.setattr(export, '_adaptive', lambda *args: made)
    with pytest.raises(RuntimeError, match=says):
        export_onnx(model, tmp_path / 'a.onnx', (3, 40, 32), adaptive=True)
    assert not any(tmp_path.iterdir())


@only_resnet
def test_a_constant_output_is_compared_by_its_difference(exported, tmp_path, monkeypatch):
    _, model, path, _ = exported
    model, made = copy.deepcopy(model), onnx.load(path)
    model.head.fc.weight.data.zero_()
    model.head.fc.bias.data.fill_(3.0)
    replaced(made, 'head.fc.weight', 0.0)
    monkeypatch.setattr(export, '_adaptive', lambda *args: made)
    replaced(made, 'head.fc.bias', 3.01)
    with pytest.raises(RuntimeError, match='differ from torch at depth FF by 0.01'):
        export_onnx(model, tmp_path / 'a.onnx', (3, 40, 32), adaptive=True)
    replaced(made, 'head.fc.bias', 3.00001)
    for row in export_onnx(model, tmp_path / 'a.onnx', (3, 40, 32), adaptive=True):
        assert row['relative'] == row['difference'] == pytest.approx(1e-5, rel=0.05)


@pytest.mark.parametrize(
    'expected, found, relative',
    [
        ([1.0, 3.0], [1.0, 3.5], 0.5),
        ([2e30, 6e30], [2e30, 7e30], 0.5),  # whose variance overflows in float32
        ([5.0, 5.0 + 1e-6], [5.0, 5.5], 0.5),  # constant but for rounding
        ([0.0, 0.0], [0.0, 0.5], 0.5),
    ],
)
def test_differences_in_standard_deviations(expected, found, relative):
    difference = comparing._difference(np.array(expected, np.float32), np.array(found, np.float32))
    assert difference[1] == pytest.approx(relative, rel=1e-5)


def test_an_output_of_another_shape_is_refused():
    with pytest.raises(RuntimeError, match=r'shape \(1, 5\) at depth TF, where torch gives \(3, 5\)'):
        comparing._difference(np.ones((3, 5)), np.ones((1, 5)), ' at depth TF')


RUN_WITHOUT_TORCH = """
import sys, types
blocked = 'torch', 'mmcv', 'mmengine', 'mmpretrain', 'onnx', 'onnx_ir', 'onnxscript'
sys.modules.update(dict.fromkeys(blocked))
for name in ('mmadn', 'mmadn.deploy'):  # whose __init__ imports the rest of the package
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [f'{sys.argv[1]}/{name.replace(".", "/")}']
import numpy
from mmadn.deploy.onnx.session import AdaptiveSession, describe
session = AdaptiveSession(sys.argv[2])
logits = session.run(numpy.zeros((1, 3, 40, 32)), 'base')
print(describe(session.session)['skip'], session.subnets(), logits.shape)
"""


@only_resnet
def test_a_session_needs_neither_torch_nor_what_an_export_needs(exported):
    command = [sys.executable, '-c', RUN_WITHOUT_TORCH, str(ROOT), str(exported[2])]
    out = subprocess.run(command, capture_output=True, text=True)
    assert out.stdout == "adaptive ['FF', 'FT', 'TF', 'TT'] (1, 5)\n", out.stderr


@pytest.mark.parametrize(
    'missing, name',
    [('onnxscript.optimizer', 'export_onnx'), ('onnx', 'export_onnx'), ('onnxruntime', 'AdaptiveSession')],
)
def test_a_package_that_is_not_installed(monkeypatch, missing, name):
    for module in [m for m in sys.modules if m.startswith('mmadn.deploy.onnx')]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingPackageError, match=f'{missing}.*pip install .*{missing.split(".")[0]}'):
        getattr(deploy, name)


def test_a_module_is_left_in_its_own_mode(tmp_path):
    model = Detector().train()
    model.backbone.layer1.eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(OSError):
        export_onnx(model, tmp_path)
    with export._for_export(model):
        assert not any(module.training for module in model.modules()) and not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes and True in modes


@pytest.mark.parametrize('skip, first', [('TF', {'skip': 'TF'}), (None, {})])
def test_the_table(skip, first):
    rows = [{'skip': skip, 'difference': 1.26e-6, 'relative': 0.0}]
    numbers = {'largest difference to torch': '1.3e-06', 'in standard deviations': '0'}
    assert export.table(rows) == [{**first, **numbers}]


@only_resnet
def test_exports_that_are_refused(exported, tmp_path):
    _, model, _, _ = exported
    before = model.backbone.skip

    def refused(error, says, path=tmp_path / 'a.onnx', model=model, **kwargs):
        with pytest.raises(error, match=says):
            export_onnx(model, path, **kwargs)

    refused(ValueError, 'give 2 letters', skip='TTF')
    refused(ValueError, 'give one of both', skip='TF', adaptive=True)
    refused(ValueError, 'channels, height and width', shape=(224, 224))
    refused(ValueError, 'give 18 to', opset=9)
    refused(TypeError, 'has no adaptive depth', model=nn.Linear(1, 1), adaptive=True)
    refused(TypeError, 'has no backbone; give a classifier or detector', model=nn.Linear(1, 1))
    refused(IsADirectoryError, 'is a folder', path=tmp_path)
    (tmp_path / 'file').write_text('')
    refused(OSError, 'file', path=tmp_path / 'file' / 'a.onnx')
    assert [p.name for p in tmp_path.iterdir()] == ['file']
    assert model.backbone.skip == before and not model.training


MOBILENET_STAGES = [[1, 8, n, s] for n, s in zip((1, 2, 3, 2, 2, 2, 1), (1, 2, 1, 2, 1, 1, 1), strict=True)]
CALIBRATED = {
    'resnet': dict(
        RESNET, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), mandatory=(1, 1, 2), out_indices=(2,)
    ),
    # Of the fifth stage both blocks always run: its switch is for norms alone.
    'mobilenet_v2': dict(type='mmadn.ADNMobileNetV2', widen_factor=0.25, mandatory=(1, 1, 2, 1, 2, 1, 1)),
}


def calibrated_model(name):
    """A tiny classifier whose norms have other values for all pairs of flags."""
    with pytest.MonkeyPatch.context() as patch, DefaultScope.overwrite_default_scope('mmpretrain'):
        patch.setattr(ADNMobileNetV2, 'arch_settings', MOBILENET_STAGES)
        cfg = dict(config('resnet'), backbone=CALIBRATED[name])
        cfg['head']['in_channels'] = 16 if name == 'resnet' else 1280
        model = MODELS.build(cfg)
    assert calibrate(model, [toy.batch()]) == 8
    return vary(model)


@pytest.fixture(scope='module', params=CALIBRATED)
def calibrated(request, tmp_path_factory):
    """A calibrated network and its adaptive file."""
    torch.manual_seed(0)
    model = calibrated_model(request.param)
    path = tmp_path_factory.mktemp('onnx') / f'{request.param}.onnx'
    export_onnx(model, path, (3, 32, 32), adaptive=True, dynamic=False)  # which is faster
    return model, path


def logits_at_all_depths(model, images):
    logits = {}
    for skip in model.backbone.subnets():
        with model.backbone.skipping(skip), torch.no_grad():
            logits[skip] = model(images).numpy()
    return logits


def difference(a, b):
    """In standard deviations of the second."""
    return np.abs(a - b).max() / b.std()


def test_every_depth_of_a_calibrated_network_equals_torch(calibrated):
    model, path = calibrated
    session, images = AdaptiveSession(path), torch.randn(3, 3, 32, 32)
    expected = logits_at_all_depths(model, images)
    norms = [m for m in model.modules() if isinstance(m, PathNorm) and m.calibrated]
    for norm in norms:
        norm.calibrated = False
    ignorant = logits_at_all_depths(model, images)
    for norm in norms:
        norm.calibrated = True
    for skip, logits in expected.items():
        assert difference(session.run(images, skip), logits) <= 1e-4
        # Were the flag of the stage before ignored, this test would see it, unless all flags are equal.
        assert difference(ignorant[skip], logits) > 1e-2 or len(set(skip)) == 1


def test_stages_after_the_first_are_chosen_by_two_flags(calibrated):
    model, path = calibrated
    first, *others = [node for node in onnx.load(path).graph.node if node.op_type == 'If']
    assert not any(map(is_choice, inner_graphs(first)))
    assert len(others) == model.backbone.num_skippable_stages - 1
    for i, node in enumerate(others, start=1):
        assert node.input == [f'flag.{i}']
        for body in inner_graphs(node):
            (choice,) = body.node
            after_skipped, after_run = inner_graphs(choice)
            assert choice.input == [f'flag.{i - 1}'] and heavy(after_skipped) == heavy(after_run) > 0


def inner_graphs(node):
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def is_choice(graph):
    return any(node.op_type == 'If' for node in graph.node)


def test_calibrated_statistics_add_no_other_weights(calibrated):
    model, path = calibrated
    weights = [onnx.numpy_helper.to_array(w) for g in graphs_in(onnx.load(path).graph) for w in g.initializer]
    assert len(weights) == len({(w.shape, w.tobytes()) for w in weights})
    varied = [w for w in weights if np.ptp(w) > 0]  # an export adds biases of zeros
    stored = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    assert sum(w.size for w in varied if w.dtype == np.float32) <= sum(tensor.numel() for tensor in stored)


@pytest.mark.parametrize('name, skip', [('resnet', 'TFT'), ('mobilenet_v2', 'FTTFT')])
def test_one_depth_of_a_calibrated_network(tmp_path, name, skip):
    model, images = calibrated_model(name), torch.randn(2, 3, 32, 32)
    export_onnx(model, tmp_path / 'a.onnx', (3, 32, 32), skip, dynamic=False)
    with model.backbone.skipping(skip), torch.no_grad():
        expected = model(images).numpy()
    found = open_session(tmp_path / 'a.onnx').run(None, {'images': images.numpy()})[0]
    assert difference(found, expected) <= 1e-4


def test_a_fused_calibrated_network(tmp_path):
    model, images = calibrated_model('resnet'), torch.randn(2, 3, 32, 32)
    expected = logits_at_all_depths(model, images)
    export_onnx(fuse(model), tmp_path / 'a.onnx', (3, 32, 32), adaptive=True, dynamic=False)
    session = AdaptiveSession(tmp_path / 'a.onnx')
    for skip, logits in expected.items():
        assert difference(session.run(images, skip), logits) <= 1e-4


class Detector(nn.Module):
    """What the export sees of a detector: a backbone, and a neck with several outputs."""

    def __init__(self):
        super().__init__()
        self.backbone = MODELS.build(dict(RESNET, out_indices=(0, 1)))
        self.backbone.layer1.requires_grad_(False)
        self.neck = None


def test_feature_maps_of_a_detector(tmp_path):
    model = vary(Detector()).train()
    export_onnx(model, tmp_path / 'a.onnx', (3, 32, 32), adaptive=True)
    assert model.training
    session = AdaptiveSession(tmp_path / 'a.onnx')
    assert session.about['output'] == 'feature maps'
    assert [out.name for out in session.session.get_outputs()] == ['feature_0', 'feature_1']
    images = torch.randn(2, 3, 64, 32)
    model.eval()
    for skip in session.subnets():
        with model.backbone.skipping(skip), torch.no_grad():
            for a, b in zip(model.backbone(images), session.run(images, skip), strict=True):
                np.testing.assert_allclose(b, a.numpy(), rtol=1e-4, atol=1e-4)


@pytest.fixture
def _sigterm():
    usual = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, usual)


@pytest.mark.usefixtures('_sigterm')
def test_the_tool_writes_a_file_of_one_depth_or_nothing(tmp_path, monkeypatch, capsys):
    cfg, out = tmp_path / 'cfg.py', tmp_path / 'a.onnx'
    cfg.write_text(f"default_scope = 'mmpretrain'\nmodel = {config('vit')!r}\n")
    model = vary(MODELS.build(config('vit')))
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'a.pth')
    command = ['export_onnx.py', cfg, tmp_path / 'a.pth', out, '--skip', 'FT', '--shape', '3', '32', '32']
    monkeypatch.setattr(sys, 'argv', list(map(str, command)))
    runpy.run_path(str(ROOT / 'tools/export_onnx.py'), run_name='__main__')
    printed = capsys.readouterr().out
    assert 'FT' in printed and f'{out.stat().st_size / 1e6:.2f} MB: logits' in printed.replace('\n', ' ')
    images = torch.randn(1, 3, 32, 32)
    with model.backbone.skipping('FT'), torch.no_grad():
        expected = model(images).numpy()
    session = open_session(out)
    np.testing.assert_allclose(
        session.run(None, {'images': images.numpy()})[0], expected, rtol=1e-4, atol=1e-4
    )
    with pytest.raises(ValueError, match='no input for the depth: it is FT alone; export an adaptive file'):
        AdaptiveSession(out)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    terminate = partial(os.kill, os.getpid(), signal.SIGTERM)  # in the midst of its work
    with monkeypatch.context() as patched:
        patched.setattr(export, 'trace', lambda *args: terminate())
        with pytest.raises(SystemExit, match='stopped'):
            runpy.run_path(str(ROOT / 'tools/export_onnx.py'), run_name='__main__')
    monkeypatch.setattr(sys, 'argv', [*map(str, command[:2]), str(cfg), *map(str, command[3:])])
    with pytest.raises(SystemExit, match='error: .*is no complete checkpoint'):
        runpy.run_path(str(ROOT / 'tools/export_onnx.py'), run_name='__main__')
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
