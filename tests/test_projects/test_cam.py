"""Class activation maps: of every family, against Grad-CAM written out, and the tool."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toy
from conftest import ROOT
from mmengine.config import Config
from PIL import Image

from mmadn.checkpoint.files import load_model
from projects.paper import cam, cam_report
from projects.paper.cam import DepthMaps, activation_maps, class_number, stage_blocks
from projects.paper.cam_report import correlation

CONFIG = 'configs/demo/resnet50_adn_digits.py'
SIZE = (32, 64)  # not square, so that a grid that is turned round shows

# Family: its blocks of stage 3, how many of them are mandatory, and the grid of their patches.
STAGE_3 = {
    'resnet50': ([f'layer3.{i}' for i in range(6)], 3, (2, 4)),
    'mobilenetv2': ([f'layer4.{i}' for i in range(4)], 2, (2, 4)),
    'swin': ([f'stages.2.blocks.{i}' for i in range(6)], 3, (2, 4)),
    'vit': ([f'layers.{i}' for i in (6, 7, 8)], 2, (4, 8)),
    'convnext': ([f'stages.2.{i}' for i in range(9)], 5, (2, 4)),
}


def family(name):
    torch.manual_seed(0)
    model = load_model(Config.fromfile(ROOT / f'configs/demo/{name}_adn_digits.py'))
    model.init_weights()
    for parameter in model.head.parameters():  # that of a ViT starts at zero
        torch.nn.init.normal_(parameter)
    return model.eval()


@pytest.fixture(scope='module', params=STAGE_3)
def case(request):
    return family(request.param), *STAGE_3[request.param]


@pytest.fixture(scope='module')
def model():
    model = toy.build()
    model.dataset_meta = dict(classes=['tench, Tinca tinca', 'crane', 'crane', '4', 'sea lion'])
    return model.eval()


def noise(size=SIZE, seed=0):
    return torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(seed)).byte()


def written_out(model, name, image, category, skip, grid):
    """Grad-CAM of one block: mean gradients weigh the channels, and what is negative is cut."""
    kept = {}
    block = model.backbone.get_submodule(name)
    handle = block.register_forward_hook(lambda module, args, output: kept.update(features=output))
    with model.backbone.skipping(skip):
        logits = model(model.data_preprocessor({'inputs': [image]})['inputs'], mode='tensor')
    handle.remove()
    features = kept['features']
    (gradient,) = torch.autograd.grad(logits[0, category], features)
    features, gradient = features[0].detach(), gradient[0]
    if features.ndim == 2:  # tokens, maybe after a class token
        features, gradient = (x[-grid[0] * grid[1] :].T.reshape(-1, *grid) for x in (features, gradient))
    assert features.shape[1:] == grid
    found = sum(g.mean() * f for g, f in zip(gradient, features, strict=True)).relu()
    found = F.interpolate(found[None, None], image.shape[1:], mode='bilinear')[0, 0]
    return ((found - found.min()) / (found.max() - found.min())).numpy()


def test_every_family(case):
    model, names, mandatory, _ = case
    full, base = activation_maps(model, noise())
    n = model.backbone.num_skippable_stages
    assert (full.skip, base.skip) == ('F' * n, 'T' * n)
    assert list(full.maps) == list(base.maps) == names
    paths = [block.sub_path for block in stage_blocks(model.backbone, 3)]
    assert paths == ['mandatory'] * mandatory + ['skippable'] * (len(names) - mandatory)
    assert [base.maps[name] is None for name in names] == [path == 'skippable' for path in paths]
    for depth in (full, base):
        assert depth.category == depth.predicted and depth.probabilities.sum() == pytest.approx(1)
        for found in filter(lambda found: found is not None, depth.maps.values()):
            assert found.shape == SIZE and found.dtype == np.float32
            assert found.min() == 0 and 0.99 < found.max() <= 1
    assert not np.array_equal(full.maps[names[0]], base.maps[names[0]])


def test_agrees_with_grad_cam_written_out(case):
    model, names, mandatory, grid = case
    for depth in activation_maps(model, noise()):
        for name in (names[0], names[mandatory - 1], names[-1]):
            if depth.maps[name] is not None:
                expected = written_out(model, name, noise(), depth.category, depth.skip, grid)
                assert np.allclose(depth.maps[name], expected, atol=1e-3)


@pytest.mark.parametrize('method', cam.METHODS)
def test_each_block_gets_what_the_library_gives_it_alone(model, method):
    library = cam.grad_cam()
    (depth,) = activation_maps(model, noise(), stage=2, skips=['FTFF'], category=1, method=method)
    assert [name for name, found in depth.maps.items() if found is None] == ['layer2.2', 'layer2.3']
    inputs = model.data_preprocessor({'inputs': [noise()]})['inputs']
    targets = [library.utils.model_targets.ClassifierOutputTarget(1)]
    for name in ('layer2.0', 'layer2.1'):
        block = model.backbone.get_submodule(name)
        with (
            model.backbone.skipping('FTFF'),
            getattr(library, cam.METHODS[method])(cam._Logits(model), [block]) as alone,
        ):
            (expected,) = alone(inputs, targets)
        assert np.allclose(depth.maps[name], expected, atol=1e-5)
        assert 0 <= depth.maps[name].min() and depth.maps[name].max() <= 1


@pytest.mark.parametrize(
    'name, stage, blocks',
    [
        ('mobilenetv2', 1, ['layer1.0', 'layer2.0', 'layer2.1']),  # not the stem
        ('mobilenetv2', 5, ['layer6.0', 'layer6.1', 'layer6.2', 'layer7.0']),  # not the last convolution
        ('swin', 2, ['stages.1.blocks.0', 'stages.1.blocks.1']),  # not the patch merging
        ('convnext', 4, ['stages.3.0', 'stages.3.1', 'stages.3.2']),  # not the downsampling
    ],
)
def test_blocks_of_a_stage(name, stage, blocks):
    model = family(name)
    _, base = activation_maps(model, noise(), stage=stage)
    assert list(base.maps) == blocks
    skippable = [b.name for b in stage_blocks(model.backbone, stage) if b.sub_path == 'skippable']
    assert [name for name, found in base.maps.items() if found is None] == skippable
    assert len(skippable) == 1


def test_chosen_number_of_mandatory_blocks():
    model = toy.build(backbone=dict(mandatory=(2, 2, 5, 3))).eval()
    _, base = activation_maps(model, noise())
    assert [name for name, found in base.maps.items() if found is None] == ['layer3.5']
    assert [block.sub_path for block in stage_blocks(model.backbone, 4)] == ['mandatory'] * 3


def test_a_class_token_that_saw_all_has_no_map():
    (depth,) = activation_maps(family('vit'), noise(), stage=4, skips=['super'])
    assert [bool(found.any()) for found in depth.maps.values()] == [True, True, False]


def test_category_and_skips(model):
    image = noise((32, 32))
    first, second = (activation_maps(model, image, skips=['base'], category=c)[0] for c in (0, 4))
    assert (first.category, second.category) == (0, 4)
    assert np.array_equal(first.probabilities, second.probabilities)
    assert not np.array_equal(first.maps['layer3.0'], second.maps['layer3.0'])
    (named,) = activation_maps(model, image, skips=['base'], category='sea lion')
    assert np.array_equal(named.maps['layer3.0'], second.maps['layer3.0'])
    depths = activation_maps(model, image, skips=['super', 'FFFF', 'TFFF'])
    assert [depth.skip for depth in depths] == ['FFFF', 'TFFF']


@pytest.mark.parametrize(
    'given, number',
    [(None, None), (2, 2), ('tench', 0), ('Tinca tinca', 0), ('sea lion', 4), ('4', 3), ('1', 1)],
)
def test_class_number(model, given, number):
    assert class_number(model, given) == number


@pytest.mark.parametrize('context', [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(model, context):
    expected = activation_maps(model, noise())
    with context():
        found = activation_maps(model, noise().clone())
    for a, b in zip(expected, found, strict=True):
        assert np.array_equal(a.maps['layer3.0'], b.maps['layer3.0'])


@pytest.mark.parametrize('broken', [False, True])
def test_leaves_the_model_as_it_was(broken, monkeypatch):
    model = toy.build().train()
    model.backbone.layer1.eval()
    model.backbone.conv1.weight.requires_grad = False
    model.backbone.set_skip('FTFT')
    model(**model.data_preprocessor(toy.batch(), True), mode='loss')['loss'].backward()

    def state():
        return dict(
            skip=model.backbone.skip,
            modes=[module.training for module in model.modules()],
            frozen=[p.requires_grad for p in model.parameters()],
            hooks=[len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        )

    def tensors():
        return [*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None)]

    before, copies = state(), [x.clone() for x in tensors()]
    if broken:
        monkeypatch.setattr(model.head, 'forward', lambda feats: 1 / 0)
        with pytest.raises(ZeroDivisionError) as held:  # with its traceback, as a debugger would
            activation_maps(model, noise())
    else:
        activation_maps(model, noise())
    assert state() == before
    assert not broken or held.value
    after = tensors()
    assert len(after) == len(copies) and all(map(torch.equal, after, copies))


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(stage=0), 'stage=0: the stages of ADNResNet that have a skippable sub-path are 1, 2, 3, 4'),
        (dict(stage=5), 'stage=5: the stages .* 1, 2, 3, 4'),
        (dict(stage='3'), "stage='3': the stages"),
        (dict(skips=['TT']), "skip='TT': give 4 letters"),
        (dict(method='scorecam'), "method='scorecam': give one of gradcam, gradcam"),
        (dict(category=5), 'category=5: give a number from 0 to 4 or the name of a class, such as tench'),
        (dict(category=-1), 'category=-1: give a number from 0 to 4'),
        (dict(category='9'), "category='9': give a number"),
        (dict(category='sea leon'), "category='sea leon': .* such as sea lion$"),
        (dict(category='crane'), "category='crane' is the name of the classes .1, 2.; give a number"),
    ],
)
def test_refuses(model, kwargs, message):
    with pytest.raises(ValueError, match=message):
        activation_maps(model, noise(), **kwargs)


@pytest.mark.parametrize(
    'name, message',
    [('mask_rcnn_r50adn_shapes', 'MaskRCNN does not classify'), ('resnet50_digits', 'has no adaptive depth')],
)
def test_refuses_other_models(name, message):
    model = load_model(Config.fromfile(ROOT / f'configs/demo/{name}.py'))
    with pytest.raises(TypeError, match=message):
        activation_maps(model, noise())


def test_correlation():
    x = np.random.default_rng(0).random((4, 6))
    assert correlation(x, 2 * x + 1) == pytest.approx(1) and correlation(x, -x) == pytest.approx(-1)
    assert correlation(x, None) is correlation(None, x) is correlation(x, 0 * x) is None


def test_summary_and_tables():
    x = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    odds = np.float32([0.1, 0.7, 0.2])
    depths = [
        DepthMaps('F', odds, 1, {'a': x, 'b': 0 * x}),
        DepthMaps('T', odds[::-1], 1, {'a': 1 - x, 'b': None}),
    ]
    rows = cam_report.summary(depths, ['zero, nil', 'one', 'two'])
    assert rows[1]['predicted'] == rows[1]['category'] == 'one'
    assert 'output_correlation' not in rows[0]
    assert rows[1]['output_correlation'] is None  # of a map that is 0 everywhere
    assert rows[0]['blocks'] == {'a': {'mean': pytest.approx(0.5)}, 'b': {'mean': 0.0}}
    assert rows[1]['blocks'] == {
        'a': {'mean': pytest.approx(0.5), 'correlation': pytest.approx(-1)},
        'b': None,
    }
    report = dict(
        blocks={'a': 'mandatory', 'b': 'skippable'}, images=[dict(image='folder/i.png', depths=rows)]
    )
    first, second, output = cam_report.blocks_table(report)
    assert first == {'block': 'a', 'sub-path': 'mandatory', 'T: correlation with F': '-1.00'}
    assert second['T: correlation with F'] == 'skipped'
    assert (output['block'], output['T: correlation with F']) == ('output of the stage', '')
    report['images'].append(dict(image='other/i.png', depths=rows))
    assert [row['image'] for row in cam_report.predictions_table(report)][::2] == [
        'folder/i.png',
        'other/i.png',
    ]
    del report['images'][1]
    assert cam_report.predictions_table(report)[0] == {
        'image': 'i.png',
        'skip': 'F',
        'predicted': 'one',
        'probability': '70.0%',
        'maps of': 'one',
    }


@pytest.fixture
def tool(monkeypatch):
    """Runs the command line in this process."""

    def run(*arguments):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, 'argv', ['cam.py', *map(str, arguments)])
        runpy.run_path('tools/analysis/cam.py', run_name='__main__')

    return run


@pytest.fixture(scope='module')
def checkpoint(digits, tmp_path_factory):
    """An untrained network as narrow as `digits.small` makes it, which tells its classes."""
    cfg = Config.fromfile(ROOT / CONFIG)
    cfg.merge_from_dict(dict(options(digits)))
    torch.manual_seed(0)
    model = load_model(cfg)
    model.init_weights()
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    classes = ['zero, nil', 'one', *map(str, range(2, 10))]
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': classes}}}, path)
    return path


def options(digits):
    for option in digits.small[1:]:
        name, value = option.split('=')
        if name.startswith('model.'):
            yield name, int(value)


def test_tool_writes_its_files(tool, digits, checkpoint, tmp_path, capfd):
    three, seven = (next((digits.root / 'val' / number).iterdir()) for number in '37')
    large = tmp_path / 'large.png'
    Image.open(seven).resize((50, 40)).convert('RGB').save(large)
    out = tmp_path / 'new' / 'out'
    chosen = ['--skips', 'FFFF', 'TTTT', 'FFTF', '--category', 'zero', '--stage', 2, '--method', 'layercam']
    tool(CONFIG, checkpoint, three, large, *chosen, '--out', out, *digits.small)
    assert sorted(path.name for path in out.iterdir()) == ['cam.json', 'cam.png']
    with Image.open(out / 'cam.png') as drawn:
        assert drawn.width > drawn.height * 0.8 and drawn.height > 6 * 150  # six rows
    report = json.loads((out / 'cam.json').read_text())
    assert (report['stage'], report['method'], report['config']) == (2, 'layercam', CONFIG)
    assert [image['image'] for image in report['images']] == [str(three), str(large)]
    for image in report['images']:
        full, base, mixed = image['depths']
        assert [d['skip'] for d in (full, base, mixed)] == ['FFFF', 'TTTT', 'FFTF']
        assert full['category'] == base['category'] == 'zero, nil'
        assert list(full['blocks']) == [f'layer2.{i}' for i in range(4)]
        assert base['blocks']['layer2.3'] is None and mixed['blocks']['layer2.3']['correlation'] is not None
        assert -1 <= base['blocks']['layer2.0']['correlation'] < 1
        assert mixed['blocks']['layer2.0']['correlation'] < 1  # through the gradient
        assert mixed['output_correlation'] == mixed['blocks']['layer2.3']['correlation']
        assert base['output_correlation'] not in (None, base['blocks']['layer2.1']['correlation'])
    shown = capfd.readouterr().out
    assert 'large.png' in shown and 'skipped' in shown and f'{out}/cam.{{json,png}}' in shown


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(image='none.png'), 'none.png'),
        (dict(image='text.png'), 'text.png cannot be read as an image'),
        (dict(image='empty.png'), 'empty.png cannot be read as an image'),
        (dict(image='.'), 'directory'),
        (dict(stage=5), 'stage=5: the stages of ADNResNet .* 1, 2, 3, 4'),
        (dict(category='zebra'), "category='zebra': give a number from 0 to 9 or the name of a class"),
        (dict(skips='TTF'), "skip='TTF': give 4 letters"),
        (
            dict(config='configs/demo/mask_rcnn_r50adn_shapes.py'),
            'is of a MaskRCNN; give one of a classifier',
        ),
        (dict(config='configs/demo/resnet50_digits.py', checkpoint='stock.pth'), 'has no adaptive depth'),
        (dict(config='configs/none.py'), 'configs/none.py'),
        (dict(checkpoint='none.pth'), 'none.pth'),
        (dict(out='text.png/out'), 'cannot write into'),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else '',
)
def test_tool_mistakes_get_one_line(tool, arguments, message, digits, checkpoint, tmp_path, monkeypatch):
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'empty.png').touch()
    image = next((digits.root / 'val' / '3').iterdir())
    image = tmp_path / arguments['image'] if 'image' in arguments else image
    out = tmp_path / arguments.get('out', 'out')
    flags = [f'--{name}={arguments[name]}' for name in ('stage', 'category', 'skips') if name in arguments]
    config, weights = arguments.get('config', CONFIG), arguments.get('checkpoint', checkpoint)
    if weights == 'stock.pth':
        stock = Config.fromfile(ROOT / config)
        stock.merge_from_dict(dict(options(digits)))
        weights = tmp_path / weights
        torch.save(load_model(stock).state_dict(), weights)
    with pytest.raises(SystemExit, match=f'^error: .*{message}') as ended:
        tool(config, weights, image, '--out', out, *flags, *digits.small)
    assert '\n' not in str(ended.value)
    assert not list(tmp_path.rglob('cam.*'))


def test_a_missing_library_gets_one_line(tool, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    with pytest.raises(SystemExit, match='^error: .*pip install grad-cam==') as ended:
        tool(CONFIG, 'none.pth', 'none.png')
    assert '\n' not in str(ended.value)
