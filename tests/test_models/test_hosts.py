"""A backbone in a config is the class of the library that the config belongs to, with its defaults."""

import copy
import pickle
from pathlib import Path

import mmdet
import pytest
import torch
from backbones import equal, randomize
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadn import ADNResNet, adaptive
from mmadn.deploy import extract, stock_config
from mmadn.deploy.stock import SHORTENED, Shortened, running
from mmadn.depth import SkipAwareNorm

ZOO = Path(mmdet.__file__).parent / '.mim' / 'configs'
RESNET = dict(depth=50, base_channels=4, stem_channels=8)
SWIN = dict(embed_dims=8, num_heads=[1, 2, 2, 4], window_size=2)
SWIN_V2 = dict(embed_dims=8, depths=[2, 2, 6, 2], num_heads=[1, 2, 2, 4], extra_norm_every_n_blocks=0)
CONVNEXT = dict(arch=dict(depths=[3, 3, 9, 3], channels=[4, 8, 12, 16]))
DILATED = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
# The library of the config, the stock type, its arguments, and how many blocks each flag skips.
ROWS = [
    ('mmdet', 'ResNet', dict(RESNET, depth=18), [1, 1, 1, 1]),
    ('mmdet', 'ResNet', RESNET, [1, 2, 3, 1]),
    ('mmdet', 'ResNetV1d', RESNET, [1, 2, 3, 1]),
    ('mmdet', 'ResNeXt', dict(RESNET, groups=2, base_width=4), [1, 2, 3, 1]),
    ('mmdet', 'Res2Net', dict(RESNET, scales=4, base_width=26), [1, 2, 3, 1]),
    ('mmdet', 'ResNeSt', dict(RESNET, base_channels=8, radix=2), [1, 2, 3, 1]),
    ('mmdet', 'RegNet', dict(arch='regnetx_400mf'), [1, 3, 6]),
    ('mmdet', 'DetectoRS_ResNet', RESNET, [1, 2, 3, 1]),
    ('mmdet', 'SwinTransformer', SWIN, [1, 1, 3, 1]),
    ('mmdet', 'MobileNetV2', dict(widen_factor=0.25), [1, 1, 2, 1, 1]),
    ('mmdet', 'CSPNeXt', dict(widen_factor=0.25), [1, 3, 3]),
    ('mmdet', 'CSPNeXt', dict(widen_factor=0.25, deepen_factor=0.33), [1, 1]),
    ('mmdet', 'CSPDarknet', dict(widen_factor=0.25), [1, 4, 4]),
    ('mmdet', 'PyramidVisionTransformer', dict(embed_dims=8, num_layers=[2, 3, 4, 2]), [1, 1, 2, 1]),
    ('mmdet', 'mmpretrain.ConvNeXt', CONVNEXT, [1, 1, 4, 1]),
    ('mmrotate', 'mmdet.ResNet', RESNET, [1, 2, 3, 1]),
    ('mmseg', 'ResNetV1c', dict(RESNET, **DILATED), [1, 2, 3, 1]),
    ('mmseg', 'ResNeXt', dict(RESNET, groups=2, base_width=4), [1, 2, 3, 1]),
    ('mmseg', 'SwinTransformer', SWIN, [1, 1, 3, 1]),
    ('mmseg', 'MobileNetV2', dict(widen_factor=0.25), [1, 1, 2, 1, 1]),
    ('mmseg', 'VisionTransformer', dict(img_size=64, embed_dims=16, num_heads=2), [1, 1, 1, 1]),
    ('mmseg', 'MixVisionTransformer', dict(embed_dims=8), [1, 2, 3, 1]),
    ('mmpretrain', 'ResNet', dict(RESNET, depth=34), [1, 2, 3, 1]),
    ('mmpretrain', 'SEResNet', dict(RESNET, se_ratio=2), [1, 2, 3, 1]),
    ('mmpretrain', 'SwinTransformerV2', dict(arch=SWIN_V2, img_size=64, window_size=2), [1, 1, 3, 1]),
]


def build(library, type_, settings, **more):
    if library in ('mmseg', 'mmrotate'):
        pytest.importorskip(library)
    with DefaultScope.overwrite_default_scope(library):
        return MODELS.build(dict(type=type_, **copy.deepcopy(settings), **more))


