"""A sub-network as an ordinary network: what it gives, what of mmadn is left in it, where it loads."""

import copy
import pickle
import runpy
import subprocess
import sys
import threading

import pytest
import torch
import toy
from backbones import CASES, resnet, vit
from conftest import ROOT
from mmengine.config import Config
from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmpretrain.models import MobileNetV2, ResNet

from mmadn.deploy import extract, extract_file, stock_config
from mmadn.deploy.stock import SHORTENED, Shortened, running
from mmadn.depth import AdaptiveDepth, split


def scramble(model):
    """Other values everywhere, so that no two norm copies and no two depths agree by chance."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for name, buffer in model.named_buffers():
            if 'running' in name:
                buffer += 0.1 * torch.rand_like(buffer)
    model.eval()
    return model


def used(backbone):
    return sum(p.numel() for p in backbone.parameters()) - sum(p.numel() for p in backbone.idle_parameters())


def classes(network):
    return {each.__module__.split('.')[0] for module in network.modules() for each in type(module).__mro__}


@torch.no_grad()
def same(one, other, images):
    return all(torch.equal(a, b) for a, b in zip(one(images), other(images), strict=True))


@pytest.mark.parametrize(
    'name, norms', [*((name, True) for name in CASES), ('resnet50', 'all'), ('vit', False)]
)
def test_every_depth_is_bit_equal_without_mmadn(name, norms):
    case = CASES[name]
    backbone = scramble(case.build(**case.drop_path, skip_aware_norms=norms))
    images = torch.randn(1, 3, case.image_size, case.image_size)
    for skip in backbone.subnets():
        network = extract(backbone, skip, share=True)
        assert 'mmadn' not in classes(network)
        with backbone.skipping(skip):
            assert same(network, backbone, images), skip
            assert sum(p.numel() for p in network.parameters()) == used(backbone)
    assert backbone.skip == 'F' * case.flags


@pytest.mark.parametrize('name', CASES)
def test_config_builds_the_extracted_network_from_stock_classes(name):
    case = CASES[name]
    backbone = scramble(case.build())
    images = torch.randn(1, 3, case.image_size, case.image_size)
    for skip in ('TFTFT'[: case.flags], 'base'):
        cfg = Config(dict(model=dict(backbone=dict(type=case.adn, skip_aware_norms=True, **case.args))))
        text = stock_config(cfg, skip)
        network = MODELS.build(Config.fromstring(text, '.py').model.backbone)
        network.eval()
        extracted = extract(backbone, skip)
        assert 'mmadn' not in text and 'mmadn' not in classes(network)
        assert str(network) == str(extracted)
        network.load_state_dict(extracted.state_dict())
        assert same(network, extracted, images)


NO_ARGUMENT = {  # backbones whose stock classes take no numbers of blocks
    'ResNet': (toy.BACKBONE, 128),
    'MobileNetV2': (dict(type='mmadn.ADNMobileNetV2', widen_factor=0.25), 1280),
}


@pytest.mark.parametrize('name', NO_ARGUMENT)
def test_loading_an_extracted_config_changes_no_class(name):
    cfg = classifier(*NO_ARGUMENT[name])
    before = copy.deepcopy((MobileNetV2.arch_settings, ResNet.arch_settings))
    texts = {skip: stock_config(cfg, skip) for skip in ('FTFFT'[: 4 + (name == 'MobileNetV2')], 'base')}
    loaded = {skip: Config.fromstring(text, '.py') for skip, text in texts.items()}  # all before any is built
    loaded.update({skip: Config.fromstring(text, '.py') for skip, text in texts.items()})  # twice
    for skip, stock in loaded.items():
        assert stock_config(cfg, skip) == texts[skip]
        expected = extract(MODELS.build(copy.deepcopy(cfg.model)), skip)  # building completes a config
        for network in (MODELS.build(stock.model), MODELS.build(stock.model)):
            assert str(network.backbone) == str(expected.backbone)
            assert isinstance(network.backbone, (MobileNetV2, ResNet))
    assert (MobileNetV2.arch_settings, ResNet.arch_settings) == before
    assert 'register_module' in texts['base']
    assert 'register_module' not in stock_config(cfg, 'super')


def test_a_stock_depth_needs_no_class_of_its_own():
    cfg = classifier(dict(type='mmadn.ADNResNet', depth=50, mandatory=(3, 4, 6, 3)), 2048)
    for skip in ('FFFF', 'TTTT'):
        text = stock_config(cfg, skip)
        assert 'import' not in text
        assert Config.fromstring(text, '.py').model.backbone == dict(type='mmpretrain.ResNet', depth=50)
    cfg = classifier(dict(type='mmadn.ADNResNet', depth=34, mandatory=(2, 2, 2, 2)), 512)
    text = stock_config(cfg, 'TTTT')
    assert 'import' not in text
    assert Config.fromstring(text, '.py').model.backbone == dict(type='mmpretrain.ResNet', depth=18)


def test_a_family_that_nobody_registered_is_named(monkeypatch):
    class Tiny(BaseModule):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))

    class ADNTiny(AdaptiveDepth, Tiny):
        def sub_paths(self, mandatory):
            return split([self.blocks], mandatory)

    with pytest.raises(ValueError, match='ADNTiny: how its Tiny takes numbers of blocks is not known'):
        extract(ADNTiny(), 'T')
    monkeypatch.setitem(
        SHORTENED,
        'Tiny',
        lambda backbone, args: Shortened({'length': len(running(backbone.blocks))}, {}),
    )
    network = extract(ADNTiny(), 'T')
    assert type(network) is Tiny and len(network.blocks) == network.length == 1


@pytest.mark.parametrize(
    'name',
    [
        'adn/resnet50_adn_v2_in1k',
        'adn/swin_t_adn_in1k',
        'adn/resnet50_adn-finetune_in1k',
        'det/mask_rcnn_r50adn_coco',
    ],
)
def test_config_keeps_nothing_that_is_for_training_alone(name):
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    cfg.model.backbone.init_cfg = [dict(type=PretrainedInit, checkpoint='absent.pth')]
    cfg.custom_imports = dict(imports=['mmadn'])
    stock = Config.fromstring(stock_config(cfg, 'TTFF'), '.py')
    for word in ('train', 'init_cfg', 'batch_augments', 'Pretrained', 'absent', 'CheckpointHook', 'SeedHook'):
        text = stock.pretty_text.replace('pretrain', '').replace('train_cfg=None', '')
        assert word not in text, word
    assert {'bgr_mean', 'data_root', 'dataset_type', 'auto_scale_lr', 'custom_imports'}.isdisjoint(stock)
    assert {'model', 'test_dataloader', 'test_evaluator', 'default_scope', 'visualizer'} <= set(stock)
    assert MODELS.build(stock.model).train_cfg is None if 'det/' in name else MODELS.build(stock.model)


def test_config_keeps_what_inference_and_testing_need():
    cfg = Config.fromfile(ROOT / 'configs/adn/mobilenetv2_adn_in1k.py')
    text = stock_config(cfg, 'TFFFF')
    stock = Config.fromstring(text, '.py')
    assert 'mmadn' not in text and 'optim_wrapper' not in stock and 'train_dataloader' not in stock
    assert stock.test_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline
    assert stock.test_dataloader.dataset.type == 'mmpretrain.CustomDataset'
    assert stock.test_cfg == {} and stock.val_cfg == {}
    assert cfg.model.head.type == 'mmadn.DropoutLinearClsHead'  # the given one stays as it was
    network = extract(MODELS.build(cfg.model), 'TFFFF')
    assert 'mmadn' not in classes(network) and not hasattr(network.head, 'dropout')
    assert str(network.head) == str(MODELS.build(stock.model).head)


def test_extracted_config_tests_as_the_adaptive_one_does(digits, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/demo/resnet50_adn_digits.py')
    cfg.merge_from_dict(dict(model=dict(backbone=dict(stem_channels=4, base_channels=4))))
    cfg.model.head.in_channels = 128
    for name in ('val_dataloader', 'test_dataloader'):
        cfg[name].update(num_workers=0, persistent_workers=False)
        cfg[name].dataset.data_root = str(digits.root)
    cfg.work_dir, cfg.log_level = str(tmp_path), 'ERROR'
    cfg.test_cfg.skips = ['TTFT']
    torch.save(scramble(MODELS.build(cfg.model)).state_dict(), tmp_path / 'adn.pth')
    extract_file(cfg, tmp_path / 'adn.pth', tmp_path / 'net', 'TTFT', shape=(3, 32, 32))
    adaptive = Config(dict(cfg, load_from=str(tmp_path / 'adn.pth'), experiment_name='adaptive'))
    stock = Config.fromfile(tmp_path / 'net.py')
    stock.update(load_from=str(tmp_path / 'net.pth'), experiment_name='stock')
    expected = Runner.from_cfg(adaptive).test()
    assert Runner.from_cfg(stock).test() == {k.removeprefix('TTFT/'): v for k, v in expected.items()}


DETECTORS = {
    'retinanet': dict(
        base='retinanet/retinanet_r50_fpn_1x_coco',
        bbox_head=dict(in_channels=8, feat_channels=8, stacked_convs=1),
        test_cfg=dict(score_thr=0.0, max_per_img=5),
    ),
    'faster_rcnn': dict(
        base='faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
        rpn_head=dict(in_channels=8, feat_channels=8),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=8), bbox_head=dict(in_channels=8, fc_out_channels=8)
        ),
        test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=5)),
    ),
}
DETECTORS['mask_rcnn'] = dict(
    base='mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
    rpn_head=DETECTORS['faster_rcnn']['rpn_head'],
    roi_head=dict(
        **DETECTORS['faster_rcnn']['roi_head'],
        mask_roi_extractor=dict(out_channels=8),
        mask_head=dict(in_channels=8, conv_out_channels=8, num_convs=1),
    ),
    test_cfg=DETECTORS['faster_rcnn']['test_cfg'],
)


def detector(name, backbone=None, neck=None):
    settings = dict(DETECTORS[name])
    cfg = Config.fromstring(f"_base_ = 'mmdet::{settings.pop('base')}.py'", '.py')
    cfg.merge_from_dict(dict(model=settings))
    cfg.model.backbone = backbone or dict(**resnet().args, type='mmadn.ADNResNet', norm_eval=True)
    cfg.model.neck.update({'in_channels': [16, 32, 64, 128], 'out_channels': 8, **(neck or {})})
    return cfg


def classifier(backbone, channels):
    cfg = Config(dict(default_scope='mmpretrain', model=toy.model_cfg()))
    cfg.model.backbone, cfg.model.head.in_channels = backbone, channels
    if backbone['type'] in ('mmadn.ADNConvNeXt', 'mmadn.ADNVisionTransformer'):
        cfg.model.neck = None
    if backbone['type'] == 'mmadn.ADNVisionTransformer':
        cfg.model.head.type = 'mmpretrain.VisionTransformerClsHead'
    return cfg


def write(cfg, folder, name, skip, shape, **kwargs):
    """The checkpoint of a scrambled network, and what `extract_file` makes of it."""
    model = scramble(MODELS.build(cfg.model))
    meta = dict(dataset_meta=dict(classes=tuple('abcde')), cfg='mmadn', epoch=3)
    torch.save(dict(meta=meta, state_dict=model.state_dict()), folder / f'{name}_adn.pth')
    rows = extract_file(cfg, folder / f'{name}_adn.pth', folder / name, skip, shape=shape, **kwargs)
    return model, rows


CHILD = """
import copy, sys, torch
from mmengine.config import Config
sys.modules['mmadn'] = None  # importing it fails from here on
Config.fromfile(f'{sys.argv[1]}/resnet.py')  # first: it lets a torchvision built for CUDA be imported
import numpy as np
from mmdet.apis import inference_detector, init_detector
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain import ImageClassificationInferencer, get_model
from mmpretrain.models import ResNet

