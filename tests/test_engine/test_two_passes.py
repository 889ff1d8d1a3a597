from collections import deque
from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmadn.engine.two_passes import forgetting, own_samples, reaching_all, touch


def test_touch_gives_a_gradient_of_zero_and_keeps_what_was_there():
    fresh, kept, frozen = (nn.Parameter(torch.ones(3)) for _ in range(3))
    kept.grad = torch.full((3,), 5.0)
    frozen.requires_grad = False
    touch([fresh, kept, frozen])
    assert fresh.grad.tolist() == [0, 0, 0]
    assert kept.grad.tolist() == [5, 5, 5]
    assert frozen.grad is None
    touch([])


@pytest.mark.parametrize('use_reentrant', [None, True, False], ids=str)
def test_reaching_all_gives_zero_to_what_the_backward_leaves_out(use_reentrant):
    """Each parameter gets a gradient once, and what lies in a checkpoint counts as used."""
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)])
    model[1].bias.requires_grad = False
    calls = {name: 0 for name, _ in model.named_parameters()}

    def count(name):
        calls[name] += 1

    for name, p in model.named_parameters():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p, name=name: count(name))
    x = torch.randn(3, 2, requires_grad=True)
    with reaching_all(model):
        x = model[0](x)
        x = model[1](x) if use_reentrant is None else checkpoint(model[1], x, use_reentrant=use_reentrant)
        touch([model[2].bias])
        x.square().sum().backward()
    assert calls.pop('1.bias') == 0
    assert set(calls.values()) == {1}
    assert model[0].weight.grad.any() and model[1].weight.grad.any()
    assert not model[2].weight.grad.any() and not model[2].bias.grad.any()
    x = model[0](torch.randn(3, 2)).sum().backward()
    assert calls['2.weight'] == 1  # the hooks are gone


def test_own_samples_are_other_containers_of_the_same_tensors():
    proposals = InstanceData(bboxes=torch.zeros(2, 4))
    sample = DetDataSample(proposals=proposals, gt_instances=InstanceData(labels=torch.zeros(1)))
    sample.set_metainfo(dict(img_id=3))
    data = dict(inputs=torch.zeros(1, 3, 4, 4), data_samples=[sample], more=(proposals,))
    ours = own_samples(data)
    taken = ours['data_samples'][0].proposals.pop('bboxes')
    ours['data_samples'][0].gt_instances.scores = torch.ones(1)
    ours['data_samples'][0].set_metainfo(dict(img_id=4))
    assert taken is proposals.bboxes and ours['inputs'] is data['inputs']
    assert ours['more'][0].bboxes is taken
    assert data['data_samples'] == [sample] and sample.img_id == 3
    assert 'scores' not in sample.gt_instances


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer('seen', torch.zeros(2))
        self.register_buffer('mean', torch.zeros(2))
        self.count, self.history, self.recent = 0, [], deque([0], maxlen=2)
        self.assigners = [SimpleNamespace(threshold=0.5)]

    def forward(self, x):
        self.seen += 1
        self.mean = self.mean + x.mean(0).detach()
        self.count += 1
        self.history.append(self.count)
        self.recent.append(self.count)
        self.assigners[0].threshold += 0.1
        self.last = x * 2
        return self.norm(x)


def test_forgetting_puts_statistics_back_but_not_those_of_norms():
    model = nn.Module()
    model.backbone, model.head = Head(), Head()
    x = torch.randn(4, 2, requires_grad=True)
    model.head(x)
    head, seen = model.head, model.head.seen
    remembered = (head.seen.tolist(), head.mean.tolist(), head.count, head.history[:], list(head.recent))
    threshold = head.assigners[0].threshold
    with pytest.raises(ZeroDivisionError), forgetting(model, [model.backbone]):
        (head(x) + model.backbone(x)).sum().backward()
        assert head.count == 2
        raise ZeroDivisionError  # puts back after an error too
    found = (head.seen.tolist(), head.mean.tolist(), head.count, head.history, list(head.recent))
    assert found == remembered and head.assigners[0].threshold == threshold
    assert head.seen is seen and head.recent.maxlen == 2
    assert head.norm.num_batches_tracked == 2
    assert model.backbone.count == 1
