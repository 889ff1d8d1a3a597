"""Where the residual stages of a backbone are, found by what its class has, or named by the user."""

from collections.abc import Sequence
from typing import NamedTuple

from mmcv.cnn import ConvModule, is_norm
from torch import nn

from ...errors import InputError


class Stage(NamedTuple):
    """A residual stage: its blocks, and what else always runs and has norms that follow its switch."""

    blocks: list[nn.Module]
    beside: list[nn.Module]


def find_stages(network: nn.Module, residual_stages: Sequence[str] | None, group: int | None) -> list[Stage]:
    """The residual stages of a backbone, from its first to its last.

    Args:
        residual_stages: The names of the modules that hold the blocks of each stage; by default they are
            found.
        group: How many successive blocks of a single stage count as one; by default 3 in ViT and its
            relatives, which have blocks and no stages.

    Raises:
        ValueError: The stages are not found, or an argument does not fit.
    """
    if residual_stages is not None:
        stages = _named(network, residual_stages)
    else:
        stages = next(filter(None, (find(network) for find in LAYOUTS)), None)
        if not stages and _sequence(network):
            stages, group = [Stage(_sequence(network), [])], 3 if group is None else group
    if not stages:
        children = ', '.join(name for name, _ in network.named_children())
        raise InputError(
            f'{_name(network)}: where its residual stages are is not known; if it has some, name the modules '
            f'that hold the blocks of each, as in residual_stages=[...] (its modules are {children})'
        )
    if group is None:
        return stages
    if len(stages) > 1:
        raise InputError(f'group={group!r}: {_name(network)} has {len(stages)} stages of its own; remove it')
    blocks = stages[0].blocks
    if type(group) is not int or not 1 <= group <= len(blocks) or len(blocks) % group:
        raise InputError(f'group={group!r}: give a divisor of the {len(blocks)} blocks')
    return [Stage(blocks[i : i + group], []) for i in range(0, len(blocks), group)]


def _name(network: nn.Module) -> str:
    return type(network).__name__.removeprefix('ADN')


def _named(network: nn.Module, names: Sequence[str]) -> list[Stage]:
    given, modules = f'residual_stages={names!r}', dict(network.named_modules())
    if isinstance(names, str) or not names:
        raise InputError(f'{given}: give a list of names of modules of {_name(network)}')
    for i, name in enumerate(names):
        if name not in modules or not _blocks(modules[name]):
            containers = nn.Sequential, nn.ModuleList, nn.ModuleDict
            known = [each for each, module in modules.items() if isinstance(module, containers)]
            raise InputError(
                f'{given}: {_name(network)} has no module {name!r} with blocks in it; some that have are '
                f'{", ".join(known[:10])}'
            )
        if any(f'{other}.'.startswith(f'{name}.') for j, other in enumerate(names) if j != i):
            raise InputError(f'{given}: a stage can be named once, and {name!r} is or contains another one')
    return [Stage(_blocks(modules[name]), []) for name in names]


def _blocks(stage: nn.Module) -> list[nn.Module]:
    return list(getattr(stage, 'blocks', stage).children())


def _resnet(network: nn.Module) -> list[Stage] | None:
    """ResNet and its relatives: what `res_layers` names; the last block of TridentNet merges its branches."""
    stages = [_blocks(getattr(network, name)) for name in getattr(network, 'res_layers', ())]
    merging = [[block for block in blocks if getattr(block, 'concat_output', False)] for blocks in stages]
    return [
        Stage([block for block in blocks if block not in beside], beside)
        for blocks, beside in zip(stages, merging, strict=True)
    ]