folder, image = sys.argv[1], np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
results, archs = {}, copy.deepcopy(ResNet.arch_settings)
with DefaultScope.overwrite_default_scope('mmpretrain'):
    for name in ('resnet', 'other', 'mobilenet'):
        model = get_model(f'{folder}/{name}.py', pretrained=f'{folder}/{name}.pth')
        results[name] = model(torch.ones(1, 3, 32, 32))
    predicted = ImageClassificationInferencer(f'{folder}/resnet.py', pretrained=f'{folder}/resnet.pth')(image)
    assert predicted[0]['pred_class'] in 'abcde', predicted
for name in ('retinanet', 'faster_rcnn', 'mask_rcnn'):
    model = init_detector(f'{folder}/{name}.py', f'{folder}/{name}.pth', device='cpu')
    assert model.dataset_meta['classes'] == tuple('abcde')
    assert len(inference_detector(model, image).pred_instances) == 5
    results[name] = model.backbone(torch.ones(1, 3, 64, 96))
cfg = Config.fromfile(f'{folder}/resnet.py')
cfg.update(work_dir=f'{folder}/work', load_from=f'{folder}/resnet.pth', test_dataloader=None)
runner = Runner.from_cfg(cfg)
runner.load_or_resume()
results['runner'] = runner.model.eval()(torch.ones(1, 3, 32, 32))
assert ResNet.arch_settings == archs
assert not any(name.startswith('mmadn.') for name in sys.modules)
whole = torch.load(f'{folder}/whole.pth', weights_only=False)  # the pickled module
results['whole'] = whole(torch.ones(1, 3, 32, 32))
torch.save(results, f'{folder}/results.pth')
"""


def test_loads_in_stock_classifiers_and_detectors_where_mmadn_cannot_be_imported(tmp_path):
    models = {}
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    for name, backbone, channels, skip in (
        ('resnet', toy.BACKBONE, 128, 'TTFF'),
        ('other', toy.BACKBONE, 128, 'FTFT'),
        ('mobilenet', dict(type='mmadn.ADNMobileNetV2', widen_factor=0.25), 1280, 'TTFFT'),
    ):
        cfg = classifier(backbone, channels)
        cfg.test_dataloader = dict(dataset=dict(type='mmadn.ImageFolder', pipeline=pipeline))
        models[name], rows = write(cfg, tmp_path, name, skip, (3, 32, 32))
        models[name].backbone.set_skip(skip)
        assert rows[1]['difference'] == 0
    for name in DETECTORS:
        models[name], rows = write(detector(name), tmp_path, name, 'TTFF', (3, 64, 96))
        models[name].backbone.set_skip('TTFF')
        assert rows[1]['difference'] == 0 and rows[1]['params'] < rows[0]['params']
        assert rows[1]['gflops'] < rows[0]['gflops']
        models[name] = models[name].backbone
    whole = extract(models['resnet'], 'TFFT')
    assert b'mmadn' not in pickle.dumps(whole)
    torch.save(whole, tmp_path / 'whole.pth')

    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, '-c', CHILD, tmp_path],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = torch.load(tmp_path / 'results.pth')
    with torch.no_grad():
        for name, model in {**models, 'runner': models['resnet'], 'whole': whole}.items():
            sizes = (64, 96) if name in DETECTORS else (32, 32)
            expected = model(torch.ones(1, 3, *sizes))
            expected = expected if isinstance(expected, tuple) else (expected,)
            found = results[name] if isinstance(results[name], tuple) else (results[name],)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), name


@pytest.mark.parametrize('family', ['swin', 'mmpretrain.swin', 'vit'])
def test_detectors_with_other_backbones(family):
    if family == 'swin':
        args = CASES['swin'].args['arch']
        backbone = dict(type='mmadn.ADNSwinTransformer', window_size=2, **args)
        cfg = detector('retinanet', backbone, dict(in_channels=[8, 16, 32, 64]))
    elif family == 'mmpretrain.swin':
        args = CASES['swin'].args
        backbone = dict(type='mmadn.mmpretrain.ADNSwinTransformer', **args, pad_small_map=True)
        cfg = detector('retinanet', backbone, dict(in_channels=[8, 16, 32, 64]))
    else:
        backbone = dict(
            type='mmadn.ADNVisionTransformer', **vit(12), out_type='featmap', out_indices=[2, 5, 8, 11]
        )
        cfg = detector('retinanet', backbone, dict(in_channels=[16] * 4))
    model = scramble(MODELS.build(cfg.model))
    images = torch.randn(1, 3, 64, 64)
    network = extract(model, 'TFFT')
    assert 'mmadn' not in classes(network)
    stock = MODELS.build(Config.fromstring(stock_config(cfg, 'TFFT'), '.py').model).eval()
    stock.load_state_dict(network.state_dict())
    with model.backbone.skipping('TFFT'):
        assert same(network.extract_feat, model.extract_feat, images)
        assert same(stock.extract_feat, model.extract_feat, images)


def plain_settings(network):
    """What a network says of itself beside its modules and tensors."""
    hidden = {'_modules', '_parameters', '_buffers', 'init_cfg', 'training'}
    return {
        name: value for name, value in vars(network).items() if name not in hidden and '_hooks' not in name
    }


@pytest.mark.parametrize('name', CASES)
def test_an_extracted_network_says_of_itself_what_the_stock_one_says(name):
    case = CASES[name]
    cfg = Config(dict(model=dict(backbone=dict(type=case.adn, **case.args))))
    text = stock_config(cfg, 'base')
    built = plain_settings(MODELS.build(Config.fromstring(text, '.py').model.backbone))
    found = plain_settings(extract(case.build(), 'base'))
    skipped = {'depth', 'arch_settings'}  # in the arguments and in the class, after all
    assert {k: str(v) for k, v in found.items() if k not in skipped} == {
        k: str(v) for k, v in built.items() if k not in skipped
    }


def test_sizes_are_those_of_the_weights_alone(inputs):
    """A checkpoint of a training holds the optimizer's state too, which has no part in the comparison."""
    cfg = Config.fromfile(inputs / 'adn.py')
    model = toy.build()
    state = model.state_dict()
    momenta = {i: dict(momentum_buffer=p.clone()) for i, p in enumerate(model.parameters())}
    torch.save(dict(state_dict=state, optimizer=dict(state=momenta)), inputs / 'epoch_1.pth')
    adaptive, alone = extract_file(cfg, inputs / 'epoch_1.pth', inputs / 'net', 'super', shape=(3, 32, 32))
    assert adaptive['size'] * 1e6 == pytest.approx(sum(t.nbytes for t in state.values()))
    written = torch.load(inputs / 'net.pth')['state_dict']
    assert alone['size'] * 1e6 == pytest.approx(sum(t.nbytes for t in written.values()))
    assert 0.9 < alone['size'] / adaptive['size'] < 1


