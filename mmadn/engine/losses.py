"""The functions of self-distillation (paper, Algorithm 1); the hook says when they run."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..errors import InputError


def kl_divergence(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, topk: int | None = None
) -> Tensor:
    """KL(teacher || student) of two sets of logits, averaged over images and pixels, times temperature^2.

    Args:
        student: Logits of shape (N, C), or of each pixel, (N, C, H, W).
        teacher: As many of the same shape. No gradient goes to them.
        temperature: Divides both logits.
        topk: Only this many of the teacher's largest logits of each image or pixel enter, with both sides
            normalised over them. All enter if it is None or C is not larger (the published training
            takes 500).

    Returns:
        A scalar in float32.
    """
    student, teacher = student.float(), teacher.detach().float()
    if topk is not None and topk < teacher.shape[1]:
        teacher, index = teacher.topk(topk, dim=1)
        student = student.gather(1, index)
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction='sum',
        log_target=True,
    )
    return temperature**2 * (divergence / student[:, 0].numel())


def logits_divergence(
    student: Tensor | Sequence, teacher: Tensor | Sequence, temperature: float = 1.0, topk: int | None = None
) -> Tensor:
    """KL of what a head gives, see `kl_divergence`.

    Every pixel counts alike, also one without a label: what the first pass makes of it can be learnt too.

    Args:
        student: Logits, or several of them of shape (N, C, H, W), as of a head that learns by several maps.
            What else it gives beside them is passed over. A single channel is the logit of a sigmoid.
        teacher: As many of the same shapes.

    Returns:
        A scalar in float32, summed over the maps.

    Raises:
        ValueError: There are no logits.
    """
    students, teachers = _maps(student), _maps(teacher)
    if not teachers:
        raise InputError(
            'a head gives no logits to distil, neither one tensor nor maps of shape (N, C, H, W); give '
            'logits=False and the names of features'
        )
    return sum(kl_divergence(s, t, temperature, topk) for s, t in zip(students, teachers, strict=True))


def _maps(output: Tensor | Sequence) -> list[Tensor]:
    several = not isinstance(output, Tensor)
    maps = [x for x in output if isinstance(x, Tensor) and x.ndim == 4] if several else [output]
    # A sigmoid is the softmax of its logit and 0.
    return [torch.cat([x, torch.zeros_like(x)], 1) if x.shape[1] == 1 else x for x in maps]


def feature_divergence(
    student: Tensor | Sequence,
    teacher: Tensor | Sequence,
    temperature: float = 1.0,
    level: int | None = None,
) -> Tensor:
    """KL of features: each is averaged over its positions and softmaxed over its channels.

    Args:
        student: A map of shape (N, C, H, W), tokens of shape (N, L, C) with the class token among the
            positions, or several of them. What else a module returns beside them, such as the size of a
            map, is passed over.
        teacher: As many of the same shapes. No gradient goes to them.
        temperature: Divides both.
        level: The index of the one feature that is compared; all are if it is None.

    Returns:
        A scalar in float32, summed over the features.
    """
    if level is not None:
        student, teacher = student[level], teacher[level]
    return sum(
        kl_divergence(s, t, temperature) for s, t in zip(_pooled(student), _pooled(teacher), strict=True)
    )


def query_divergence(student: Sequence[Tensor], teacher: Sequence[Tensor], queries: int) -> Tensor:
    """How the predictions of a DETR's queries differ, each student's from that of the teacher's it matches.

    The queries of two passes have no common order where an encoder proposes them, so they are matched by
    classes and boxes, one to one. A pair counts by how sure the teacher is that there is something.

    Args:
        student: The logits of a sigmoid, of shape (layers, N, Q, C), and boxes, of shape (layers, N, Q, 4) as
            parts of the image. The last layer's are compared.
        teacher: As many of the same shapes, maybe of another number of layers. No gradient goes to them.
        queries: Only so many, the last ones, are compared; those before them repair noisy boxes.

    Returns:
        A scalar in float32: the mean KL of the classes, each by itself, and 5 times that of the boxes' L1.
    """
    logits, boxes = (output[-1][:, -queries:].float() for output in student[:2])
    taught, places = (output[-1][:, -queries:].detach().float() for output in teacher[:2])
    found = taught.sigmoid()
    cost = torch.cdist(logits.detach().sigmoid(), found, p=1) + 5 * torch.cdist(boxes.detach(), places, p=1)
    order = [linear_sum_assignment(each.T)[1] for each in cost.cpu().numpy()]  # of the student's queries
    order = torch.as_tensor(np.stack(order), device=logits.device)[..., None]
    logits = logits.gather(1, order.expand_as(logits))
    boxes = boxes.gather(1, order.expand_as(boxes))
    divergence = F.binary_cross_entropy_with_logits(logits, found, reduction='none') - _entropy(taught)
    differences = divergence.sum(2) + 5 * (boxes - places).abs().sum(2)
    sure = found.max(2).values
    return ((sure * differences).sum(1) / sure.sum(1).clamp(min=1)).mean()  # images count alike


def _entropy(logits: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, logits.sigmoid(), reduction='none')


def _pooled(features: Tensor | Sequence) -> list[Tensor]:
    features = [features] if isinstance(features, Tensor) else features
    return [x.mean(1) if x.ndim == 3 else x.mean((2, 3)) for x in features if isinstance(x, Tensor)]
