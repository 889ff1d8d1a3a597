"""The residual blocks of an adaptive-depth backbone, which several analyses look at."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from mmadn.depth import AdaptiveDepth, Skippable


@dataclass
class Block:
    """A residual block of an adaptive-depth backbone.

    Args:
        name: As in `backbone.named_modules()`.
        stage: The number of its flag in `backbone.skip`, from 1 on.
        sub_path: 'mandatory' or 'skippable'.
    """

    name: str
    stage: int
    sub_path: str
    module: nn.Module


def residual_blocks(backbone: AdaptiveDepth) -> list[Block]:
    """The blocks in the order in which they run: all skippable modules, and the mandatory ones of their kind.

    Whether a block has a shortcut is seen only when it runs.
    """
    places = {
        module: (stage, sub_path)
        for stage, paths in enumerate(backbone.sub_paths(backbone.mandatory), 1)
        for sub_path, modules in zip(('mandatory', 'skippable'), paths, strict=True)
        for module in modules
    }
    kinds = {_kind(block) for _, skippable in backbone.sub_paths(None) for block in skippable}
    return [
        Block(name, *places[module], module)
        for name, module in backbone.named_modules()
        if module in places and _kind(module) in kinds
    ]


def _kind(module: nn.Module) -> type:
    return type(module).__mro__[2] if isinstance(module, Skippable) else type(module)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block all of the model is in eval mode; afterwards each module is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
