import pytest
import torch

from mmadn.engine.losses import feature_divergence, kl_divergence, logits_divergence, query_divergence


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


def queries(seed, n=6, layers=2):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, 2, n, 3, generator=generator)
    return logits, torch.rand(layers, 2, n, 4, generator=generator)


def test_queries_are_compared_whatever_their_order():
    logits, boxes = queries(0)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    same = (logits[:, :, order], boxes[:, :, order])
    assert query_divergence(same, (logits, boxes), 6).abs() < 1e-6
    assert query_divergence(queries(1), (logits, boxes), 6) > 0.1


def test_queries_that_repair_boxes_and_earlier_layers_are_not_compared():
    student, teacher = queries(0, 8), queries(1, 8, layers=3)
    expected = query_divergence(student, teacher, 5)
    for outputs in (student, teacher):
        for output in outputs:
            output[:, :, :3] = 0.3
            output[:-1] = 0.3
    assert query_divergence(student, teacher, 5) == expected


def test_of_queries_the_student_alone_gets_a_gradient():
    student, teacher = ([x.requires_grad_() for x in queries(seed)] for seed in (0, 1))
    query_divergence(student, teacher, 6).backward()
    assert all(x.grad.abs().sum() > 0 for x in student) and all(x.grad is None for x in teacher)