def test_file_is_as_large_as_the_parameters_in_use(tmp_path):
    # Of all families MobileNetV2 has the most buffers and the smallest tensors.
    cfg = Config.fromfile(ROOT / 'configs/adn/mobilenetv2_adn_in1k.py')
    model, (_, row) = write(cfg, tmp_path, 'net', 'super', (3, 32, 32))
    in_use = used(model.backbone) + 1281 * 1000
    size = (tmp_path / 'net.pth').stat().st_size
    assert row['params'] * 1e6 == in_use
    assert in_use * 4 < row['size'] * 1e6 < size < in_use * 4 * 1.02


TORCHVISION = {  # the classifier, the depth, and by how much of their deviation the logits may differ
    'resnet50': (dict(type='mmadn.ADNResNet', depth=50), 2048, 'TTTT', 0),
    'mobilenet_v2': (dict(type='mmadn.ADNMobileNetV2', widen_factor=0.25), 1280, 'TFFTT', 0),
    'swin': (
        dict(type='mmadn.ADNSwinTransformer', arch=CASES['swin'].args['arch'], window_size=2),
        64,
        'TFFT',
        1e-5,
    ),
    'convnext': (dict(type='mmadn.ADNConvNeXt', arch=CASES['convnext'].args['arch']), 16, 'TFFT', 1e-5),
    'vit': (dict(type='mmadn.ADNVisionTransformer', **vit(12)), 16, 'TFFT', 1e-5),
}


