"""All sub-networks of one batch without computing anything twice.

What a stage gives depends on its own flag and on those before it only. The sub-networks of a batch
therefore form a tree, and running them in lexicographic order walks it depth first: each differs from
the one before from some stage on.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..depth import AdaptiveDepth, PathNorm, Skippable, depth_of, switches


@contextmanager
def shared_prefixes(backbone: AdaptiveDepth):
    """Within the block, a depth computes only what differs from the depth that ran before it.

    Each part of the backbone remembers its last result, and returns it for the same batch (the same
    tensors, unchanged since) under the same flags up to there. Within a part, so does every module that no
    flag changes and that runs on the part's input, such as the shortcut of a ResNet's stage. Only the results
    of one depth and one batch are held, the last ones. The weights must not change within the block.

    Args:
        backbone (AdaptiveDepth): In eval mode.

    Raises:
        RuntimeError: Gradients are recorded, inference_mode is on, or the backbone is in training mode.

    Example:
        >>> with torch.no_grad(), shared_prefixes(model.backbone):
        ...     for skip in model.backbone.subnets():  # neighbours share most
        ...         with model.backbone.skipping(skip):
        ...             outputs[skip] = model(images)
    """
    if torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        raise RuntimeError('shared prefixes are for evaluation: enter them under torch.no_grad()')
    if any(module.training for module in backbone.modules()):
        raise RuntimeError('shared prefixes are for evaluation: call eval() on the model first')
    results = _Results(backbone)
    with ExitStack() as stack:
        stack.enter_context(replaced_forward(backbone, results.run_backbone))
        for part, flags in parts(backbone):
            stack.enter_context(replaced_forward(part, partial(results.run_part, part, flags)))
            for module in _indifferent(part) if flags else ():
                stack.enter_context(replaced_forward(module, partial(results.run_indifferent, module)))
        yield


@contextmanager
def predicting(model, data, mode='test'):
    """Yields a function that gives the predictions of one batch at the current depth.

    The batch is preprocessed once, and depths share prefixes of the backbone. A model with a step of its own,
    such as one with test-time augmentation, does all that itself at each depth and shares nothing.

    Args:
        model (nn.Module): What `runner.model` is: a classifier or detector in eval mode, wrapped or not.
        data (dict | tuple | list): From the data loader.
        mode (str): 'test' or 'val', the step of the model.
    """
    inner, step = model.module if isinstance(model, MMDistributedDataParallel) else model, f'{mode}_step'
    if getattr(type(inner), step) is not getattr(BaseModel, step, None):
        yield lambda: getattr(model, step)(data)
        return
    data = inner.data_preprocessor(data, False)
    with shared_prefixes(depth_of(model).networks()[0]):
        yield lambda: inner._run_forward(_fresh(data), mode='predict')


def parts(backbone: AdaptiveDepth, module=None):
    """Yields the largest modules with one switch at most, and how many flags, from the first on, they see."""
    for child in (module or backbone).children():
        acting = switches(child)
        # A ModuleList or ModuleDict is never called itself.
        if len(acting) > 1 or isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from parts(backbone, child)
        else:
            yield child, max((backbone._switches.index(switch) + 1 for switch in acting), default=0)


def _fresh(data):
    # A model writes its predictions into the data samples.
    if isinstance(data, BaseDataElement):
        return data.clone()
    if isinstance(data, dict):
        return {name: _fresh(value) for name, value in data.items()}
    return type(data)(map(_fresh, data)) if type(data) in (list, tuple) else data


def _indifferent(part):
    """Yields the largest modules of a part that no switch changes and that may run on the part's input."""
    if part._compiled_call_impl is None and not isinstance(part, (Skippable, PathNorm)):
        for child in part.children():
            if switches(child):
                yield from _indifferent(child)
            else:
                yield child


