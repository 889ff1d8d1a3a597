"""The contract of every adaptive-depth backbone; a new one adds a row to backbones.py."""

import copy
import pickle

import pytest
import torch
from backbones import CASES, equal, randomize
from mmcv.cnn import is_norm
from mmcv.cnn.bricks import DropPath
from mmdet.registry import MODELS as MMDET
from mmengine.config import ConfigDict
from mmengine.model import PretrainedInit, revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as MMENGINE
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS as MMPRETRAIN
from torch import nn

from mmadn.depth import SkipAwareNorm, Skippable, adaptive_backbone


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def images(case):
    return torch.randn(2, 3, case.image_size, case.image_size)


def run(network, images):
    network.eval()
    with torch.no_grad():
        return network(images)


@pytest.mark.parametrize('registry', [MMPRETRAIN, MMDET, MMENGINE])
def test_builds_from_every_registry(case, registry):
    network = registry.build(dict(type=case.adn, skip='base', **case.args))
    assert network.skip == 'T' * case.flags


def test_super_net_is_the_stock_network(case, images):
    stock = randomize(case.build('stock'))
    network = case.build()
    network.load_state_dict(stock.state_dict(), strict=True)
    assert equal(run(network, images), run(stock, images))


def test_base_net_is_the_stock_network_with_fewer_blocks(case, images):
    network, base = randomize(case.build(skip='base')), case.build('base')
    weights = network.state_dict()

    def value(name):  # a doubled norm's second copy, a shared one's only copy
        name = case.base_name(name)
        head, _, last = name.rpartition('.')
        found = (weights[n] for n in (name, f'{head}.skip.{last}', f'{head}.full.{last}') if n in weights)
        return next(found)

    base.load_state_dict({name: value(name) for name in base.state_dict()}, strict=True)
    assert equal(run(network, images), run(base, images))


def test_every_subnet_is_another_function_of_the_stock_shapes(case, images):
    network, stock = randomize(case.build()), case.build('stock')
    shapes = [out.shape for out in run(stock, images)]
    seen = []
    for skip in network.subnets():
        network.set_skip(skip)
        outputs = run(network, images)
        assert [out.shape for out in outputs] == shapes
        assert not any(torch.equal(outputs[-1], other) for other in seen), skip
        seen.append(outputs[-1])
    assert len(seen) == 2**case.flags


def test_idle_parameters_are_those_without_a_gradient(case, images):
    network = randomize(case.build())
    reached = set()
    for skip in ('super', 'base', 'T' + 'F' * (case.flags - 1)):
        network.set_skip(skip)
        network.zero_grad()
        sum(out.square().mean() for out in network(images)).backward()
        used = {name for name, p in network.named_parameters() if p.grad is not None}
        idle = {id(p) for p in network.idle_parameters()}
        assert used == {name for name, p in network.named_parameters() if id(p) not in idle}
        if skip in ('super', 'base'):
            reached |= used
    assert reached == {name for name, _ in network.named_parameters()}


def test_skip_takes_what_it_says(case):
    network, n = case.build(), case.flags
    assert network.num_skippable_stages == n
    assert network.skip == 'F' * n
    one = 'T' + 'F' * (n - 1)
    for given, read in [
        (one, one),
        ([True] + [False] * (n - 1), one),
        ('base', 'T' * n),
        ('super', 'F' * n),
        (True, 'T' * n),
        (False, 'F' * n),
    ]:
        network.set_skip(given)
        assert network.skip == read
        network.skip = 'super'
        network.skip = given
        assert network.skip == read
    names = network.subnets()
    assert len(set(names)) == 2**n and names[0] == 'F' * n and names[-1] == 'T' * n


@pytest.mark.parametrize('bad', ['TT', 'TTTTTTTTTT', 'TXFF', 'ttff', '', 3, None, 1.0, [1, 0, 0, 1], [True]])
def test_bad_skip(case, bad):
    network = case.build(skip='base')
    with pytest.raises(ValueError, match=f'{case.flags} letters') as error:
        network.set_skip(bad)
    assert repr(bad) in str(error.value)
    assert network.skip == 'T' * case.flags  # as it was
    with pytest.raises(ValueError):
        case.build(skip=bad)


