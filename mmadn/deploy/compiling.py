"""torch.compile for all depths at once."""

import inspect
from contextlib import ExitStack

import torch
from mmcv.cnn.bricks import DropPath
from torch import nn
from torch.utils._pytree import tree_iter

from ..depth import adaptive_backbone, unwrap
from ..engine.prefixes import parts
from ..errors import FailedError, InputError


def compile(model: nn.Module, images: torch.Tensor, freezing: bool | None = None, **options) -> nn.Module:
    """Compiles a model for inference so that every depth runs compiled, and runs each of them once.

    Each part of the backbone that sees one switch at most (a stage; a block, where a stage is no module)
    becomes two graphs, one for either state of the switch, which all 2^n depths are put together from. What
    comes before the first switch becomes one graph, and so does the neck. For images like these nothing is
    compiled later. Another shape, or inference_mode where it was off here, costs a compilation. A copy of
    the model is not compiled.

    Args:
        model (nn.Module): A classifier or detector in eval mode, with its final weights; changed in place.
        images (Tensor): Preprocessed images, of the shape (N, 3, H, W) and on the device that it will meet.
        freezing (bool, optional): Whether weights become constants of the graphs, which folds both copies of
            the norms into convolutions. Weights that are loaded later then have no effect. On a CPU only
            this makes a model faster; by default it is on there, and off elsewhere.
        **options: For `torch.compile`, such as `mode='reduce-overhead'`: CUDA graphs, on a GPU (nobody has
            measured them here).

    Returns:
        nn.Module: The model itself.

    Raises:
        TypeError: The model has no adaptive depth.
        ValueError: It is in training mode or compiled, or the images are no batch of images on its device.
        RuntimeError: This torch cannot isolate graphs, a part does not compile whole, or the compiled
            network's outputs are others. The model is then as it was.
    """
    import torch._inductor.config as inductor  # takes seconds

    model = unwrap(model)
    backbone = adaptive_backbone(model)
    _check(model, images)
    if freezing is None:
        freezing = images.device.type == 'cpu'
    # Without fullgraph, what does not trace would run eager, and so would all past the limit of graphs.
    options = dict(dynamic=False, fullgraph=True, isolate_recompiles=True) | options
    with ExitStack() as undo, torch.no_grad(), inductor.patch(freezing=freezing):
        stem, before = _stem(backbone, images), {}
        for skip in (backbone.parse_skip('super'), backbone.parse_skip('base')):
            with backbone.skipping(skip):
                before[skip] = _features(model, images)
        for module in model.modules():
            if isinstance(module, DropPath):  # mmpretrain gives numpy's numbers as rates, which are traced
                module.drop_prob = float(module.drop_prob)
        for first, *rest in _chains(model, stem):
            for module in (first, *rest):
                undo.callback(setattr, module, '_compiled_call_impl', None)
                module._compiled_call_impl = _identity
            compiled = torch.compile(_calls(first, *rest), **options)
            first._compiled_call_impl = torch.no_grad()(compiled)
        undo.callback(setattr, backbone, '_compiled_call_impl', None)
        backbone._compiled_call_impl = _one_step(backbone)
        for _ in range(3 if images.is_cuda else 1):  # CUDA graphs warm up, are recorded, and run
            for skip in backbone.subnets():
                with backbone.skipping(skip):
                    features = _features(model, images)
                if skip in before and not _close(features, before[skip]):
                    raise FailedError(
                        f'compiled, the network gives other outputs at {skip}; use it uncompiled'
                    )
        undo.pop_all()
    return model


def _check(model, images):
    if any(module.training for module in model.modules()):
        raise InputError('the model is in training mode: call model.eval() before compiling it')
    if any(module._compiled_call_impl is not None for module in model.modules()):
        raise InputError('the model is compiled already: give a copy of it, which is not')
    device = next(model.parameters()).device
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.device != device:
        found = (
            f'{tuple(images.shape)} on {images.device}' if isinstance(images, torch.Tensor) else repr(images)
        )
        raise InputError(f'images={found}: give preprocessed images of shape (N, 3, H, W) on {device}')
    if 'isolate_recompiles' not in inspect.signature(torch.compile).parameters:
        raise FailedError(f'torch {torch.__version__} counts the graphs of all parts together; use 2.13')


def _features(model, images):
    features = model.backbone(images)
    return features if getattr(model, 'neck', None) is None else model.neck(features)


def _close(features, expected):
    pairs = zip(tree_iter(features), tree_iter(expected), strict=True)
    return all((a - b).abs().max() <= 0.05 * b.abs().max() for a, b in pairs)


def _one_step(backbone):
    # Recorded gradients of what lies between the graphs would be another input to them.
    @torch.no_grad()
    def call(*args, **kwargs):
        torch.compiler.cudagraph_mark_step_begin()  # the CUDA graphs of one forward pass belong together
        return backbone._call_impl(*args, **kwargs)

    return call


def _stem(backbone, images):
    """The parts before the first switch of which each takes what the one before it gives."""
    calls = []

    def note(module, args, kwargs, output):
        calls.append((module, args, kwargs, output))

    flags = dict(parts(backbone))
    hooks = [part.register_forward_hook(note, with_kwargs=True) for part in flags]
    try:
        backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    stem, last = [], None
    for module, args, kwargs, output in calls:
        once = sum(call[0] is module for call in calls) == 1
        if flags[module] or kwargs or not once or len(args) != 1 or (stem and args[0] is not last):
            break
        stem.append(module)
        last = output
    return stem


def _chains(model, stem):
    """The modules that become graphs, each with those that run on what it gives."""
    if stem:
        yield stem
    for part, _ in parts(model.backbone):
        if part not in stem and any(True for _ in part.parameters()):
            yield [part]
    if getattr(model, 'neck', None) is not None:
        yield [model.neck]


def _calls(first, *rest):
    # Not `_call_impl` itself: torch.compile passes over torch's own functions, into pieces of `forward`.
    def call(*args, **kwargs):
        x = first._call_impl(*args, **kwargs)
        for module in rest:
            x = module._call_impl(x)
        return x

    return call


def _identity(x):
    return x
