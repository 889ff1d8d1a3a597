from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from ..errors import InputError
from .anatomy import beside_backbone

_ADVICE = "levels='foreground' asks the targets of a bbox_head or rpn_head; give levels='all'"


@contextmanager
def count_foreground(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collects in a list how many foreground anchors each level has, by the targets of a detector's head.

    A pass in `mode='loss'` adds a tensor of shape (levels of the neck,) each time that the head labels
    anchors: once, or in a semi-supervised detector for labelled and for unlabelled images.

    Raises:
        ValueError: The detector has no dense head that labels anchors by level.
    """
    name = beside_backbone(model, 'bbox_head') or beside_backbone(model, 'rpn_head')
    head = model.get_submodule(name) if name else None
    if not hasattr(head, 'get_targets'):
        raise InputError(f'{type(model).__name__} has no head with get_targets: {_ADVICE}')
    counts, get_targets = [], head.get_targets

    def counting(*args: Any, **kwargs: Any) -> Any:
        targets = get_targets(*args, **kwargs)
        labels = next((item for item in targets or () if _labels_by_level(item)), None)
        if labels is None:
            raise InputError(f'{type(head).__name__} labels no anchors by level: {_ADVICE}')
        counts.append(torch.stack([((level >= 0) & (level < head.num_classes)).sum() for level in labels]))
        return targets

    head.get_targets = counting
    try:
        yield counts
    finally:
        del head.get_targets  # the method of its class shows again


def foremost(counts: list[Tensor]) -> int:
    """The level with most foreground anchors in the whole batch, over all processes; the first of equals."""
    total = torch.stack(counts).sum(0)
    all_reduce(total)
    return int(total.argmax())


def _labels_by_level(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and all(
        isinstance(level, Tensor) and level.dtype == torch.long for level in item
    )