def test_bad_mandatory(case):
    lengths = case.lengths
    for bad in (
        [0, *lengths[1:]],
        [lengths[0] + 1, *lengths[1:]],
        lengths[:-1],
        2,
        'all',
        [1.5] * len(lengths),
    ):
        with pytest.raises(ValueError, match='at least 1 and at most') as error:
            case.build(mandatory=bad)
        assert repr(bad) in str(error.value)


def test_mandatory_says_how_many_blocks_run(case, images):
    network = randomize(case.build(mandatory=[1] * len(case.lengths)))
    skippable = [m for m in network.modules() if isinstance(m, Skippable) and not isinstance(m, DropPath)]
    assert len(skippable) == sum(case.lengths) - len(case.lengths)
    everything = case.build(mandatory=case.lengths)
    assert not [m for m in everything.modules() if isinstance(m, Skippable) and not isinstance(m, DropPath)]


def test_skipping_restores_also_after_an_error(case):
    network = case.build()
    with network.skipping('base') as inside:
        assert inside is network and network.skip == 'T' * case.flags
    assert network.skip == 'F' * case.flags
    with pytest.raises(KeyError), network.skipping('base'):
        raise KeyError
    assert network.skip == 'F' * case.flags


def test_copies_switch_on_their_own(case, images):
    network = randomize(case.build())
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert equal(run(other, images), run(network, images))
        other.set_skip('base')
        assert network.skip == 'F' * case.flags
        with network.skipping('base'):
            assert equal(run(other, images), run(network, images))


def test_without_skip_aware_norms_one_copy_serves_both_depths(case, images):
    network = case.build(skip_aware_norms=False)
    stock = {name: value.shape for name, value in case.build('stock').state_dict().items()}
    assert {name: value.shape for name, value in network.state_dict().items()} == stock
    randomize(network)
    full = case.build()
    full.load_state_dict(network.state_dict())  # the same values in both copies
    for skip in ('super', 'base'):
        network.set_skip(skip), full.set_skip(skip)
        assert equal(run(network, images), run(full, images))


def test_resnet_doubles_the_norms_of_its_shortcuts_on_request():
    case = CASES['resnet50']
    images = torch.randn(2, 3, case.image_size, case.image_size)
    network, published = case.build(skip_aware_norms='all'), case.build()
    doubled = {n for n, m in network.named_modules() if isinstance(m, SkipAwareNorm)}
    assert doubled - {n for n, m in published.named_modules() if isinstance(m, SkipAwareNorm)} == {
        f'layer{i}.0.downsample.1' for i in range(1, 5)
    }
    network.load_state_dict(published.state_dict())  # the shortcuts' norms into both copies
    for skip in ('super', 'base'):
        network.set_skip(skip), published.set_skip(skip)
        assert equal(run(network, images), run(published, images))


def test_skip_aware_norms_takes_what_it_says(case):
    with pytest.raises(ValueError, match="skip_aware_norms='none': give True, False or 'all'"):
        case.build(skip_aware_norms='none')


def test_state_dict_goes_round(case, images, tmp_path):
    network, other = randomize(case.build()), case.build()
    keys = list(network.state_dict())
    network.set_skip('base')
    assert list(network.state_dict()) == keys
    torch.save({'state_dict': network.state_dict()}, tmp_path / 'w.pth')
    load_checkpoint(other, str(tmp_path / 'w.pth'), strict=True)
    for skip in ('super', 'base'):
        network.set_skip(skip)
        other.set_skip(skip)
        assert equal(run(other, images), run(network, images))


def test_a_plain_norm_does_not_overwrite_an_explicit_second_copy(case):
    network = randomize(case.build())
    mixed = {name.replace('.full.', '.'): value for name, value in network.state_dict().items()}
    other = case.build()
    other.load_state_dict(mixed, strict=True)
    assert equal(other.state_dict().values(), network.state_dict().values())


def test_copies_stay_apart_when_a_checkpoint_is_assigned(case):
    network = case.build()
    network.load_state_dict(case.build('stock').state_dict(), strict=True, assign=True)
    for norm in (m for m in network.modules() if isinstance(m, SkipAwareNorm)):
        assert norm.full.weight.data_ptr() != norm.skip.weight.data_ptr()


NORMAL = dict(type='Normal', layer='Conv2d', std=0.1)


