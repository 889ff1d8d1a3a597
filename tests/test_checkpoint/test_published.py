import argparse

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

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


@pytest.mark.parametrize('arch', ARCHS)
def test_the_result_loads_in_the_classifier_of_the_config(arch):
    config = Config.fromfile(ROOT / f'configs/adn/{CONFIGS.get(arch, arch)}_adn_in1k.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({**config.model, 'type': 'mmpretrain.ImageClassifier'})
    assert model.state_dict().keys() == {name for name, _ in published_names(arch).values()}


@pytest.mark.parametrize('arch', ARCHS)
def test_there_and_back_is_the_identity(arch, tmp_path):
    here = {name: torch.rand(tensor.shape) for name, tensor in published_names(arch).values()}
    torch.save({'state_dict': here, 'meta': {}}, tmp_path / 'here.pth')
    convert_file(tmp_path / 'here.pth', tmp_path / 'published.pth', arch, to='published')
    convert_file(tmp_path / 'published.pth', tmp_path / 'again.pth', arch)
    convert_file(tmp_path / 'again.pth', tmp_path / 'back.pth', arch, to='published')
    again = torch.load(tmp_path / 'again.pth', weights_only=True)['state_dict']
    assert again.keys() == here.keys() and all(torch.equal(again[n], here[n]) for n in here)
    published, back = (torch.load(tmp_path / f'{n}.pth', weights_only=True) for n in ('published', 'back'))
    assert published.keys() == back.keys()
    assert all(torch.equal(published[n], back[n]) for n in published)


@pytest.mark.parametrize('arch', ARCHS)
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
    with pytest.raises(ValueError, match="arch='vgg': choose one of resnet50, resnet101"):
        convert(published, 'vgg')


def test_no_such_entry(published, tmp_path):
    torch.save(published, tmp_path / 'src.pth')
    with pytest.raises(ValueError, match="no entry 'model_ema'; it has one bare state dict"):
        convert_file(tmp_path / 'src.pth', tmp_path / 'dst.pth', 'resnet50', key='model_ema')
