"""Parity with the published networks, from golden data that lies beside the project."""

import pytest
import torch
from conftest import GOLDEN
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from mmpretrain.structures import DataSample

from mmadn import SelfDistillationHook
from mmadn.checkpoint.published import ARCHS, convert, convert_file, published_names


def build(arch):
    return MODELS.build(ARCHS[arch].model)


@pytest.mark.parametrize('arch', GOLDEN)
def test_logits_of_every_listed_subnet(reference, arch, tmp_path, threads):
    threads(2)  # as the golden data; on one, rounding takes up to 8e-6
    golden = reference(arch)
    weights = reference.fill.fill_state_dict(golden['shapes'], golden['salt'])
    torch.save({'model': weights, 'epoch': 1}, tmp_path / 'published.pth')
    convert_file(tmp_path / 'published.pth', tmp_path / 'here.pth', arch)
    model = build(arch)
    load_checkpoint(model, str(tmp_path / 'here.pth'), strict=True)
    model.eval()
    assert sum(p.numel() for p in model.parameters()) == golden['num_params']
    images = reference.fill.fill_images(golden['batch'], golden['image_size'], golden['salt'])
    for skip, expected in golden['logits'].items():
        with torch.no_grad(), model.backbone.skipping(skip):
            logits = model(images).double()
        first = torch.tensor(expected['first'], dtype=torch.float64)
        error = (logits[:, : first.shape[1]] - first).abs().max() / expected['std']
        assert error < 1e-5, (skip, error)
        assert logits.argmax(1).tolist() == expected['argmax']
        assert abs(logits.mean() - expected['mean']) < 1e-5 * expected['std']
        assert logits.std() == pytest.approx(expected['std'], rel=1e-5)


def test_gradients_of_one_training_step(reference, threads):
    # The golden step was summed by two threads, too. In another order, one activation beside zero falls on
    # the other side of a ReLU and moves the gradients by up to 7e-4; so it does in float64.
    threads(2)
    golden = reference('resnet50_train_step')
    shapes = reference('resnet50')['shapes']
    weights = convert(reference.fill.fill_state_dict(shapes, golden['salt']), 'resnet50')
    model = build('resnet50')
    model.load_state_dict(weights, strict=True)
    model.train()
    seen = {}

    class Wrapper(OptimWrapper):  # keeps the gradients that a step would use
        def step(self):
            seen.update({n: p.grad.double().norm().item() for n, p in model.named_parameters()})

    samples = [DataSample().set_gt_label(label) for label in golden['labels']]
    images = reference.fill.fill_images(golden['batch'], golden['image_size'], golden['salt'])
    hook = SelfDistillationHook(golden['alpha'], golden['temperature'], golden['top_k'])
    log = hook.train_step(
        model,
        dict(inputs=images, data_samples=samples),
        Wrapper(torch.optim.SGD(model.parameters(), lr=0.1)),
    )
    alpha = golden['alpha']
    assert log['loss_super'].item() == pytest.approx(alpha * golden['cross_entropy_super'], rel=1e-4)
    assert log['loss_distill'].item() == pytest.approx((1 - alpha) * golden['kl_logits'], rel=1e-4)
    names = {published: name for published, (name, _) in published_names('resnet50').items()}
    assert {names[published] for published in golden['grad_norm']} == set(seen)
    for published, norm in golden['grad_norm'].items():
        assert seen[names[published]] == pytest.approx(norm, rel=1e-4), published
    buffers = dict(model.named_buffers())
    for published, mean in golden['buffer_mean'].items():
        got = buffers[names[published]].double().mean().item()
        assert got == pytest.approx(mean, rel=1e-4, abs=1e-7), published
