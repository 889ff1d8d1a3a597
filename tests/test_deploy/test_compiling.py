import copy

import detectors
import pytest
import torch
from backbones import equal, randomize
from mmengine.registry import MODELS

from mmadn.deploy.compiling import compile
from mmadn.depth import PathNorm
from mmadn.engine.shared_prefixes import shared_prefixes
from mmadn.models.backbones import ADNMobileNetV2

counters = torch._dynamo.utils.counters


@pytest.fixture(autouse=True)
def _no_graphs():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def no_more_graphs():
    """Called, makes any compilation from then on an error."""
    yield lambda: torch.compiler.set_stance('fail_on_recompile')
    torch.compiler.set_stance('default')


class Model(torch.nn.Module):
    """A backbone, and a neck that takes its outputs."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.neck = backbone, Neck()

    def forward(self, x):
        return self.neck(self.backbone(x))


class Neck(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, features):
        return tuple(self.scale * x for x in features)


TWO_STAGES = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
VIT = dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32)
BACKBONES = {  # with their images' size: as small as they get, tracing takes its time
    'ResNet': (dict(depth=18, stem_channels=4, base_channels=4, **TWO_STAGES), 32),
    'MobileNetV2': (dict(widen_factor=0.1, out_indices=(1, 7)), 32),
    'SwinTransformer': (
        dict(arch=dict(embed_dims=8, depths=[2, 2], num_heads=[1, 2]), window_size=2, out_indices=(0, 1)),
        32,
    ),
    'VisionTransformer': (dict(arch=VIT, group=2, img_size=16, patch_size=8, drop_path_rate=0.5), 16),
    'ConvNeXt': (dict(arch=dict(depths=[2, 2], channels=[4, 8]), out_indices=[0, 1], drop_path_rate=0.5), 32),
}
SHARES = {'ResNet': 2, 'MobileNetV2': 9, 'SwinTransformer': 4, 'VisionTransformer': 4, 'ConvNeXt': 3}
# Beside them the neck, the stem (MobileNetV2's follows a flag), and the norms of outputs.
OTHERS = {'ResNet': 2, 'MobileNetV2': 1, 'SwinTransformer': 4, 'VisionTransformer': 3, 'ConvNeXt': 4}


def build(name='ResNet', **kwargs):
    args, size = BACKBONES[name]
    backbone = MODELS.build({'type': f'mmadn.ADN{name}', **args, **kwargs})
    return Model(randomize(backbone)).eval(), torch.randn(1, 3, size, size)


@torch.no_grad()
def at_all_depths(model, images):
    for skip in model.backbone.subnets():
        with model.backbone.skipping(skip):
            yield model(images)


@pytest.mark.parametrize('name', BACKBONES)
def test_every_depth_runs_compiled_after_one_warm_up(name, no_more_graphs, monkeypatch):
    few = [[1, 16, 1, 1], [2, 16, 2, 2], *5 * [[1, 16, 1, 1]]]  # MobileNetV2's blocks
    monkeypatch.setattr(ADNMobileNetV2, 'arch_settings', few)
    model, images = build(name)
    right = list(at_all_depths(model, images))
    assert compile(model, images, backend='eager') is model
    graphs = counters['stats']['unique_graphs']
    assert graphs == 2 * SHARES[name] + OTHERS[name]
    assert not counters['graph_break'] and set(model.backbone.skip) == {'F'}
    no_more_graphs()
    assert all(map(equal, at_all_depths(model, images), right))
    assert equal(model(images), right[0])  # whether or not gradients are on
    assert counters['stats']['unique_graphs'] == graphs


def calibrated(model):
    """Gives every norm other statistics for each pair of flags that it may depend on."""
    for norm in model.modules():
        if isinstance(norm, PathNorm) and norm.before is not None:
            norm.calibrated = True
    randomize(model.backbone)
    return model


@pytest.mark.parametrize('name, calibrated_parts', [('ResNet', 1), ('MobileNetV2', 4)])
def test_every_depth_of_a_calibrated_network_runs_compiled(
    name, calibrated_parts, no_more_graphs, monkeypatch
):
    few = [[1, 16, 1, 1], [2, 16, 2, 2], *4 * [[1, 16, 2, 1]], [1, 16, 1, 1]]
    monkeypatch.setattr(ADNMobileNetV2, 'arch_settings', few)
    # Of all stages but one both blocks always run: their switches are for norms alone.
    model, images = build(name, **(dict(mandatory=(1, 1, 2, 2, 2, 2, 1)) if name == 'MobileNetV2' else {}))
    right = list(at_all_depths(calibrated(model), images))
    compile(model, images, backend='eager')
    graphs = counters['stats']['unique_graphs']
    assert graphs == 2 * SHARES[name] + 2 * calibrated_parts + OTHERS[name]
    no_more_graphs()
    assert all(map(equal, at_all_depths(model, images), right))
    assert counters['stats']['unique_graphs'] == graphs and not counters['graph_break']


def test_a_detector_finds_what_it_found(no_more_graphs):
    model = detectors.build('retinanet').eval()
    model.test_cfg.score_thr = 0.0
    randomize(model.backbone)
    data = detectors.batch()

    @torch.no_grad()
    def find(skip):
        with model.backbone.skipping(skip):
            return [sample.pred_instances for sample in model.test_step(copy.deepcopy(data))]

    right = {skip: find(skip) for skip in ('FFFF', 'FTFT', 'TTTT')}
    compile(model, model.data_preprocessor(data, False)['inputs'], freezing=False, backend='eager')
    no_more_graphs()
    for skip, expected in right.items():
        for ours, theirs in zip(find(skip), expected, strict=True):
            assert len(theirs) and torch.equal(ours.bboxes, theirs.bboxes)
            assert torch.equal(ours.scores, theirs.scores)


def test_in_inference_mode(no_more_graphs):
    model, images = build()
    right = list(at_all_depths(model, images))
    with torch.inference_mode():
        images = images.clone()
        compile(model, images, backend='eager')
        no_more_graphs()
        assert all(map(equal, at_all_depths(model, images), right))


def test_frozen_norms_of_both_copies(no_more_graphs):
    one_stage = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    model, images = build(**one_stage)
    right = list(at_all_depths(model, images))
    compile(model, images)
    no_more_graphs()
    outputs = list(at_all_depths(model, images))
    for ours, theirs in zip(outputs, right, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, atol=1e-4 * b.std(), rtol=1e-4)
    for tensor in model.state_dict().values():
        tensor.zero_()
    assert all(map(equal, at_all_depths(model, images), outputs))  # constants of the graphs


def test_hooks_copies_and_shared_prefixes():
    model, images = build()
    plain = list(at_all_depths(model, images))
    model.backbone.layer1.register_forward_hook(lambda module, args, output: output + 1)
    right = list(at_all_depths(model, images))
    assert not any(map(equal, plain, right))
    compile(model, images, backend='eager')
    graphs = counters['stats']['unique_graphs']
    with torch.no_grad(), shared_prefixes(model.backbone):
        assert all(map(equal, at_all_depths(model, images), right))
    assert counters['stats']['unique_graphs'] == graphs
    other = copy.deepcopy(model)
    assert not any(module._compiled_call_impl for module in other.modules())
    assert equal(other(images), right[0])


def test_what_cannot_be_compiled_stays_as_it_was(monkeypatch):
    model, images = build()
    right, graphs = list(at_all_depths(model, images)), []

    def backend(graph, inputs):
        graphs.append(graph)
        if len(graphs) == 3:
            raise NotImplementedError
        return graph.forward

    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed):
        compile(model, images, backend=backend)
    with pytest.raises(RuntimeError, match='other outputs at FF'):
        compile(model, images, backend=lambda graph, inputs: lambda *x: [2 * y for y in graph(*x)])
    assert not any(module._compiled_call_impl for module in model.modules())
    assert all(map(equal, at_all_depths(model, images), right))


@pytest.mark.parametrize(
    'images, error',
    [(torch.rand(3, 32, 32), r'\(3, 32, 32\).*\(N, 3, H, W\)'), ('photo.jpg', "'photo.jpg'.*preprocessed")],
)
def test_images_of_the_wrong_kind(images, error):
    with pytest.raises(ValueError, match=error):
        compile(build()[0], images)


def test_models_of_the_wrong_kind():
    model, images = build()
    with pytest.raises(ValueError, match=r'call model\.eval\(\)'):
        compile(model.train(), images)
    model.eval().neck._compiled_call_impl = print
    with pytest.raises(ValueError, match='compiled already'):
        compile(model, images)
    with pytest.raises(TypeError, match='no adaptive depth'):
        compile(torch.nn.Linear(1, 1).eval(), images)