@contextmanager
def replaced_forward(module, forward):
    """Within the block, a module runs `forward`, whose first argument is what the module ran before."""
    # What runs in place of `forward` in a compiled module.
    name = 'forward' if module._compiled_call_impl is None else '_compiled_call_impl'
    own, original = name in vars(module), getattr(module, name)
    setattr(module, name, partial(forward, original))
    try:
        yield
    finally:
        if own:
            setattr(module, name, original)
        else:
            delattr(module, name)


class _Tensors:
    """A value that modules pass on, and whether its tensors are still what they were."""

    def __init__(self, value):
        self.leaves, self.spec = tree_flatten(value)
        self.tensors = [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]
        self.accept_changes()

    def accept_changes(self) -> None:
        self.versions = [tensor._version for tensor in self.tensors]

    @property
    def unchanged(self) -> bool:
        return self.versions == [tensor._version for tensor in self.tensors]

    def still_is(self, other: '_Tensors') -> bool:
        """Whether the other value is this one: the same tensors, unchanged since, and equal other leaves."""
        return self.unchanged and self.spec == other.spec and all(map(_identical, self.leaves, other.leaves))

    def shares(self, other: '_Tensors') -> bool:
        return any(a is b for a in self.tensors for b in other.tensors)

    @property
    def value(self):
        return tree_unflatten(self.leaves, self.spec)


def _identical(a, b):
    return a is b or (not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and a == b)


@dataclass
class _Pass:
    """How far a forward pass of the backbone has come."""

    skip: str
    flags: int = 0  # how many flags the parts that ran so far have seen
    parts: int = 0  # how many parts ran so far
    entered: torch.Tensor | None = None  # what the part that runs now got

    @property
    def seen(self) -> str:
        """The flags on which all results so far depend, and no others."""
        return self.skip[: self.flags]


class _Results:
    """The results of the last forward pass, part by part in the order in which they ran."""

    def __init__(self, backbone: AdaptiveDepth):
        self.backbone = backbone
        self.batch = None  # what the backbone got
        self.parts = []  # of each part: itself with the flags that were seen, and its result
        self.indifferent = {}  # of each module that no flag changes: what it got last, and its result
        self.running = None  # the pass that runs now

    def run_backbone(self, original, *args, **kwargs):
        batch = _Tensors((args, kwargs))
        if not (self.batch and self.batch.still_is(batch)):
            self.batch, self.parts, self.indifferent = batch, [], {}
        self.running = _Pass(self.backbone.skip)
        try:
            return original(*args, **kwargs)
        finally:
            self.running = None

    def run_part(self, part, flags, original, *args, **kwargs):
        now = self.running
        if now is None:  # called by another than the backbone
            return original(*args, **kwargs)
        now.flags = max(now.flags, flags)
        index, now.parts = now.parts, now.parts + 1
        if index < len(self.parts):
            key, result = self.parts[index]
            if key == (part, now.seen) and result.unchanged:
                return result.value
            del self.parts[index:]
        before = self._last_result(now.seen)
        now.entered = args[0] if args else None
        try:
            result = _Tensors(original(*args, **kwargs))
        finally:
            now.entered = None
        if before and before.shares(result):
            # The part worked in place, as an activation does: what it changed is now its own result, and the
            # part before it will not be followed by another one.
            before.accept_changes()
        self.parts.append(((part, now.seen), result))
        return result.value

    def _last_result(self, seen):
        """The result of the part before, if it depends on the same flags and has not been changed."""
        if self.parts:
            (_, flags), result = self.parts[-1]
            if flags == seen and result.unchanged:
                return result
        return None

    def run_indifferent(self, module, original, *args, **kwargs):
        entered = self.running and self.running.entered
        if entered is None or not args or args[0] is not entered:
            return original(*args, **kwargs)
        given = _Tensors((args, kwargs))
        known, result = self.indifferent.get(module, (None, None))
        if not (known and known.still_is(given) and result.unchanged):
            result = _Tensors(original(*args, **kwargs))
            self.indifferent[module] = given, result
        return result.value