@pytest.mark.parametrize('name', TORCHVISION)
def test_torchvision_loads_it_strictly_and_agrees(name, tmp_path):
    backbone, channels, skip, bound = TORCHVISION[name]
    size = CASES[name].image_size
    model, rows = write(
        classifier(backbone, channels), tmp_path, 'net', skip, (3, size, size), to='torchvision'
    )
    network = runpy.run_path(str(tmp_path / 'net.py'))['build']().eval()
    assert type(network).__module__.startswith('torchvision.models.')
    network.load_state_dict(torch.load(tmp_path / 'net.pth'))
    images = torch.randn(2, 3, size, size)
    with torch.no_grad(), model.backbone.skipping(skip):
        ours, theirs = model(images), network(images)
    assert (theirs - ours).abs().max() <= bound * ours.std()
    assert rows[1]['difference'] <= bound
    if name == 'resnet50':
        assert 'ResNet(Bottleneck, [2, 2, 3, 2], num_classes=5)' in (tmp_path / 'net.py').read_text()


@pytest.mark.parametrize(
    ('settings', 'channels', 'message'),
    [
        (dict(avg_down=True), 512, 'downsample'),
        (dict(norm_cfg=dict(type='BN', eps=1e-3)), 512, 'eps'),
        (dict(base_channels=32), 256, 'is not this network'),
    ],
    ids=['vd', 'eps', 'narrow'],
)
def test_torchvision_refuses_what_it_does_not_have(settings, channels, message, tmp_path):
    cfg = classifier(dict(type='mmadn.ADNResNet', **{'depth': 18, **settings}), channels)
    with pytest.raises(ValueError, match=message):
        write(cfg, tmp_path, 'net', 'TFFF', (3, 32, 32), to='torchvision')
    assert [path.name for path in tmp_path.iterdir()] == ['net_adn.pth']


