import itertools
from collections import Counter

import pytest
import torch
import toy
from backbones import CASES, equal, randomize
from mmcv.cnn.bricks import DropPath
from mmengine.hub import get_config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS

from mmadn.depth import Skippable
from mmadn.engine.shared_prefixes import predicting, shared_prefixes
from mmadn.models.backbones import ADNResNet


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def network(case):
    network = randomize(case.build())
    network.eval()
    return network


def counted(*modules):
    """How often the own forward of each module runs."""
    runs = Counter()
    for i, module in enumerate(modules):
        forward = module.forward

        def run(*args, i=i, forward=forward, **kwargs):
            runs[i] += 1
            return forward(*args, **kwargs)

        module.forward = run
    return runs


def at(network, skip, *args):
    with network.skipping(skip):
        return network(*args)


@torch.no_grad()
def test_every_depth_is_bit_equal_in_any_order(case, network):
    images = [torch.randn(2, 3, case.image_size, case.image_size) for _ in range(2)]
    alone = {(skip, i): at(network, skip, x) for skip in network.subnets() for i, x in enumerate(images)}
    backwards = sorted(alone, key=lambda key: (key[0][::-1], key[1]))
    with shared_prefixes(network):
        for order in (sorted(alone, key=lambda key: key[1]), sorted(alone)[::3], backwards[::5]):
            for skip, i in order:
                assert equal(at(network, skip, images[i]), alone[skip, i]), (skip, i)


@torch.no_grad()
def test_only_what_differs_runs_again():
    network = CASES['resnet50'].build()
    network.eval()
    parts = [network.layer1, network.layer2, network.layer3, network.layer4]
    parts += [network.conv1, network.norm1, network.relu, network.maxpool]
    runs = counted(*parts)
    with shared_prefixes(network):
        images = torch.randn(1, 3, 32, 32)
        for skip in network.subnets():
            at(network, skip, images)
        assert [runs[i] for i in range(len(parts))] == [2, 4, 8, 16, 1, 1, 1, 1]
        at(network, 'TTTT', images.clone())  # another batch
    assert set(runs.values()) == {3, 5, 9, 17, 2}


@torch.no_grad()
def test_what_no_flag_changes_runs_once_for_both():
    network = CASES['resnet50'].build()
    network.eval()
    first = network.layer4[0]
    runs = counted(first.downsample, first.conv1, first.conv2, network.layer4[1].conv1)
    images = torch.randn(1, 3, 32, 32)
    with shared_prefixes(network):
        for skip in network.subnets():
            at(network, skip, images)
    assert [runs[i] for i in range(4)] == [8, 8, 16, 16]


@torch.no_grad()
def test_each_family_runs_each_prefix_once(case, network):
    blocks = [m for m in network.modules() if isinstance(m, Skippable) and not isinstance(m, DropPath)]
    runs = counted(*blocks)
    images = torch.randn(1, 3, case.image_size, case.image_size)
    with shared_prefixes(network):
        for skip in network.subnets():
            at(network, skip, images)
    stages = [network._switches.index(block.switch) for block in blocks]
    assert set(stages) == set(range(case.flags))
    assert [runs[i] for i in range(len(blocks))] == [2 ** (stage + 1) for stage in stages]


def attributes(network):
    return {name: set(vars(module)) for name, module in network.named_modules()}


def test_nothing_is_left_behind(network, case):
    images = torch.randn(1, 3, case.image_size, case.image_size)
    network.eval()
    before = attributes(network)
    with torch.no_grad():
        with shared_prefixes(network):
            assert attributes(network) != before
            network(images)
        assert attributes(network) == before
        with pytest.raises(RuntimeError), shared_prefixes(network):  # of a wrong number of channels
            network(images[:, :2])
        assert attributes(network) == before


@torch.no_grad()
def test_a_forward_of_its_own_is_kept():
    network = CASES['resnet50'].build()
    network.eval()
    runs = counted(network.layer2)
    forward = network.layer2.forward
    with shared_prefixes(network):
        network(torch.randn(1, 3, 32, 32))
    assert network.layer2.forward is forward and runs[0] == 1


@torch.no_grad()
def test_changes_between_forwards_are_seen():
    network = randomize(CASES['resnet50'].build())
    network.eval()
    images = torch.randn(1, 3, 32, 32)
    right = [t.clone() for t in network(images)]
    with shared_prefixes(network):
        for output in network(images):
            output.mul_(2)  # what is held too
        assert equal(network(images), right)
        images.add_(1)
        changed = [t.clone() for t in network(images)]
        assert not equal(changed, right)
    assert equal(network(images), changed)


class InPlace(ADNResNet):
    """Changes tensors in place between its parts, as other networks may."""

    def forward(self, x):
        x = self.conv1(x)
        x += 1
        x = self.maxpool(self.relu(self.norm1(x)))
        x.mul_(0.5)
        outs = []
        for name in self.res_layers:
            outs.append(getattr(self, name)(x))
            x = outs[-1].add_(1)
        return tuple(outs)


