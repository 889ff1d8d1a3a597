"""Models in which more than the backbone has an adaptive depth, shown on DINO: encoder and decoder."""

import copy
import pickle

import detectors
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from toy import Gradients

from mmadn import SelfDistillationHook, adaptive_backbone, depth_of
from mmadn.deploy.extraction import extract
from mmadn.deploy.stock import stock_config
from mmadn.engine.losses import feature_divergence, query_divergence
from mmadn.engine.shared_prefixes import predicting
from mmadn.evaluation.flops import measure
from mmadn.evaluation.subnets import is_adaptive

DEPTHS = {
    'super': 'FFFFFF',
    'base': 'TTTTTT',
    'TTFFTF': 'TTFFTF',
    'decoder=T': 'FFFFFT',
    'backbone=TTFF,encoder=T': 'TTFFTF',
    'backbone=base, decoder=T': 'TTTTFT',
}


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')


def stock_model():
    cfg = detectors.dino(type='DINO').model
    cfg.backbone.type = 'ResNet'
    return cfg


@pytest.fixture
def model():
    return detectors.initialized(detectors.dino().model)


@torch.no_grad()
def predictions(model, data=None):
    results = model.eval().test_step(data or detectors.batch(objects=False))
    return [x for result in results for x in result.pred_instances.values()]