def test_torchvision_refuses_what_it_computes_otherwise(tmp_path):
    backbone = dict(type='mmadn.ADNMobileNetV2', widen_factor=0.25, act_cfg=dict(type='HSwish'))
    with pytest.raises(ValueError, match='gives other logits'):
        write(classifier(backbone, 1280), tmp_path, 'net', 'TFFFT', (3, 32, 32), to='torchvision')
    assert [path.name for path in tmp_path.iterdir()] == ['net_adn.pth']


def test_torchvision_refuses_detectors(tmp_path):
    with pytest.raises(ValueError, match='torchvision has no RetinaNet'):
        write(detector('retinanet'), tmp_path, 'net', 'base', (3, 64, 64), to='torchvision')


def test_two_threads_serve_two_depths_of_the_same_weights():
    model = scramble(toy.build())
    batches = torch.randn(20, 50, 3, 16, 16)  # a thousand images
    networks = {skip: extract(model, skip, share=True) for skip in ('FFFF', 'TTFT')}
    owned = {p.data_ptr() for p in model.parameters()}
    expected, found = {}, {}
    with torch.no_grad():
        for skip in networks:
            with model.backbone.skipping(skip):
                expected[skip] = torch.stack([model(images) for images in batches])
    assert not torch.equal(*expected.values())

    def serve(skip):
        with torch.no_grad():
            found[skip] = torch.stack([networks[skip](images) for images in batches])

    threads = [threading.Thread(target=serve, args=(skip,)) for skip in networks]
    for thread in threads:
        thread.start()
    subnets = model.backbone.subnets()
    while any(thread.is_alive() for thread in threads):  # the original's switches do not reach them
        for skip in subnets:
            model.backbone.set_skip(skip)
        threads[0].join(0.01)
    for thread in threads:
        thread.join()
    for skip, network in networks.items():
        assert torch.equal(found[skip], expected[skip])
        assert {p.data_ptr() for p in network.parameters()} <= owned


