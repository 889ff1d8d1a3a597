"""The functions of self-distillation (paper, Algorithm 1); the hook says when they run."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def kl_divergence(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, topk: int | None = None
) -> Tensor:
    """KL(teacher || student) of two sets of logits, averaged over the batch, times temperature^2.

    Args:
        student: Logits of shape (N, C).
        teacher: Logits of shape (N, C). No gradient goes to them.
        temperature: Divides both logits.
        topk: Only this many of the teacher's largest logits of each sample enter, with both sides
            normalised over them. All enter if it is None or C is not larger (the published training
            takes 500).

    Returns:
        A scalar in float32.
    """
    student, teacher = student.float(), teacher.detach().float()
    if topk is not None and topk < teacher.shape[1]:
        teacher, index = teacher.topk(topk, dim=1)
        student = student.gather(1, index)
    return temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction='batchmean',
        log_target=True,
    )


def feature_divergence(
    student: Tensor | Sequence, teacher: Tensor | Sequence, temperature: float = 1.0
) -> Tensor:
    """KL of features: each is averaged over its positions and softmaxed over its channels.

    Args:
        student: A map of shape (N, C, H, W), tokens of shape (N, L, C) with the class token among the
            positions, or several of them. What else a module returns beside them, such as the size of a
            map, is passed over.
        teacher: As many of the same shapes. No gradient goes to them.
        temperature: Divides both.

    Returns:
        A scalar in float32, summed over the features.
    """
    return sum(
        kl_divergence(s, t, temperature) for s, t in zip(_pooled(student), _pooled(teacher), strict=True)
    )


def _pooled(features: Tensor | Sequence) -> list[Tensor]:
    features = [features] if isinstance(features, Tensor) else features
    return [x.mean(1) if x.ndim == 3 else x.mean((2, 3)) for x in features if isinstance(x, Tensor)]
