"""What lets two passes make one iteration of a model that was written for one."""

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from mmcv.cnn import is_norm
from mmengine.structures import BaseDataElement
from mmengine.utils import ManagerMixin
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_TORCHS_ATTRIBUTES = vars(nn.Module()).keys()


def own_samples(data: Any) -> Any:
    """The same batch in containers of its own, so that no other pass sees what a pass takes out of them.

    Dicts, lists, tuples and data elements are new. Tensors are shared, images among them.
    """
    if isinstance(data, BaseDataElement):
        return data.new(**{name: own_samples(value) for name, value in data.items()})
    if type(data) is dict:
        return {name: own_samples(value) for name, value in data.items()}
    if type(data) in (list, tuple):
        return type(data)(map(own_samples, data))
    return data


def local_gradients(model: nn.Module) -> AbstractContextManager:
    """A context in which a pass leaves its gradients in its process, for a later pass to reduce."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def reaching_all(model: nn.Module) -> Iterator[None]:
    """Gives a gradient of zero to every parameter that the backward in the block does not reach.

    DistributedDataParallel reduces nothing until each parameter has had a gradient, whichever the pass
    uses. Which ones it uses, the backward itself says: a search of the graph would not see what lies
    inside `torch.utils.checkpoint`.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    waiting = set(parameters)
    handles = [p.register_post_accumulate_grad_hook(waiting.discard) for p in parameters]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    touch(p for p in parameters if p in waiting)


def touch(parameters: Iterable[nn.Parameter]) -> None:
    """Adds zero to the gradient of each parameter that is trained, as the backward of a loss would."""
    parameters = [p for p in parameters if p.requires_grad]
    zeros = [p.new_zeros(()).expand_as(p) for p in parameters]  # one number each, without memory
    if parameters:
        torch.autograd.backward(parameters, zeros)


@contextmanager
def forgetting(model: nn.Module, networks: Iterable[nn.Module]) -> Iterator[None]:
    """Puts back, after the block, what heads and losses have remembered of it.

    Some keep statistics from iteration to iteration: the losses Seesaw, GHM and EQLv2 in buffers, Dynamic
    R-CNN in attributes of its head, its loss and its assigner. All buffers and attributes are put
    back, except inside networks of adaptive depth, and those of norms: one that both passes share follows
    both.
    """
    kept = [(owner, name, owner[name], _copied(owner[name])) for owner, name in _memories(model, networks)]
    try:
        yield
    finally:
        with torch.no_grad():
            for owner, name, value, before in kept:
                if isinstance(value, Tensor) and before is not value:
                    value.copy_(before)  # the tensor itself, because DistributedDataParallel holds it too
                    before = value
                owner[name] = before


def _memories(model: nn.Module, networks: Iterable[nn.Module]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields where heads and losses can keep statistics: a dict and a key in it."""
    passed_over = {module for network in networks for module in network.modules()}
    for module in model.modules():
        if module in passed_over or is_norm(module):
            continue
        yield from ((module._buffers, name) for name in module._buffers)
        for name in vars(module).keys() - _TORCHS_ATTRIBUTES:
            yield vars(module), name
            value = vars(module)[name]
            for helper in value if isinstance(value, list) else [value]:
                if _is_helper(helper):
                    yield from ((vars(helper), key) for key in vars(helper))


def _is_helper(value: Any) -> bool:
    """Whether this is a plain object that a head owns, such as an assigner; not what all modules share."""
    return (
        hasattr(value, '__dict__')
        and not callable(value)
        and not isinstance(value, (dict, Tensor, ManagerMixin, BaseDataElement))
    )


def _copied(value: Any) -> Any:
    """A copy of what can change in place, one level deep, and every other value itself."""
    if isinstance(value, Tensor):
        return value.detach().clone() if value.grad_fn is None else value
    return copy.copy(value) if type(value) in (list, dict, set, deque, np.ndarray) else value
