import pytest
import torch

from mmadn.engine.losses import feature_divergence, kl_divergence, logits_divergence


def by_hand(student, teacher, temperature, topk):
    total = 0
    for s, t in zip(student.double(), teacher.double(), strict=True):
        index = sorted(range(len(t)), key=lambda i: -t[i])[:topk]
        p, q = ((x[index] / temperature).exp() for x in (t, s))
        p, q = p / p.sum(), q / q.sum()
        total += (p * (p / q).log()).sum()
    return total / len(student) * temperature**2


@pytest.mark.parametrize('temperature', [1.0, 2.5])
@pytest.mark.parametrize('topk', [1, 3, 7, 500, None])
def test_kl_divergence(temperature, topk):
    student, teacher = torch.randn(4, 7), 3 * torch.randn(4, 7)
    got = kl_divergence(student, teacher, temperature, topk)
    assert got.item() == pytest.approx(by_hand(student, teacher, temperature, topk).item(), abs=1e-6)


def test_kl_divergence_teaches_only_the_student():
    student, teacher = torch.randn(4, 7, requires_grad=True), torch.randn(4, 7, requires_grad=True)
    kl_divergence(student, teacher).backward()
    assert student.grad.any() and teacher.grad is None


def test_kl_divergence_computes_in_float32():
    student, teacher = torch.randn(4, 7).bfloat16(), torch.randn(4, 7).bfloat16()
    expected = kl_divergence(student.float(), teacher.float())
    assert torch.equal(kl_divergence(student, teacher), expected)


@pytest.mark.parametrize('topk', [3, None])
def test_logits_of_pixels_are_those_of_as_many_images(topk):
    student, teacher = torch.randn(2, 7, 3, 4), torch.randn(2, 7, 3, 4)
    pixels = (x.permute(0, 2, 3, 1).flatten(0, 2) for x in (student, teacher))
    expected = kl_divergence(*pixels, 2.0, topk)
    assert torch.allclose(kl_divergence(student, teacher, 2.0, topk), expected)
    assert torch.equal(
        logits_divergence(student, teacher, 2.0, topk), kl_divergence(student, teacher, 2.0, topk)
    )
    beside = torch.randn(2, 7)  # what some heads give of the whole image
    both = logits_divergence((student, student, beside), (teacher, teacher, beside), 2.0, topk)
    assert torch.allclose(both, 2 * expected)
    with pytest.raises(ValueError, match='no logits to distil'):
        logits_divergence([beside], [beside])


def test_a_single_logit_is_that_of_a_sigmoid():
    student, teacher = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)
    p, q = teacher.sigmoid(), student.sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert torch.allclose(logits_divergence(student, teacher), expected, atol=1e-6)


def test_feature_divergence_pools_and_sums():
    student, teacher = torch.randn(2, 6, 4, 4), torch.randn(2, 6, 4, 4)
    one = kl_divergence(student.mean((2, 3)), teacher.mean((2, 3)), 2.0)
    assert torch.allclose(feature_divergence(student, teacher, 2.0), one)
    assert torch.allclose(feature_divergence((student, student), (teacher, teacher), 2.0), 2 * one)
    assert torch.allclose(feature_divergence((0 * student, student), (teacher, teacher), 2.0, level=1), one)
    with pytest.raises(ValueError):
        feature_divergence((student,), (teacher, teacher))