def test_shared_weights_follow_training_and_copies_do_not():
    model = toy.build()
    shared, copied = extract(model, 'TTTT', share=True), extract(model, 'TTTT')
    images = torch.randn(2, 3, 32, 32)
    model.train()
    model.backbone.set_skip('TTTT')
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(images).square().sum().backward()
    optimizer.step()
    for network in (model, shared, copied):
        network.eval()
    with torch.no_grad():
        assert torch.equal(shared(images), model(images))
        assert not torch.equal(copied(images), model(images))
    assert model.backbone.skip == 'TTTT'


def test_an_extracted_network_trains_as_an_ordinary_one():
    network = extract(toy.build(), 'TFFT').train()
    losses = network(**network.data_preprocessor(toy.batch(), True), mode='loss')
    losses['loss'].backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize('skip', ['TTF', 'TTFFT', 'ttff', 5])
def test_bad_skip(skip):
    with pytest.raises(ValueError, match='give 4 letters'):
        extract(toy.build(), skip)
    with pytest.raises(ValueError, match='give 4 letters'):
        stock_config(Config(dict(default_scope='mmpretrain', model=toy.model_cfg())), skip)


def test_model_without_adaptive_depth():
    stock = dict(type='mmpretrain.ResNet', stem_channels=4, base_channels=4, depth=50)
    cfg = classifier(stock, 128)
    with pytest.raises(TypeError, match='no adaptive depth'):
        extract(MODELS.build(cfg.model), 'TTFF')
    with pytest.raises(TypeError, match='no adaptive depth'):
        stock_config(cfg, 'TTFF')
    with pytest.raises(TypeError, match='no adaptive depth'):
        stock_config(Config(dict(default_scope='mmpretrain')), 'TTFF')


