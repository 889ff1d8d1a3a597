"""torch.compile for all depths at once."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from ..depth import AdaptiveDepth, adaptive_backbone, unwrap
from ..engine.anatomy import beside_backbone
from ..engine.shared_prefixes import parts
from ..errors import FailedError, InputError

ALIKE = 0.05  # of the largest value of a feature map: the difference to it that is still taken for rounding


def compile(model: nn.Module, images: Tensor, freezing: bool | None = None, **options) -> nn.Module:
    """Compiles a model for inference so that every depth runs compiled, and runs each of them once.

    The backbone is divided into parts in which at most one switch acts: a stage, or a block where a stage is
    no module. Each part becomes two graphs, one for either state of its switch, or four where its norms are
    calibrated for the stage before (see `mmadn.calibrate`, which is to come first). All 2^n depths are put
    together from these. What comes before the first switch becomes one graph, and so does the neck. Nothing
    is compiled later for images like the given ones. Images of another shape cost a compilation, and so does
    inference_mode if it was off here. A copy of the model is not compiled.

    Args:
        model: One with an adaptive-depth backbone, in eval mode, with its final weights; changed in place.
        images: Preprocessed images, of the shape (N, 3, H, W) and on the device that the model will meet.
        freezing: Whether weights become constants of the graphs, which folds both copies of the norms into
            convolutions. Weights that are loaded later then have no effect. On a CPU only this makes a model
            faster; by default it is on there, and off elsewhere.
        **options: For `torch.compile`, such as `mode='reduce-overhead'`: CUDA graphs, on a GPU (nobody has
            measured them here).

    Returns:
        The model itself.

    Raises:
        TypeError: The model has no adaptive depth.
        ValueError: It is in training mode or compiled, or the images are no batch of images on its device.
        RuntimeError: This torch cannot isolate graphs, a part does not compile whole, or the outputs of the
            compiled network are others. The model is then as it was.
    """
    import torch._inductor.config as inductor  # takes seconds

    model = unwrap(model)
    backbone = adaptive_backbone(model)
    _check(model, images)
    if freezing is None:
        freezing = images.device.type == 'cpu'
    # Without fullgraph, what cannot be traced would run uncompiled, and so would every graph over the limit.
    options = dict(dynamic=False, fullgraph=True, isolate_recompiles=True) | options
    with ExitStack() as undo, torch.no_grad(), inductor.patch(freezing=freezing):
        ends = [backbone.parse_skip('super'), backbone.parse_skip('base')]
        expected = {skip: _features_at(skip, model, images) for skip in ends}
        for module in model.modules():
            if isinstance(module, DropPath):  # the rates are numpy's numbers, which would become inputs
                module.drop_prob = float(module.drop_prob)
        for first, *rest in _chains(model, _stem(backbone, images)):
            # The first module of a chain computes all of it, and the others then pass on what they get.
            call = torch.no_grad()(torch.compile(_chained(first, *rest), **options))
            for module, replacement in [(first, call), *((module, _identity) for module in rest)]:
                _replace_call(module, replacement, undo)
        _replace_call(backbone, _one_step(backbone), undo)
        for _ in range(3 if images.is_cuda else 1):  # CUDA graphs warm up, are recorded, and run
            for skip in backbone.subnets():
                features = _features_at(skip, model, images)
                if skip in expected and not _alike(features, expected[skip]):
                    raise FailedError(
                        f'compiled, the network gives other outputs at {skip}; use it uncompiled'
                    )
        undo.pop_all()
    return model


def _check(model: nn.Module, images: Tensor) -> None:
    if any(module.training for module in model.modules()):
        raise InputError('the model is in training mode: call model.eval() before compiling it')
    if any(module._compiled_call_impl is not None for module in model.modules()):
        raise InputError('the model is compiled already: give a copy of it, which is not')
    device = next(model.parameters()).device
    if not isinstance(images, Tensor) or images.ndim != 4 or images.device != device:
        given = f'{tuple(images.shape)} on {images.device}' if isinstance(images, Tensor) else repr(images)
        raise InputError(f'images={given}: give preprocessed images of shape (N, 3, H, W) on {device}')
    if reason := unsupported():
        raise FailedError(reason)


def unsupported() -> str | None:
    """Why this torch cannot compile all depths, or None if it can."""
    if 'isolate_recompiles' in inspect.signature(torch.compile).parameters:
        return None
    return f'torch {torch.__version__} limits the graphs of all parts together; install torch 2.13'


def _features_at(skip: str, model: nn.Module, images: Tensor) -> Any:
    with adaptive_backbone(model).skipping(skip) as backbone:
        features, neck = backbone(images), _neck(model)
        return features if neck is None else neck(features)


def _neck(model: nn.Module) -> nn.Module | None:
    name = beside_backbone(model, 'neck')
    return model.get_submodule(name) if name else None


def _alike(features: Any, expected: Any) -> bool:
    pairs = zip(tree_iter(features), tree_iter(expected), strict=True)
    return all((a - b).abs().max() <= ALIKE * b.abs().max() for a, b in pairs)


def _replace_call(module: nn.Module, call: Callable, undo: ExitStack) -> None:
    """Makes a module run `call` as if it were what `module.compile()` has compiled."""
    undo.callback(setattr, module, '_compiled_call_impl', None)
    module._compiled_call_impl = call


def _one_step(backbone: AdaptiveDepth) -> Callable:
    # If gradients were recorded between the graphs, the graphs would get tensors that require them, and each
    # graph would be compiled once more for these.
    @torch.no_grad()
    def call(*args, **kwargs) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # the CUDA graphs of one forward pass belong together
        return backbone._call_impl(*args, **kwargs)

    return call


def _stem(backbone: AdaptiveDepth, images: Tensor) -> list[nn.Module]:
    """The parts before the first switch, as far as each takes nothing but what the one before it gives."""
    calls = []

    def note(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        calls.append((module, args, kwargs, output))

    flags = dict(parts(backbone))
    hooks = [part.register_forward_hook(note, with_kwargs=True) for part in flags]
    try:
        backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    modules = [call[0] for call in calls]
    stem, last = [], None
    for module, args, kwargs, output in calls:
        runs_once = modules.count(module) == 1
        if flags[module] or kwargs or not runs_once or len(args) != 1 or (stem and args[0] is not last):
            break
        stem.append(module)
        last = output
    return stem


def _chains(model: nn.Module, stem: list[nn.Module]) -> Iterator[list[nn.Module]]:
    """Yields the modules that become graphs, each with those that run on what it gives."""
    if stem:
        yield stem
    for part, _ in parts(adaptive_backbone(model)):
        if part not in stem and any(True for _ in part.parameters()):
            yield [part]
    if _neck(model) is not None:
        yield [_neck(model)]


def _chained(first: nn.Module, *rest: nn.Module) -> Callable:
    # A function around `_call_impl`: torch.compile does not trace torch's own functions, but would compile
    # the pieces of `forward` that they call.
    def call(*args, **kwargs) -> Any:
        x = first._call_impl(*args, **kwargs)
        for module in rest:
            x = module._call_impl(x)
        return x

    return call


def _identity(x: Any) -> Any:
    return x
