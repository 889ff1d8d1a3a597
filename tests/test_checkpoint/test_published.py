import argparse
from collections import OrderedDict

import pytest
import torch
from backbones import randomize
from conftest import GOLDEN, ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmadn.checkpoint.published import ARCHS, convert, convert_back, convert_file, published_names


@pytest.fixture(scope='module')
def published():
    """Weights under published names, all different."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(tensor.shape, generator=generator)
        for name, (_, tensor) in published_names('resnet50').items()
    }


CONFIGS = {'mobilenet_v2': 'mobilenetv2', 'vit_b_16': 'vit_b16', 'vit_b_32': 'vit_b32'}


@pytest.mark.parametrize('arch', [arch for arch in ARCHS if 'head' in ARCHS[arch].model])
def test_the_result_loads_in_the_classifier_of_the_config(arch):
    config = Config.fromfile(ROOT / f'configs/adn/{CONFIGS.get(arch, arch)}_adn_in1k.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({**config.model, 'type': 'mmpretrain.ImageClassifier'})
    assert model.state_dict().keys() == {name for name, _ in published_names(arch).values()}


@pytest.mark.parametrize('arch', ARCHS)
def test_there_and_back_is_the_identity(arch, tmp_path):
    # Bytes, because files of floats would take four times as long to write and read.
    here = {
        name: torch.randint(256, tensor.shape, dtype=torch.uint8)
        for name, tensor in published_names(arch).values()
    }
    torch.save({'state_dict': here, 'meta': {}}, tmp_path / 'here.pth')
    convert_file(tmp_path / 'here.pth', tmp_path / 'published.pth', arch, to='published')
    convert_file(tmp_path / 'published.pth', tmp_path / 'again.pth', arch)
    convert_file(tmp_path / 'again.pth', tmp_path / 'back.pth', arch, to='published')
    again = torch.load(tmp_path / 'again.pth', weights_only=True)['state_dict']
    assert again.keys() == here.keys() and all(torch.equal(again[n], here[n]) for n in here)
    published, back = (torch.load(tmp_path / f'{n}.pth', weights_only=True) for n in ('published', 'back'))
    assert published.keys() == back.keys()
    assert all(torch.equal(published[n], back[n]) for n in published)


@pytest.mark.parametrize('arch', GOLDEN)
def test_published_names_and_shapes(arch, reference):
    expected = reference(arch)['shapes']
    weights = reference.fill.fill_state_dict(expected)
    back = convert_back(convert(weights, arch), arch)
    index = {name for name in back if name.endswith('relative_position_index')}
    assert {name: list(tensor.shape) for name, tensor in back.items() if name not in index} == expected
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())
    assert (len(index) == 12) == (arch == 'swin_t')
    assert all(back[name].shape == (49 * 49,) for name in index)  # as torchvision's buffers


def test_every_tensor_finds_its_place(published):
    converted = convert(published, 'resnet50')
    assert torch.equal(converted['head.fc.weight'], published['fc.weight'])
    assert torch.equal(converted['backbone.bn1.weight'], published['bn1.weight'])
    for here, there in [('full', 'bn2'), ('skip', 'bn2_skip')]:
        name = f'backbone.layer3.1.bn2.{here}.running_var'
        assert torch.equal(converted[name], published[f'layer3.1.{there}.running_var'])
    assert len(converted) == len(published)


@pytest.mark.parametrize('kind', ['bare', 'model', 'model_ema', 'parallel'])
def test_kinds_of_files(kind, published, tmp_path):
    other = {name: value + 1 for name, value in published.items()}
    averaged = {'n_averaged': torch.tensor(7), **{f'module.{n}': v for n, v in published.items()}}
    checkpoint = {
        'bare': published,
        'model': {'model': published, 'epoch': 3, 'args': argparse.Namespace(lr=0.1)},
        'model_ema': {'model': other, 'model_ema': averaged, 'args': argparse.Namespace(lr=0.1)},
        'parallel': {f'module.{n}': v for n, v in published.items()},
    }[kind]
    torch.save(checkpoint, tmp_path / 'src.pth')
    convert_file(tmp_path / 'src.pth', tmp_path / 'new' / 'dst.pth', 'resnet50')
    got = torch.load(tmp_path / 'new' / 'dst.pth', weights_only=True)['state_dict']
    assert all(torch.equal(got[n], v) for n, v in convert(published, 'resnet50').items())
    if kind == 'model_ema':
        convert_file(tmp_path / 'src.pth', tmp_path / 'raw.pth', 'resnet50', key='model')
        raw = torch.load(tmp_path / 'raw.pth', weights_only=True)['state_dict']
        assert torch.equal(raw['head.fc.bias'], other['fc.bias'])


class Harmful:
    def __reduce__(self):
        return print, ('this must not run',)


def write_bad(kind, published, path):
    less = {n: v for n, v in published.items() if n != 'layer1.0.conv1.weight'}
    bad = {
        'missing': less,
        'unexpected': {**published, 'extra.weight': torch.zeros(1)},
        'renamed': {**less, 'layer1.0.conv9.weight': torch.zeros(1)},
        'shape': {**published, 'fc.weight': torch.zeros(10, 2048)},
        'number': {**published, 'fc.weight': 3},
        'list': [1, 2],
        'code': {'model': published, 'args': Harmful()},
    }
    if kind in bad:
        torch.save(bad[kind], path)
    else:
        torch.save(published, path)
        data = path.read_bytes()
        path.write_bytes({'truncated': data[: len(data) // 2], 'empty': b'', 'text': b'hello'}[kind])


@pytest.mark.parametrize(
    'kind, message',
    [
        ('missing', r'1 names are missing \(first: layer1.0.conv1.weight\), 0 are unexpected'),
        ('unexpected', r'0 names are missing .*1 are unexpected \(first: extra.weight\)'),
        ('renamed', r'first: layer1.0.conv1.weight.*first: layer1.0.conv9.weight'),
        ('shape', r'fc.weight has the shape \(10, 2048\), not \(1000, 2048\)'),
        ('number', r"fc.weight has the shape \('no tensor',\)"),
        ('list', 'holds a list'),
        ('code', 'no complete checkpoint'),
        ('truncated', 'no complete checkpoint'),
        ('empty', 'no complete checkpoint'),
        ('text', 'no complete checkpoint'),
    ],
)
def test_bad_files_leave_nothing(kind, message, published, tmp_path, capsys):
    write_bad(kind, published, tmp_path / 'src.pth')
    with pytest.raises(ValueError, match=message):
        convert_file(tmp_path / 'src.pth', tmp_path / 'dst.pth', 'resnet50')
    assert [p.name for p in tmp_path.iterdir()] == ['src.pth']
    assert 'must not run' not in capsys.readouterr().out


def test_another_architecture_is_named(published):
    with pytest.raises(
        ValueError,
        match='not the weights of resnet101: .* missing .first: layer3.3.bn1_skip.weight',
    ):
        convert(published, 'resnet101')
    with pytest.raises(ValueError, match="arch='vgg': choose one of resnet18, resnet34"):
        convert(published, 'vgg')


def test_no_such_entry(published, tmp_path):
    torch.save(published, tmp_path / 'src.pth')
    with pytest.raises(ValueError, match="no entry 'model_ema'; it has one bare state dict"):
        convert_file(tmp_path / 'src.pth', tmp_path / 'dst.pth', 'resnet50', key='model_ema')


class Unit(nn.Module):
    """A convolution of RT-DETR's ResNet, under its names."""

    def __init__(self, inputs, outputs, kernel, stride=1, copies=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        if copies == 2:
            self.norm_skip = nn.BatchNorm2d(outputs)

    def forward(self, x, skip=False):
        return (self.norm_skip if skip else self.norm)(self.conv(x))


class Block(nn.Module):
    def __init__(self, inputs, width, stride, first, copies):
        super().__init__()
        self.branch2a = Unit(inputs, width, 1, 1, copies)
        self.branch2b = Unit(width, width, 3, stride, copies)
        self.branch2c = Unit(width, 4 * width, 1, 1, copies)
        if first and stride == 2:
            pool = nn.AvgPool2d(2, 2, 0, ceil_mode=True)
            self.short = nn.Sequential(OrderedDict(pool=pool, conv=Unit(inputs, 4 * width, 1)))
        elif first:
            self.short = Unit(inputs, 4 * width, 1)

    def forward(self, x, skip):
        y = self.branch2a(x, skip).relu()
        y = self.branch2c(self.branch2b(y, skip).relu(), skip)
        return (y + (self.short(x) if hasattr(self, 'short') else x)).relu()


class RTDETRResNet(nn.Module):
    """Written from what is known of it: ResNet-vd with a deep stem, and the paper's split of its stages."""

    def __init__(self):
        super().__init__()
        stem = zip((3, 32, 32), (32, 32, 64), (2, 1, 1), strict=True)
        self.conv1 = nn.ModuleDict(
            {f'conv1_{i}': Unit(a, b, 3, stride) for i, (a, b, stride) in enumerate(stem, 1)}
        )
        self.res_layers, inputs = nn.ModuleList(), 64
        for stage, (blocks, mandatory) in enumerate(zip((3, 4, 6, 3), (2, 2, 3, 2), strict=True)):
            layer, width = nn.Module(), 64 * 2**stage
            layer.blocks = nn.ModuleList()
            for i in range(blocks):
                stride = 2 if stage and not i else 1
                layer.blocks.append(Block(inputs, width, stride, not i, 1 + (i < mandatory)))
                inputs = 4 * width
            self.res_layers.append(layer)

    def forward(self, x, skip):
        for unit in self.conv1.values():
            x = unit(x).relu()
        x, features = nn.functional.max_pool2d(x, 3, 2, 1), []
        for layer, letter in zip(self.res_layers, skip, strict=True):
            for block in layer.blocks:
                mandatory = hasattr(block.branch2a, 'norm_skip')
                if mandatory or letter == 'F':
                    x = block(x, mandatory and letter == 'T')
            features.append(x)
        return features


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_the_backbone_of_rt_detr(prefix):
    published = randomize(RTDETRResNet()).eval()
    state = {f'{prefix}{name}': value for name, value in published.state_dict().items()}
    frozen = {name: value for name, value in state.items() if not name.endswith('num_batches_tracked')}
    with DefaultScope.overwrite_default_scope('mmdet'):
        backbone = MODELS.build(dict(type='mmadn.ADNResNetV1d', depth=50))
    backbone.eval()
    other = {'decoder.weight': torch.ones(1)} if prefix else {}
    backbone.load_state_dict(convert({**frozen, **other}, 'resnet50vd_rtdetr'), strict=True)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for skip in ('FFFF', 'TTFT', 'TTTT'):
            backbone.set_skip(skip)
            for found, expected in zip(backbone(images), published(images, skip), strict=True):
                assert (found - expected).abs().max() < 1e-4 * expected.std()