@pytest.mark.parametrize(
    'form',
    [
        lambda cfg: cfg,
        lambda cfg: {**cfg, 'type': PretrainedInit},
        lambda cfg: {**cfg, 'type': 'mmengine.Pretrained'},
        lambda cfg: ConfigDict(cfg),
        lambda cfg: [cfg],
        lambda cfg: [cfg, NORMAL],
        lambda cfg: [NORMAL, {**cfg, 'type': PretrainedInit}],
    ],
    ids=['dict', 'class', 'scope', 'config', 'list', 'first', 'last-class'],
)
def test_pretrained_weights_survive_init_weights(case, form, tmp_path):
    saved = randomize(case.build()).state_dict()  # other values in the two copies
    torch.save({f'backbone.{name}': value for name, value in saved.items()}, tmp_path / 'adn.pth')
    cfg = form(dict(type='Pretrained', checkpoint=str(tmp_path / 'adn.pth'), prefix='backbone.'))
    network = case.build(init_cfg=cfg)
    network.init_weights()
    for _ in range(2):  # a second call changes nothing
        assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())
        assert network.init_cfg == cfg
        network.init_weights()


@pytest.mark.parametrize('form', [lambda cfg: cfg, lambda cfg: [cfg]], ids=['dict', 'list'])
def test_pretrained_weights_of_the_stock_network_fill_both_copies(case, form, tmp_path):
    stock = randomize(case.build('stock'))
    torch.save(stock.state_dict(), tmp_path / 'stock.pth')
    network = case.build(init_cfg=form(dict(type='Pretrained', checkpoint=str(tmp_path / 'stock.pth'))))
    network.init_weights()
    for name, value in network.state_dict().items():
        plain = name.replace('.full.', '.').replace('.skip.', '.')
        assert torch.equal(value, stock.state_dict()[plain]), name


def test_weights_that_a_checkpoint_lacks_start_alike_in_both_copies(case, tmp_path):
    stock = randomize(case.build('stock')).state_dict()
    convolutions = {name: value for name, value in stock.items() if value.ndim > 1}
    torch.save(convolutions, tmp_path / 'stock.pth')
    network = randomize(case.build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'stock.pth'))))
    network.init_weights()
    for norm in (m for m in network.modules() if isinstance(m, SkipAwareNorm)):
        assert equal(norm.full.state_dict().values(), norm.skip.state_dict().values())


def test_init_weights_starts_both_copies_alike(case):
    network = randomize(case.build())
    network.init_weights()
    norms = [m for m in network.modules() if isinstance(m, SkipAwareNorm)]
    assert norms
    for norm in norms:
        assert equal(norm.full.state_dict().values(), norm.skip.state_dict().values())
        assert norm.full is not norm.skip


def batch_norms(network):
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def copies(network, kind):
    norms = (m for m in network.modules() if isinstance(m, SkipAwareNorm))
    return [(n.full, n.skip) for n in norms if isinstance(n.full, kind) or isinstance(n.skip, kind)]


def test_synchronised_batch_norms_keep_both_copies_there_and_back(case, images):
    network = randomize(case.build())
    state, outputs = network.state_dict(), {}
    doubled, norms = len(copies(network, nn.BatchNorm2d)), len(batch_norms(network))
    for skip in ('super', 'base'):
        network.set_skip(skip)
        outputs[skip] = run(network, images)
    assert not equal(outputs['super'], outputs['base'])

    for convert in (nn.SyncBatchNorm.convert_sync_batchnorm, revert_sync_batchnorm):
        network = convert(network)
        synchronised = convert is not revert_sync_batchnorm
        assert len(batch_norms(network)) == norms
        assert all(isinstance(n, nn.SyncBatchNorm) == synchronised for n in batch_norms(network))
        pairs = copies(network, nn.modules.batchnorm._BatchNorm)
        assert len(pairs) == doubled
        assert all(type(full) is type(skip) and full is not skip for full, skip in pairs)
        assert list(network.state_dict()) == list(state)
        assert equal(network.state_dict().values(), state.values())
        for skip in ('super', 'base'):
            network.set_skip(skip)
            assert equal(run(network, images), outputs[skip])


def test_there_are_batch_norms_to_synchronise():
    assert {name for name, case in CASES.items() if batch_norms(case.build())} == {
        'resnet50',
        'resnet50vd',
        'mobilenet_v2',
    }


def test_stochastic_depth_is_off_in_the_base_net(case, images):
    if not case.drop_path:
        pytest.skip('this network has no stochastic depth')
    network = randomize(case.build(**case.drop_path))
    network.train()
    for module in network.modules():
        if is_norm(module):
            module.eval()  # what remains at random is stochastic depth
    with torch.no_grad(), network.skipping('base'):
        assert equal(network(images), network(images))
    with torch.no_grad():
        assert not equal(network(images), network(images))