def adaptive_type(type_, library):
    """The one word that changes in a config."""
    given, _, name = type_.rpartition('.')
    return f'mmadn.{given}.ADN{name}' if given not in ('', library) else f'mmadn.ADN{name}'


def pair(library, type_, settings, **more):
    stock = build(library, type_, settings)
    network = build(library, adaptive_type(type_, library), settings, **more)
    tables = {name: table.clone() for name, table in stock.named_buffers() if 'relative' in name}
    randomize(stock)
    for name, table in stock.named_buffers():
        table.copy_(tables.get(name, table))
    # Swin V2 does not load its tables, so it loads strictly nowhere.
    network.load_state_dict(stock.state_dict(), strict='V2' not in type_)
    stock.eval(), network.eval()
    return stock, network


@torch.no_grad()
def features(network):
    outputs = network(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    return [output for output in outputs if isinstance(output, torch.Tensor)]


@pytest.mark.parametrize(
    'library, type_, settings, skippable', ROWS, ids=lambda v: v if isinstance(v, str) else ''
)
def test_the_backbone_of_each_library(library, type_, settings, skippable):
    stock, network = pair(library, type_, settings)
    assert isinstance(network, type(stock))
    assert [len(blocks) for _, blocks in network.sub_paths(None)] == skippable
    whole = features(network)
    assert equal(whole, features(stock))
    network.set_skip('base')
    base = features(network)
    assert [f.shape for f in base] == [f.shape for f in whole]
    assert not torch.equal(base[-1], whole[-1]) and base[-1].isfinite().all()
    assert equal(features(extract(network, 'base')), base)


def test_one_class_for_one_backbone():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert MODELS.get('mmadn.ADNResNet') is ADNResNet
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert MODELS.get('mmadn.ADNResNet') is adaptive(mmdet.models.ResNet) is not ADNResNet
        assert MODELS.get('mmadn.mmpretrain.ADNResNet') is ADNResNet


def test_a_class_made_at_run_time_is_copied_and_pickled():
    network = build('mmdet', 'mmadn.ADNResNeXt', dict(RESNET, groups=2, base_width=4))
    network.eval()
    expected = features(network)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert type(twin) is type(network) and equal(features(twin), expected)
        twin.set_skip('TTTT')
        assert network.skip == 'FFFF'


@pytest.mark.parametrize(
    'config',
    [
        'solo/solo_r50_fpn_1x_coco.py',
        'solov2/solov2_r50_fpn_1x_coco.py',
        'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        'gcnet/mask-rcnn_r50-gcb-r16-c3-c5_fpn_1x_coco.py',
    ],
)
def test_a_detector_gets_the_resnet_of_mmdet(config):
    settings = Config.fromfile(ZOO / config).model.backbone.to_dict()
    settings.update(base_channels=4, stem_channels=8, init_cfg=None)
    stock, network = pair('mmdet', settings.pop('type'), settings)
    assert network.norm_eval == stock.norm_eval and network.out_indices == stock.out_indices
    stock.train(), network.train()
    norms = [any(m.training for m in n.modules() if isinstance(m, _BatchNorm)) for n in (stock, network)]
    assert norms[0] == norms[1]
    stock.eval(), network.eval()
    assert equal(features(network), features(stock))


def test_arguments_that_only_mmdet_knows():
    stages = False, True, True, True
    plugins = [dict(cfg=dict(type='ContextBlock', ratio=0.25), stages=stages, position='after_conv3')]
    backbone = build('mmdet', 'mmadn.ADNResNet', RESNET, plugins=plugins)
    assert [f.shape[1] for f in features(backbone)] == [16, 32, 64, 128]


def test_a_classifier_gets_the_resnet_of_mmpretrain():
    backbone = build('mmpretrain', 'mmadn.ADNResNet', RESNET)
    assert not backbone.norm_eval and backbone.out_indices == (3,)


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_a_classifiers_checkpoint_starts_the_backbone_of_a_detector_or_segmentor(library, tmp_path):
    resnet = randomize(build('mmpretrain', 'mmadn.ADNResNet', RESNET))  # other values in both copies
    torch.save({f'backbone.{n}': value for n, value in resnet.state_dict().items()}, tmp_path / 'adn.pth')
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'adn.pth'), prefix='backbone.')
    backbone = build(library, 'mmadn.ADNResNet', RESNET, init_cfg=cfg)
    backbone.init_weights()
    backbone.eval(), resnet.eval()
    for skip in ('FFFF', 'TFFT'):
        with backbone.skipping(skip), resnet.skipping(skip):
            assert equal(features(backbone)[-1:], features(resnet))


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_swin_loads_weights_as_the_library_does(library, tmp_path):
    """Those of Swin's authors, by other names; and those of a classifier of adaptive depth."""
    settings = dict(SWIN, depths=[2, 2, 2, 2])
    arch = dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 2, 2, 4])
    classifier = dict(arch=arch, window_size=2, out_indices=(0, 1, 2, 3), pad_small_map=True)
    source = randomize(build('mmpretrain', 'mmadn.ADNSwinTransformer', classifier))
    torch.save({f'backbone.{n}': value for n, value in source.state_dict().items()}, tmp_path / 'adn.pth')
    cfg = ConfigDict(type='Pretrained', checkpoint=str(tmp_path / 'adn.pth'))
    network = build(library, 'mmadn.ADNSwinTransformer', settings, init_cfg=cfg)
    network.init_weights()
    network.eval(), source.eval()
    for skip in ('FFFF', 'TFFT'):
        with network.skipping(skip), source.skipping(skip):
            assert equal(features(network), features(source))
    if library == 'mmdet':
        renamed = {
            name.replace('patch_embed.projection', 'patch_embed.proj')
            .replace('stages', 'layers').replace('attn.w_msa', 'attn')
            .replace('ffn.layers.0.0', 'mlp.fc1').replace('ffn.layers.1', 'mlp.fc2'): value
            for name, value in build(library, 'SwinTransformer', settings).state_dict().items()
        }  # fmt: skip
        torch.save({'model': renamed}, tmp_path / 'authors.pth')
        cfg = ConfigDict(type='Pretrained', checkpoint=str(tmp_path / 'authors.pth'))
        loaded = [
            build(library, type_, settings, init_cfg=cfg, convert_weights=True)
            for type_ in ('SwinTransformer', 'mmadn.ADNSwinTransformer')
        ]
        for each in loaded:
            each.init_weights()
            each.eval()
        assert equal(*map(features, loaded))