def equal(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_super_net_is_the_stock_model_and_loads_its_checkpoints(model):
    stock = detectors.initialized(stock_model())
    model.load_state_dict(stock.state_dict())
    assert equal(predictions(model), predictions(stock))
    model.set_skip('base')
    assert not equal(predictions(model), predictions(stock))


@pytest.mark.parametrize('skip, letters', DEPTHS.items())
def test_depths_are_letters_of_all_parts_or_named_by_part(model, skip, letters):
    model.set_skip(skip)
    assert model.skip == letters
    assert ''.join(network.skip for network in (model.backbone, model.encoder, model.decoder)) == letters
    model.set_skip(dict(decoder=True))
    assert model.skip == 'FFFFFT'
    model.set_skip('decoder = T  backbone=TFFF')
    assert model.skip == 'TFFFFT'
    model.encoder.set_skip('T')
    model.backbone.set_skip('TTTT')
    assert model.skip == 'TTTTTT' and len(model.subnets()) == 64


@pytest.mark.parametrize(
    'skip, message',
    {
        'TTTT': 'give 6 letters \\(4 of backbone and 1 of encoder and 1 of decoder\\)',
        'neck=T': 'there is no part neck; give depths of backbone, encoder, decoder',
        'decoder=TT': "decoder: skip='TT': give one letter",
        'decoder=T,decoder=F': 'give each part once',
        'decoder=T,backbone': "skip='': give 4 letters",
    }.items(),
)
def test_a_depth_that_does_not_fit_is_refused_and_nothing_changes(model, skip, message):
    model.set_skip('TTFFTF')
    with pytest.raises(ValueError, match=message):
        model.set_skip(skip)
    assert model.skip == 'TTFFTF'


@pytest.mark.parametrize(
    'parts, message',
    [
        (['encoder', 'tail'], 'DINO has no tail; give names of modules .*it has data_preprocessor, backbone'),
        ([], 'DINO has no such part'),
        (dict(bbox_head=dict(residual_stages=['none'])), "has no module 'none'"),
        (dict(decoder=dict(mandatory=[5])), 'at most 4'),
        (dict(decoder=dict(depth=1)), 'decoder takes fixed, group, mandatory, .*, and no depth'),
        (['backbone'], 'backbone has a depth already'),
        (3, 'parts=3: give a list of names'),
    ],
)
def test_parts_that_are_not_there_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(detectors.dino(parts=parts).model)


def test_parts_take_the_arguments_of_a_backbone(model):
    chosen = MODELS.build(detectors.dino(parts=dict(decoder=dict(mandatory=[1]))).model)
    assert chosen.num_skippable_stages == 5
    chosen.set_skip('base')
    assert len(chosen.decoder.layers) == 1 and len(list(chosen.encoder.layers)) == 4


@pytest.mark.parametrize('skip', DEPTHS)
def test_an_extracted_depth_is_an_ordinary_model_of_equal_outputs(model, skip):
    model.set_skip(skip)
    expected = predictions(model)
    network = extract(model, skip)
    assert type(network) is type(MODELS.build(stock_model()))
    assert equal(predictions(network), expected)
    cfg = Config.fromstring(stock_config(detectors.dino(), skip), '.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        written = MODELS.build(cfg.model)
    written.load_state_dict(network.state_dict())
    assert equal(predictions(written), expected) and 'mmadn' not in str(cfg.model)
    assert model.skip == DEPTHS[skip]


def test_copies_have_switches_of_their_own(model):
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        copied.set_skip('decoder=T')
        assert (copied.skip, copied.decoder.skip, model.skip) == ('FFFFFT', 'T', 'FFFFFF')
        assert equal(predictions(copied), predictions(extract(model, 'FFFFFT')))


def test_depths_of_a_batch_share_the_backbone_and_differ_in_nothing(model):
    data = detectors.batch(objects=False)
    model.eval()
    skips = ['FFFFFF', 'FFFFFT', 'FFFFTF', 'TTFFTF', 'TTTTTT']
    runs = []
    model.backbone.layer1[0].register_forward_hook(lambda *_: runs.append(model.skip))
    with torch.no_grad(), predicting(model, copy.deepcopy(data)) as predict:
        for skip in skips:
            with model.skipping(skip):
                found = [x for result in predict() for x in result.pred_instances.values()]
            with model.skipping(skip):
                assert equal(found, predictions(model, copy.deepcopy(data)))
    assert depth_of(model) is model and adaptive_backbone(model) is model.backbone


def test_flops_and_parameters_say_what_each_part_saves():
    cfg = detectors.dino()
    assert is_adaptive(cfg)
    cfg.model.backbone.type = 'mmdet.ResNet'
    assert is_adaptive(cfg)
    rows = {row['skip']: row for row in measure(detectors.dino(), (3, 64, 64), ['super', *DEPTHS.values()])}
    full = rows['FFFFFF']
    for skip, row in rows.items():
        assert skip == 'FFFFFF' or (row['gflops'] < full['gflops'] and row['params'] < full['params'])
    for skip, row in rows.items():
        network = extract(detectors.initialized(detectors.dino().model), skip)
        assert row['params'] == pytest.approx(sum(p.numel() for p in network.parameters()) / 1e6)
    assert rows['TTTTTT']['gflops'] == min(row['gflops'] for row in rows.values())


def test_a_stock_backbone_may_stay_as_it_is():
    cfg = detectors.dino().model
    cfg.backbone.type = 'mmdet.ResNet'
    model = detectors.initialized(cfg)
    assert model.parts == ['encoder', 'decoder'] and model.subnets() == ['FF', 'FT', 'TF', 'TT']
    data = detectors.batch(objects=False)
    with torch.no_grad(), predicting(model.eval(), copy.deepcopy(data)) as predict, model.skipping('TT'):
        found = [x for result in predict() for x in result.pred_instances.values()]
    with model.skipping('TT'):
        assert equal(found, predictions(model, data))


def by_hand(model, data):
    """The losses and gradients of one iteration, in which both passes learn from the labels."""
    seen, losses = {'neck': [], 'encoder': [], 'bbox_head': []}, []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda m, args, out, runs=runs: runs.append(out))
        for name, runs in seen.items()
    ]
    for skip in ('super', 'base'):
        model.set_skip(skip)
        inputs = model.data_preprocessor(copy.deepcopy(data), True)
        losses.append(0.5 * model.parse_losses(model(**inputs, mode='loss'))[0])
        if skip == 'super':
            losses[0].backward()
    kl = sum(feature_divergence(seen[name][1], seen[name][0]) for name in ('neck', 'encoder'))
    kl = 0.5 * (kl + query_divergence(seen['bbox_head'][1], seen['bbox_head'][0], model.num_queries))
    (losses[1] + kl).backward()
    for handle in handles:
        handle.remove()
    return losses[0].item(), losses[1].item(), kl.item()


def test_an_iteration_trains_all_parts_at_two_depths(model):
    expected = copy.deepcopy(model).train()
    wrapper, data = Gradients(model.train()), detectors.batch()
    torch.manual_seed(1)
    logs = SelfDistillationHook().train_step(model, copy.deepcopy(data), wrapper)
    torch.manual_seed(1)
    losses = by_hand(expected, data)
    found = [logs[key].item() for key in ('loss_super', 'loss_base', 'loss_distill')]
    assert found == pytest.approx(losses, rel=1e-4) and losses[2] > 1e-3
    for key, p in expected.named_parameters():
        if p.requires_grad:
            assert (wrapper.kept[key] - p.grad).abs().max() <= 1e-5 * p.grad.abs().max().clamp(min=1), key
    assert model.skip == 'FFFFFF'
