"""The functions of self-distillation (paper, Algorithm 1); the hook says when they run."""

import torch
import torch.nn.functional as F
from torch import Tensor


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0, topk: int | None = None):
    """KL(teacher || student) of two sets of logits, averaged over the batch, times temperature^2.

    Args:
        student, teacher (Tensor): Logits of shape (N, C). No gradient goes to the teacher.
        temperature (float): Divides both logits.
        topk (int, optional): Only the teacher's `topk` largest logits of each sample enter, with both
            sides normalised over them. All do if it is None or C is not larger (the published
            training takes 500).

    Returns:
        Tensor: A scalar in float32.
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


def feature_divergence(student, teacher, temperature: float = 1.0):
    """KL of features: each is averaged over its positions and softmaxed over its channels.

    Args:
        student, teacher (Tensor | Sequence): Maps of shape (N, C, H, W), tokens of shape (N, L, C) with
            the class token among the positions, or as many of them on either side; what else a module
            returns beside them, such as the size of a map, is passed over.

    Returns:
        Tensor: A scalar in float32, summed over the features.
    """
    return sum(
        kl_divergence(s, t, temperature) for s, t in zip(_pooled(student), _pooled(teacher), strict=True)
    )


def _pooled(features):
    features = [features] if isinstance(features, Tensor) else features
    return [x.mean(1) if x.ndim == 3 else x.mean((2, 3)) for x in features if isinstance(x, Tensor)]


class _Touch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, *parameters):
        ctx.save_for_backward(*parameters)
        return loss.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, *(
            torch.zeros((), dtype=p.dtype, device=p.device).expand_as(p) for p in ctx.saved_tensors
        )


def touch(loss: Tensor, parameters) -> Tensor:
    """The same loss, which also gives every one of `parameters` a gradient of zero.

    DistributedDataParallel waits for a gradient of every parameter. This tells it that those the pass
    did not use are ready, together with what an earlier pass has left in their `grad`.
    """
    return _Touch.apply(loss, *parameters)