def test_a_model_without_adaptive_depth_is_refused():
    model = nn.Module()
    model.backbone = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="backbone Linear, which has no adaptive depth.*'mmadn.ADNResNet'"):
        adaptive_backbone(model)


def test_resnet_freezes_both_copies():
    case = CASES['resnet50']
    network = case.build(frozen_stages=1, norm_eval=True)
    network.train()
    norm = network.layer1[0].bn1
    assert not any(p.requires_grad for p in norm.parameters())
    assert not any(m.training for m in network.modules() if is_norm(m))
    assert all(p.requires_grad for p in network.layer2.parameters())


def test_resnet_zero_init_reaches_both_copies():
    network = CASES['resnet50'].build()
    network.init_weights()
    norm = network.layer2[0].bn3
    assert not norm.full.weight.any() and not norm.skip.weight.any()


def norm_parameters(network):
    return {
        f'{name}.{copy_}.{p}'
        for name, m in network.named_modules()
        if isinstance(m, SkipAwareNorm)
        for copy_ in ('full', 'skip')
        for p in ('weight', 'bias')
    }


def test_no_decay_reaches_both_copies(case):
    network = case.build()
    wrapper = build_optim_wrapper(
        network,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
    )
    decay = {id(p): group['weight_decay'] for group in wrapper.param_groups for p in group['params']}
    decay = {name: decay[id(p)] for name, p in network.named_parameters()}
    norms = norm_parameters(network)
    assert norms and all(decay[name] == 0 for name in norms)
    assert set(decay.values()) == {0, 0.05}


def test_layer_decay_reaches_both_copies(case):
    network = case.build()
    if not hasattr(network, 'get_layer_depth'):
        pytest.skip('the stock network has no layer-wise learning rates')
    for name in norm_parameters(network):
        plain = name.replace('.full.', '.').replace('.skip.', '.')
        depths = [network.get_layer_depth(f'backbone.{n}', 'backbone.') for n in (name, plain)]
        assert depths[0] == depths[1]


def test_swin_loads_the_first_stock_checkpoints(tmp_path):
    case = CASES['swin']
    stock = randomize(case.build('stock', out_indices=(3,)))
    old = {name.replace('norm3.', 'norm.'): value for name, value in stock.state_dict().items()}
    old['stages.0.blocks.1.attn.attn_mask'] = torch.zeros(1)
    torch.save({f'backbone.{name}': value for name, value in old.items()}, tmp_path / 'old.pth')
    model = nn.Module()
    model.backbone = case.build(out_indices=(3,))
    load_checkpoint(model, str(tmp_path / 'old.pth'), strict=True)
    images = torch.randn(2, 3, 64, 64)
    assert equal(run(model.backbone, images), run(stock, images))


@pytest.mark.parametrize('group', [0, 5, 13, 1.5])
def test_vit_group_divides_the_blocks(group):
    with pytest.raises(ValueError, match=f'group={group}: give a divisor of the 12 blocks'):
        CASES['vit'].build(group=group)


def test_vit_group_is_the_length_of_a_stage():
    network = CASES['vit'].build(group=6)
    assert network.subnets() == ['FF', 'FT', 'TF', 'TT']
    with pytest.raises(ValueError, match='at most 6, 6'):
        CASES['vit'].build(group=6, mandatory=(3, 7))


def test_vit_keeps_its_epsilon():
    norms = [m for m in CASES['vit'].build().modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 12 * 2 + 8 * 2 + 1 and all(m.eps == 1e-6 for m in norms)


@pytest.mark.parametrize(
    'name, parameters',
    [('resnet50', 26_112), ('mobilenet_v2', 22_672), ('swin', 14_208), ('vit', 24_576)],
)
def test_doubling_adds_the_published_number_of_parameters(name, parameters):
    case = CASES[name]
    args = {
        'resnet50': dict(depth=50),
        'mobilenet_v2': {},
        'swin': dict(arch='tiny'),
        'vit': dict(arch='base'),
    }[name]
    sizes = [
        sum(p.numel() for p in MMENGINE.build(dict(type=kind, **args)).parameters())
        for kind in (case.adn, case.stock)
    ]
    assert sizes[0] - sizes[1] == parameters
