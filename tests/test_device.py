"""What holds on one device, on the CPU by default: `pytest tests/test_device.py --device cuda` asks a GPU."""

import pytest
import torch
import toy
from mmengine.model import MMDistributedDataParallel
from torch import distributed

from benchmarks.contests.train import optim_wrapper
from benchmarks.networks import NETWORKS, classifiers
from mmadn import SelfDistillationHook
from mmadn.deploy.compiling import compile, unsupported


@pytest.fixture(autouse=True)
def _exact():
    """Convolutions that give the same in each run, and compute in float32."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


@pytest.fixture
def gpu(device):
    if device == 'cpu':
        pytest.skip('needs a GPU: --device cuda')
    with torch.cuda.device(device):
        yield device


def train_once(device, dtype='float32', wrap=lambda model: model):
    """One step of self-distillation: what it logs, and by how much it moves all weights."""
    # By statistics of the batch, a change of a weight by a thousandth would turn the gradients too.
    network = toy.build(backbone=dict(norm_eval=True)).to(device)
    before = weights(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    # From the usual 65536 on, the first steps only find a scale at which no gradient overflows.
    wrapper = optim_wrapper(optimizer, device, dtype, loss_scale=dict(init_scale=256.0))
    logs = SelfDistillationHook().train_step(wrap(network.train()), toy.batch(16), wrapper)
    return logs, weights(network) - before


def weights(network):
    return torch.cat([p.detach().flatten().cpu().clone() for p in network.parameters()])


@pytest.mark.parametrize('arch', NETWORKS)
@torch.no_grad()
def test_both_ends_are_the_stock_networks_bit_by_bit(arch, device):
    if device == 'cpu' and arch != 'tiny':
        pytest.skip('the others are large, and compared on the CPU elsewhere')
    whole, base, adaptive = (net.eval() for net in classifiers(arch, device, share=True).values())
    size = 32 if arch == 'tiny' else 224
    images = torch.randn(2, 3, size, size).to(device)
    for network, skip in ((whole, 'super'), (base, 'base')):
        with adaptive.backbone.skipping(skip):
            outputs = adaptive(images)
        assert outputs.isfinite().all() and torch.equal(outputs, network(images))


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_a_step_in_half_the_precision_is_close(dtype, device):
    if dtype == 'float16' and device == 'cpu':
        pytest.skip('gradients are scaled on a GPU alone: --device cuda')
    exact, right = train_once(device)
    logs, moved = train_once(device, dtype)
    assert moved.isfinite().all() and moved.any()
    assert torch.cosine_similarity(moved, right, dim=0) > 0.99
    assert float(moved.norm()) == pytest.approx(float(right.norm()), rel=0.05)
    for name in ('loss', 'loss_super', 'loss_distill'):
        assert float(logs[name]) == pytest.approx(float(exact[name]), rel=0.05, abs=0.02), name


def test_a_step_of_one_distributed_process_is_a_plain_step(device, tmp_path):
    backend, ids = ('gloo', None) if device == 'cpu' else ('nccl', [torch.device(device)])
    _, right = train_once(device)
    if ids:
        torch.cuda.set_device(ids[0])
    distributed.init_process_group(backend, init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        _, moved = train_once(
            device,
            wrap=lambda network: MMDistributedDataParallel(network, ids, broadcast_buffers=False),
        )
    finally:
        distributed.destroy_process_group()
    assert right.any()
    torch.testing.assert_close(moved, right, rtol=1e-4, atol=1e-5)  # GPUs add up in any order


@torch.no_grad()
def test_graphs_of_all_depths_replay_what_each_gives(gpu):
    """Recorded into one pool of memory, replayed in another order and on other images."""
    model = classifiers('tiny', gpu)['adn'].eval()
    images, graphs, outputs, pool = torch.randn(2, 3, 64, 64).to(gpu), {}, {}, None
    for skip in model.backbone.subnets():
        model.backbone.set_skip(skip)
        with torch.cuda.stream(torch.cuda.Stream(gpu)):  # as recording asks for
            model(images)
        torch.cuda.synchronize(gpu)
        graphs[skip] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[skip], pool=pool):
            outputs[skip] = model(images)
        pool = graphs[skip].pool()
    for skip in [*reversed(graphs), *graphs]:
        images.copy_(torch.randn(images.shape))
        graphs[skip].replay()
        replayed = outputs[skip].clone()
        with model.backbone.skipping(skip):
            torch.testing.assert_close(replayed, model(images))


@torch.no_grad()
def test_compiled_with_graphs_every_depth_gives_what_it_gave(gpu):
    if reason := unsupported():
        pytest.skip(reason)
    model, images = classifiers('tiny', gpu)['adn'].eval(), torch.randn(2, 3, 64, 64).to(gpu)
    depths = model.backbone.subnets()
    right = {}
    for skip in depths:
        with model.backbone.skipping(skip):
            right[skip] = model(images)
    compile(model, images, mode='reduce-overhead')
    for skip in [*reversed(depths), *depths]:
        model.backbone.set_skip(skip)
        torch.testing.assert_close(model(images).clone(), right[skip], rtol=1e-3, atol=1e-3)