def _swin(network: nn.Module) -> list[Stage] | None:
    """Swin and what is built like it: a patch merging follows the switch of the stage that it feeds.

    The norms of the patch embedding and of the outputs serve both sub-paths.
    """
    stages = _modules(network, 'stages')
    if not all(hasattr(stage, 'blocks') and hasattr(stage, 'downsample') for stage in stages):
        return None
    merging = [stage.downsample for stage in stages]
    if stages and merging[-1] is None:  # each merges at its end, for the next one; Swin V2 at the beginning
        merging = [None, *merging[:-1]]
    return [
        Stage(_blocks(stage), [before] if before else [])
        for stage, before in zip(stages, merging, strict=True)
    ]


def _convnext(network: nn.Module) -> list[Stage] | None:
    """ConvNeXt: a downsampling layer follows the switch of the stage that it feeds; the stem serves both."""
    pairs = zip(_modules(network, 'stages'), _modules(network, 'downsample_layers'), strict=False)
    return [Stage(_blocks(stage), [layer] if i else []) for i, (stage, layer) in enumerate(pairs)]


def _cspnext(network: nn.Module) -> list[Stage] | None:
    """CSPNeXt and CSPDarknet: the blocks inside each CSP layer, where they add their input to their output.

    Everything else of a stage follows its switch. Where the blocks are not residual, as in the last stage,
    the CSP layer counts as a single block, which has nothing to skip.
    """
    layers = [getattr(network, name) for name in _strings(network, 'layers')]
    stages = [list(layer) for layer in layers if isinstance(layer, nn.Sequential)]
    stages = [stage for stage in stages if hasattr(stage[-1], 'final_conv')]
    return [
        Stage(_blocks(csp), [*before, csp.main_conv, csp.short_conv, csp.final_conv])
        if all(block.add_identity for block in _blocks(csp))
        else Stage([csp], before)
        for *before, csp in stages
    ]


def _mobilenet_v2(network: nn.Module) -> list[Stage] | None:
    """MobileNetV2: the stem follows the first switch, and the last convolution, if any, the last one."""
    names = _strings(network, 'layers')
    if not names or not hasattr(network, 'conv1'):  # Darknet, whose stages are more than blocks
        return None
    layers = [getattr(network, name) for name in names]
    stages = [Stage(_blocks(layer), []) for layer in layers if isinstance(layer, nn.Sequential)]
    if stages:
        stages[0].beside.append(network.conv1)
        stages[-1].beside.extend(layer for layer in layers if not isinstance(layer, nn.Sequential))
    return stages


def _pyramid(network: nn.Module) -> list[Stage] | None:
    """PVT and SegFormer's MiT: the embedding before a stage and the norm after it follow its switch."""
    layers = _modules(network, 'layers')
    if not all(isinstance(layer, nn.ModuleList) and len(layer) == 3 for layer in layers):
        return None
    # PVT has the embedding of positions among the blocks.
    return [
        Stage([block for block in blocks if any(map(is_norm, block.modules()))], [embedding, norm])
        for embedding, blocks, norm in layers
    ]


def _coder(network: nn.Module) -> list[Stage] | None:
    """The encoder or decoder of a DETR: its layers are one stage; a norm after them serves both sub-paths."""
    return [Stage(_modules(network, 'layers'), [])] if hasattr(network, 'layer_cfg') else None


def _sequence(network: nn.Module) -> list[nn.Module]:
    """The blocks of ViT and its relatives, which have no stages; the final norm serves both sub-paths."""
    layers = _modules(network, 'layers')
    containers = nn.Sequential, nn.ModuleList, ConvModule
    return [] if any(isinstance(layer, containers) for layer in layers) else layers


def _strings(network: nn.Module, name: str) -> list[str]:
    """The names of modules that a list of a network holds, if it is one of names."""
    names = getattr(network, name, None)
    return names if isinstance(names, list) and all(isinstance(each, str) for each in names) else []


def _modules(network: nn.Module, name: str) -> list[nn.Module]:
    """What a list of modules holds, if the network has one of this name."""
    modules = getattr(network, name, None)
    return list(modules) if isinstance(modules, nn.ModuleList) else []


LAYOUTS = _resnet, _swin, _convnext, _cspnext, _mobilenet_v2, _pyramid, _coder