def test_type_without_an_equivalent():
    cfg = detector('retinanet')
    cfg.model.neck = dict(type='mmadn.SimpleFPN', in_channels=128, out_channels=8)
    with pytest.raises(ValueError, match='config.model.neck is a mmadn.SimpleFPN'):
        stock_config(cfg, 'TTFF')


@pytest.mark.parametrize('outputs', [[1, 2], [10]])
def test_vit_outputs_after_skipped_blocks(outputs):
    backbone = CASES['vit'].build(out_indices=outputs)
    extract(backbone, 'FFFF')
    with pytest.raises(ValueError, match='last blocks of groups, 2, 5'):
        extract(backbone, 'TTTT')


@pytest.fixture
def inputs(tmp_path):
    """A config, its checkpoint, and what else lies beside them."""
    Config(dict(default_scope='mmpretrain', model=toy.model_cfg())).dump(tmp_path / 'adn.py')
    torch.save(toy.build().state_dict(), tmp_path / 'adn.pth')
    (tmp_path / 'corrupt.pth').write_bytes((tmp_path / 'adn.pth').read_bytes()[:5000])
    torch.save([1, 2], tmp_path / 'list.pth')
    torch.save(toy.build(backbone=dict(base_channels=8)).state_dict(), tmp_path / 'other.pth')
    return tmp_path


def tool(*args):
    sys_argv, sys.argv = sys.argv, ['extract_subnet.py', *map(str, args)]
    try:
        runpy.run_path(str(ROOT / 'tools/extract_subnet.py'), run_name='__main__')
    finally:
        sys.argv = sys_argv


@pytest.mark.parametrize(
    ('checkpoint', 'out', 'skip', 'message'),
    [
        ('adn.pth', 'net', 'TTF', 'give 4 letters'),
        ('corrupt.pth', 'net', 'TTFF', 'corrupt.pth is no complete checkpoint'),
        ('list.pth', 'net', 'TTFF', 'holds a list'),
        ('other.pth', 'net', 'TTFF', 'other.pth is not a checkpoint of the model in this config'),
        ('absent.pth', 'net', 'TTFF', 'absent.pth.: there is no such file'),
        ('adn.pth', 'adn.pth/net', 'TTFF', 'adn.pth'),
        ('adn.pth', 'adn', 'TTFF', 'would overwrite'),
    ],
)
def test_bad_input_leaves_nothing_behind(inputs, checkpoint, out, skip, message):
    before = {path: path.read_bytes() for path in inputs.iterdir()}
    arguments = [inputs / 'adn.py', inputs / checkpoint, inputs / out, '--skip', skip, '--shape', 3, 32, 32]
    with pytest.raises(SystemExit, match=f'error: .*{message}'):
        tool(*arguments)
    assert {path: path.read_bytes() for path in inputs.iterdir()} == before


def test_tool_prints_what_was_saved(inputs, capsys):
    tool(inputs / 'adn.py', inputs / 'adn.pth', inputs / 'net.pth', '--skip', 'base', '--shape', 3, 32, 32)
    text = capsys.readouterr().out
    for word in ('adaptive, FFFF', 'TTTT alone', 'parameters (M)', 'MFLOPs', 'weights (MB)'):
        assert word in text
    saved = torch.load(inputs / 'net.pth')
    assert saved['meta']['skip'] == 'TTTT' and saved['meta']['cfg'] == (inputs / 'net.py').read_text()