@torch.no_grad()
def test_in_place_operations_between_parts():
    network = randomize(InPlace(**CASES['resnet50'].args))
    network.eval()
    images = torch.randn(1, 3, 32, 32)
    alone = {skip: at(network, skip, images) for skip in network.subnets()}
    with shared_prefixes(network):
        for skip in [*alone, *reversed(alone)]:
            assert equal(at(network, skip, images), alone[skip]), skip


def test_refuses_what_would_go_wrong():
    network = CASES['resnet50'].build()
    with (
        pytest.raises(RuntimeError, match='training|eval'),
        torch.no_grad(),
        shared_prefixes(network),
    ):
        pass
    network.eval()
    with pytest.raises(RuntimeError, match='no_grad'), shared_prefixes(network):
        pass
    with pytest.raises(RuntimeError, match='no_grad'), torch.inference_mode(), shared_prefixes(network):
        pass


def classifier():
    return randomize(toy.build()).eval()


@torch.no_grad()
@pytest.mark.parametrize('wrapped', [False, True])
def test_a_classifier_predicts_as_by_its_own_step(wrapped, gloo):
    plain, data = classifier(), toy.batch(4)
    model = MMDistributedDataParallel(plain) if wrapped else plain
    runs, backbone = counted(plain.data_preprocessor, plain.backbone.layer1), plain.backbone
    alone = {}
    for skip in backbone.subnets():
        with backbone.skipping(skip):
            alone[skip] = [sample.pred_score for sample in model.test_step(toy.batch(4))]
    assert len({tuple(map(float, scores[0])) for scores in alone.values()}) == 16
    runs.clear()
    held = {}
    with predicting(model, data) as predict:
        for skip in alone:
            with backbone.skipping(skip):
                held[skip] = predict()
    assert runs == {0: 1, 1: 2}
    for skip, samples in held.items():  # of all depths, looked at in the end
        assert equal([s.pred_score for s in samples], alone[skip])
        assert [s.gt_label for s in samples] == [s.gt_label for s in data['data_samples']]
    assert not any('pred_score' in sample for sample in data['data_samples'])


@pytest.fixture
def gloo(tmp_path):
    torch.distributed.init_process_group('gloo', f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@torch.no_grad()
def test_augmented_tests_give_what_they_gave():
    plain = classifier()
    model = MODELS.build(dict(type='mmpretrain.AverageClsScoreTTA', module=plain)).eval()
    views = [toy.batch(2), toy.batch(2, seed=1)]
    data = {name: [view[name] for view in views] for name in views[0]}
    with predicting(model, data) as predict:
        for skip in plain.backbone.subnets():
            with plain.backbone.skipping(skip):
                right = model.test_step(data)
                assert equal([s.pred_score for s in predict()], [s.pred_score for s in right])


@pytest.fixture(scope='module')
def detector():
    from mmdet.registry import MODELS as MMDET
    from mmengine.registry import DefaultScope

    cfg = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py').model
    cfg.backbone = dict(type='mmadn.ADNResNet', **CASES['resnet50'].args)
    cfg.neck.update(in_channels=[16, 32, 64, 128], out_channels=8)
    cfg.bbox_head.update(in_channels=8, feat_channels=8, stacked_convs=1)
    cfg.test_cfg.update(score_thr=0.0, max_per_img=10)
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        return randomize(MMDET.build(cfg)).eval()


@torch.no_grad()
def test_a_detector_predicts_as_by_its_own_step(detector):
    from mmdet.structures import DetDataSample

    meta = dict(ori_shape=(48, 80), img_shape=(64, 96), scale_factor=(1.2, 4 / 3), img_id=1)
    data = dict(
        inputs=[torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)],
        data_samples=[DetDataSample(metainfo=meta)],
    )
    backbone = detector.backbone
    alone = {}
    for skip in backbone.subnets():
        with backbone.skipping(skip):
            (sample,) = detector.test_step(data)
            alone[skip] = sample.pred_instances
    assert all(len(found) == 10 for found in alone.values())
    assert not torch.equal(alone['FFFF'].bboxes, alone['TTTT'].bboxes)
    runs, held = counted(backbone.layer1, backbone.layer4), {}
    with predicting(detector, data, 'val') as predict:
        for skip in alone:
            with backbone.skipping(skip):
                (held[skip],) = predict()
    assert runs == {0: 2, 1: 16}
    for skip, sample in held.items():
        for name in ('bboxes', 'scores', 'labels'):
            assert torch.equal(sample.pred_instances[name], alone[skip][name]), (skip, name)
    assert not any(a is b for a, b in itertools.combinations(held.values(), 2))