class Bottle(nn.Module):
    """A block of a stranger's network."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x):
        return self.norm(self.conv(x)).relu() + self.shortcut(x)


@MODELS.register_module()
class StrangersNet(BaseModule):
    def __init__(self, blocks=(2, 3)):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.body = nn.ModuleDict()
        for i, number in enumerate(blocks):
            widths = [4 * max(i, 1), *[4 * (i + 1)] * number]
            self.body[f'part{i}'] = nn.Sequential(*map(Bottle, widths[:-1], widths[1:]))

    def forward(self, x):
        x, outputs = self.stem(x), []
        for part in self.body.values():
            x = nn.functional.max_pool2d(part(x), 2)
            outputs.append(x)
        return tuple(outputs)


@pytest.mark.parametrize('skip', ['FF', 'TT'])
def test_a_strangers_backbone_is_extracted_when_it_says_how(skip, monkeypatch):
    init_default_scope('mmpretrain')
    blocks = lambda network: [len(running(part)) for part in network.body.values()]  # noqa: E731
    monkeypatch.setitem(SHORTENED, 'StrangersNet', lambda net, args: Shortened({}, {'blocks': blocks(net)}))
    backbone = dict(type='mmadn.ADNStrangersNet', residual_stages=STAGES)
    cfg = Config(dict(model=dict(type='ImageClassifier', backbone=backbone), default_scope='mmpretrain'))
    model = MODELS.build(cfg.model)
    network = extract(model, skip)
    stock = MODELS.build(Config.fromstring(stock_config(cfg, skip), '.py').model)
    stock.load_state_dict(network.state_dict())
    network.eval(), stock.eval()
    assert type(stock.backbone) is type(network.backbone) is StrangersNet
    assert equal(features(stock.backbone), features(network.backbone))


STAGES = ['body.part0', 'body.part1']


@pytest.mark.parametrize('library', ['mmdet', 'mmpretrain'])
def test_a_strangers_backbone(library):
    stock, network = pair(library, 'StrangersNet', {}, residual_stages=STAGES)
    assert network.subnets() == ['FF', 'FT', 'TF', 'TT']
    assert equal(features(network), features(stock))
    network.set_skip('TT')
    assert network.body.part1[0].norm is not network.body.part0[0].norm
    assert isinstance(network.body.part1[0].norm, SkipAwareNorm)
    plain = build(library, 'StrangersNet', dict(blocks=(1, 2))).eval()
    state = network.state_dict()
    plain.load_state_dict({
        name: state.get(name, state.get(name.replace('norm.', 'norm.skip.'))) for name in plain.state_dict()
    })  # fmt: skip
    assert equal(features(network), features(plain))


def test_a_plain_module_needs_no_more():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(Bottle(3, 3), Bottle(3, 3))

        def forward(self, x):
            return (self.blocks(x),)

    network = adaptive(Plain)(residual_stages=['blocks'])
    network.init_weights()
    network.eval()
    with network.skipping('T'):
        base = features(network)
    assert not equal(base, features(network))


@pytest.mark.parametrize(
    'type_, settings, message',
    [
        ('StrangersNet', {}, r'is not known; if it has some, name .* \(its modules are stem, body\)'),
        (
            'StrangersNet',
            dict(residual_stages=['body.part7']),
            "no module 'body.part7' with blocks in it; some",
        ),
        ('StrangersNet', dict(residual_stages=['stem']), 'some that have are body, body.part0, body.part1'),
        (
            'StrangersNet',
            dict(residual_stages=[STAGES[0]] * 2),
            "named once, and 'body.part0' is or contains",
        ),
        (
            'StrangersNet',
            dict(residual_stages=['body', STAGES[0]]),
            "once, and 'body' is or contains another",
        ),
        ('StrangersNet', dict(residual_stages='body.part0'), "residual_stages='body.part0': give a list"),
        ('StrangersNet', dict(residual_stages=[]), r'residual_stages=\[\]: give a list'),
        (
            'StrangersNet',
            dict(residual_stages=STAGES, blocks=(1, 1)),
            'StrangersNet has nothing to skip: each of its 2 stages is a single block',
        ),
        ('StrangersNet', dict(residual_stages=STAGES, skip='TTTT'), "skip='TTTT': give 2 letters"),
        ('StrangersNet', dict(residual_stages=STAGES, mandatory=(1, 4)), 'each at least 1 and at most 2, 3'),
        ('ResNet', dict(RESNET, group=3), 'group=3: ResNet has 4 stages of its own; remove it'),
        ('EfficientNet', dict(arch='b0'), 'EfficientNet: where its residual stages are is not known'),
        ('LeViT', dict(arch='128s'), 'LeViT: where its residual stages are is not known'),
    ],
)
def test_what_does_not_fit_is_one_line(type_, settings, message):
    with pytest.raises(ValueError, match=message):
        build('mmpretrain', f'mmadn.ADN{type_}', settings)


def test_stages_that_are_more_than_blocks():
    with pytest.raises(ValueError, match='where its residual stages are is not known'):
        build('mmdet', 'mmadn.ADNDarknet', {})


def test_a_name_that_nobody_has():
    init_default_scope('mmdet')
    with pytest.raises(KeyError, match='mmadn.ADNNothing is not in the'):
        MODELS.build(dict(type='mmadn.ADNNothing'))


def test_the_block_that_merges_the_branches_of_tridentnet_always_runs():
    settings = dict(depth=50, base_channels=4, stem_channels=4, num_stages=3, strides=(1, 2, 2))
    trident = dict(num_branch=3, test_branch_idx=-1, trident_dilations=(1, 2, 3), dilations=(1, 1, 1))
    network = build('mmdet', 'mmadn.ADNTridentResNet', dict(settings, **trident, out_indices=(2,)))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)  # that of the branches is not initialised without a checkpoint
    whole = features(network)
    with network.skipping('TTT'):
        base = features(network)
    assert base[0].shape == whole[0].shape and not equal(base, whole)
