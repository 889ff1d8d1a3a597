"""All sub-networks of one batch without computing anything twice.

What a stage gives depends on its own flag and on those before it only. The sub-networks of a batch
therefore form a tree, and running them in lexicographic order walks it depth first: each differs from
the one before from some stage on.
"""

from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..depth import AdaptiveDepth, SkipAwareNorm, Skippable, adaptive_backbone


@contextmanager
def shared_prefixes(backbone: AdaptiveDepth):
    """Within the block, a depth computes only what differs from the depth that ran before it.

    Each part of the backbone remembers its last result, and returns it for the same batch (the same
    tensors, unchanged since) under the same flags up to there. So does, within a part, what no flag changes
    and runs on the part's input, as the shortcut of a ResNet's stage does. The results of one depth are held,
    of the last batch. The weights must not change within the block.

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
    path = _Path(backbone)
    with ExitStack() as stack:
        stack.enter_context(_replaced_forward(backbone, path.run))
        for part, flags in parts(backbone):
            stack.enter_context(_replaced_forward(part, partial(path.part, part, flags)))
            for module in _indifferent(part) if flags else ():
                stack.enter_context(_replaced_forward(module, partial(path.module, module)))
        yield


@contextmanager
def predicting(model, data, mode='test'):
    """Yields a function that gives the predictions of one batch at the current depth.

    The batch is preprocessed once, and depths share prefixes. A model with a step of its own, such as
    one with test-time augmentation, does all that itself at each depth and shares nothing.

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
    with shared_prefixes(adaptive_backbone(model)):
        yield lambda: inner._run_forward(_fresh(data), mode='predict')


def parts(backbone: AdaptiveDepth, module=None):
    """Yields the largest modules with one switch at most, and how many flags, from the first on, they see."""
    for child in (module or backbone).children():
        own = {m.switch for m in child.modules() if hasattr(m, 'switch')}
        if len(own) > 1 or isinstance(child, (nn.ModuleList, nn.ModuleDict)):  # the latter are never called
            yield from parts(backbone, child)
        else:
            yield child, max((backbone._switches.index(switch) + 1 for switch in own), default=0)


def _fresh(data):
    # A model writes its predictions into the data samples.
    if isinstance(data, BaseDataElement):
        return data.clone()
    if isinstance(data, dict):
        return {name: _fresh(value) for name, value in data.items()}
    return type(data)(map(_fresh, data)) if type(data) in (list, tuple) else data


def _indifferent(part):
    """Yields the largest modules of a part that no switch changes and that may run on the part's input."""
    if part._compiled_call_impl is None and not isinstance(part, (Skippable, SkipAwareNorm)):
        for child in part.children():
            if any(hasattr(m, 'switch') for m in child.modules()):
                yield from _indifferent(child)
            else:
                yield child


@contextmanager
def _replaced_forward(module, forward):
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
        self.mark()

    def mark(self):
        self.versions = [tensor._version for tensor in self.tensors]

    @property
    def unchanged(self):
        return self.versions == [tensor._version for tensor in self.tensors]

    def shares(self, other):
        return any(a is b for a in self.tensors for b in other.tensors)

    def same(self, other):
        return self.spec == other.spec and all(map(_identical, self.leaves, other.leaves))

    @property
    def value(self):
        return tree_unflatten(self.leaves, self.spec)


def _identical(a, b):
    return a is b or (not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and a == b)


class _Path:
    """The results of the last forward pass, part by part in the order in which they ran."""

    def __init__(self, backbone):
        self.backbone, self.batch, self.running, self.entering = backbone, None, False, None
        self.results, self.modules = [], {}

    def run(self, original, *args, **kwargs):
        batch = _Tensors((args, kwargs))
        if not (self.batch and self.batch.unchanged and self.batch.same(batch)):
            self.batch, self.results, self.modules = batch, [], {}
        self.skip, self.seen, self.index, self.running = self.backbone.skip, 0, 0, True
        try:
            return original(*args, **kwargs)
        finally:
            self.running = False

    def part(self, module, flags, original, *args, **kwargs):
        if not self.running:  # called by another than the backbone
            return original(*args, **kwargs)
        # Whatever ran so far in this pass has seen these flags and no others.
        self.seen = max(self.seen, flags)
        key = module, self.skip[: self.seen]
        index, self.index = self.index, self.index + 1
        if index < len(self.results):
            known, result = self.results[index]
            if known == key and result.unchanged:
                return result.value
            del self.results[index:]
        before = None
        if self.results:
            (_, skip), last = self.results[-1]
            before = last if skip == key[1] and last.unchanged else None
        self.entering = args[0] if args and self.skip[: self.seen] else None
        try:
            result = _Tensors(original(*args, **kwargs))
        finally:
            self.entering = None
        if before and before.shares(result):
            before.mark()  # an in-place activation, which will not run on its result again either
        self.results.append((key, result))
        return result.value

    def module(self, module, original, *args, **kwargs):
        if self.entering is None or not args or args[0] is not self.entering:
            return original(*args, **kwargs)
        given = _Tensors((args, kwargs))
        known, result = self.modules.get(module, (None, None))
        if not (known and known.unchanged and known.same(given) and result.unchanged):
            result = _Tensors(original(*args, **kwargs))
            self.modules[module] = given, result
        return result.value
