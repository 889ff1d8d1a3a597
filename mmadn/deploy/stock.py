"""A sub-network in the words of its stock class, whose package is all that a config of it needs."""

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from ..depth import AdaptiveDepth, SwitchableDepth, is_skipped
from ..errors import InputError, NotAdaptiveError
from ..models.backbones.adaptive import own_arguments, stock_class
from ..utils import torchvision_shim

# What a config has for inference and testing; the rest is for training alone, or read by nobody any more.
KEPT = (
    *('custom_imports', 'data_preprocessor', 'default_hooks', 'default_scope', 'env_cfg', 'log_level'),
    *('log_processor', 'model', 'test_cfg', 'test_dataloader', 'test_evaluator', 'tta_model'),
    *('tta_pipeline', 'val_cfg', 'val_dataloader', 'val_evaluator', 'vis_backends', 'visualizer'),
    'work_dir',
)
TRAINING_HOOKS = ('checkpoint', 'param_scheduler', 'sampler_seed')
# What has a stock equivalent for inference, and the arguments that go.
EQUIVALENTS = {
    'ImageFolder': ('mmpretrain.CustomDataset', ('num_classes',)),
    'DropoutLinearClsHead': ('mmpretrain.LinearClsHead', ('dropout_rate',)),
}


class Shortened(NamedTuple):
    """How a stock class is told that only some of its blocks are there.

    Args:
        attributes: What counts the blocks in a network that is built already.
        arguments: What replaces arguments of the class in a config; None where it has none that could.
        arch_settings: Where no argument says it, the class attribute of this name that does, as a Python
            expression in which `__stock` is the class.
        name: How a class with these `arch_settings` is called.
    """

    attributes: dict
    arguments: dict | None
    arch_settings: str = ''
    name: str = ''


def shortened(backbone: AdaptiveDepth, args: dict) -> Shortened:
    """The network of the blocks that run at the present depth, by the function in `SHORTENED`.

    Args:
        args: The arguments of the stock class in the config, empty if there is none.

    Raises:
        ValueError: The stock class cannot return the outputs of that depth, or is not known.
    """
    if 'T' not in backbone.skip:
        return Shortened({}, {})
    stock = stock_class(type(backbone))
    for cls in stock.__mro__:
        if cls.__name__ in SHORTENED:
            return SHORTENED[cls.__name__](backbone, args)
    raise InputError(
        f'{type(backbone).__name__}: how its {stock.__name__} takes numbers of blocks is not known; put a '
        f'function that says it into mmadn.deploy.stock.SHORTENED[{stock.__name__!r}]'
    )


def running(blocks: nn.Module) -> list[int]:
    """The indices of the blocks that run at the present depth."""
    return [i for i, block in enumerate(blocks) if not is_skipped(block)]


def _resnet(backbone: AdaptiveDepth, args: dict) -> Shortened:
    blocks = tuple(len(running(getattr(backbone, name))) for name in backbone.res_layers)
    attributes = {'stage_blocks': blocks}
    if not all(isinstance(setting, tuple) for setting in backbone.arch_settings.values()):
        return Shortened(attributes, None)  # a RegNet computes its numbers of blocks
    for depth, (block, numbers) in backbone.arch_settings.items():
        if block is backbone.block and tuple(numbers[: len(blocks)]) == blocks:
            return Shortened(attributes, {'depth': depth})
    settings = f'{{{backbone.depth}: (__stock.arch_settings[{backbone.depth}][0], {blocks})}}'
    return Shortened(attributes, {}, settings, _name(backbone, f'{backbone.depth}', blocks))


def _mobilenet_v2(backbone: AdaptiveDepth, args: dict) -> Shortened:
    blocks = [len(running(getattr(backbone, f'layer{i}'))) for i in range(1, 8)]
    settings = [
        [ratio, channels, number, *stride]
        for (ratio, channels, _, *stride), number in zip(backbone.arch_settings, blocks, strict=True)
    ]
    return Shortened({'arch_settings': settings}, {}, repr(settings), _name(backbone, '', blocks))


def _swin(backbone: AdaptiveDepth, args: dict) -> Shortened:
    depths = [len(running(stage.blocks)) for stage in backbone.stages]
    if not hasattr(backbone, 'arch_settings'):  # a library's where `depths` is an argument
        return Shortened({}, {'depths': depths})
    settings = {**backbone.arch_settings, 'depths': depths}
    return Shortened({'depths': depths, 'arch_settings': settings}, {'arch': settings})


def _convnext(backbone: AdaptiveDepth, args: dict) -> Shortened:
    depths = [len(running(stage)) for stage in backbone.stages]
    return Shortened({'depths': depths}, {'arch': {'depths': depths, 'channels': list(backbone.channels)}})


def _cspnext(backbone: AdaptiveDepth, args: dict) -> Shortened:
    settings = args.get('arch_ovewrite') or backbone.arch_settings[args.get('arch', 'P5')]
    blocks = [len(running(getattr(backbone, name)[-1].blocks)) for name in backbone.layers[1:]]
    settings = [[*row[:2], number, *row[3:]] for row, number in zip(settings, blocks, strict=False)]
    return Shortened({}, {'arch_ovewrite': settings, 'deepen_factor': 1.0})


def _coder(coder: AdaptiveDepth, args: dict) -> Shortened:
    number = {'num_layers': len(running(coder.layers))}
    return Shortened(number, number)


def _pyramid(backbone: AdaptiveDepth, args: dict) -> Shortened:
    return Shortened({}, {'num_layers': [len(running(blocks)) for _, blocks, _ in backbone.layers]})


def _transformer(backbone: AdaptiveDepth, args: dict) -> Shortened:
    left, last = running(backbone.layers), len(backbone.layers) - 1
    outputs = [sum(k <= i for k in left) - (i <= last) for i in backbone.out_indices]
    # After a skipped block come the features of the one before. The stock class gives them out once,
    # and with the final norm if that block is now the last one.
    normed = backbone.final_norm and len(left) - 1 in outputs and last not in backbone.out_indices
    if normed or len(set(outputs)) < len(outputs):
        group = len(backbone.layers) // backbone.num_skippable_stages
        raise InputError(
            f'out_indices={list(backbone.out_indices)} at skip={backbone.skip!r} are features after skipped '
            f'blocks, which an ordinary {stock_class(type(backbone)).__name__} does not give; choose last '
            f'blocks of groups, {group - 1}, {2 * group - 1}, ...'
        )
    attributes = {'num_layers': len(left), 'out_indices': outputs}
    arguments = {'out_indices': outputs} if 'out_indices' in args else {}
    frozen = getattr(backbone, 'frozen_stages', None)
    if frozen is not None:
        attributes['frozen_stages'] = sum(k < frozen for k in left) if frozen > 0 else -1
    if 'frozen_stages' in args:
        arguments['frozen_stages'] = attributes['frozen_stages']
    if isinstance(args.get('layer_cfgs'), (list, tuple)):
        arguments['layer_cfgs'] = [args['layer_cfgs'][k] for k in left]
    if not hasattr(backbone, 'arch_settings'):  # a library's where `num_layers` is an argument
        return Shortened(attributes, {**arguments, 'num_layers': len(left)})
    settings = {**backbone.arch_settings, 'num_layers': len(left)}
    return Shortened({**attributes, 'arch_settings': settings}, {**arguments, 'arch': settings})


# By the name of the stock class, which is one in all libraries; it serves the classes derived from it too.
SHORTENED = {
    'CSPDarknet': _cspnext,
    'CSPNeXt': _cspnext,
    'ConvNeXt': _convnext,
    'DetrTransformerDecoder': _coder,
    'DetrTransformerEncoder': _coder,
    'MixVisionTransformer': _pyramid,
    'MobileNetV2': _mobilenet_v2,
    'PyramidVisionTransformer': _pyramid,
    'ResNet': _resnet,
    'SwinTransformer': _swin,
    'SwinTransformerV2': _swin,
    'VisionTransformer': _transformer,
}


def _name(backbone, kind, blocks) -> str:
    return '-'.join([stock_class(type(backbone)).__name__ + kind, *map(str, blocks)])


def shim() -> str:
    """What lets torchvision be imported where this package is not, if torch and torchvision need it here."""
    needed = hasattr(torch.library, 'torchvision_signatures')
    return f'{Path(torchvision_shim.__file__).read_text()}\n' if needed else ''


def stock_config(cfg: Config, skip) -> str:
    """The config of a sub-network in stock classes, for inference and testing.

    Where a stock class has no argument for the numbers of its blocks (ResNet, MobileNetV2), the text starts
    with a class of its own that has them, so keep the file: what mmengine dumps of a loaded config is
    without it. What is for training alone is left out.

    Args:
        cfg: A config with an adaptive-depth backbone.
        skip (str | Sequence[bool] | bool): The depth, see `set_skip`.

    Returns:
        The text of a Python config, for a file or `Config.fromstring(text, '.py')`.

    Raises:
        TypeError: The backbone has no adaptive depth.
        ValueError: `skip` does not fit, or something has no stock equivalent.
    """
    cfg = copy.deepcopy(cfg).to_dict()
    model = cfg.get('model') or {}
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        several = _own(model.get('type'))
        args = model if several else model.get('backbone')
        depth = MODELS.build(copy.deepcopy(args)) if args else None
    if not isinstance(depth, SwitchableDepth):
        raise NotAdaptiveError(
            f'the config has the backbone {args and args.get("type")}, which has no adaptive depth; give one '
            "with a backbone of mmadn's, such as those in configs/adn/"
        )
    depth.set_skip(skip)
    cfg, class_text = _for_inference(cfg, depth.skip), ''
    for name, network in zip(depth.parts if several else ['backbone'], depth.networks(), strict=True):
        if not isinstance(cfg['model'].get(name), dict):
            raise InputError(
                f'the config does not say how deep {name} is; extract in memory with '
                'mmadn.deploy.extract(model, skip)'
            )
        if name == 'backbone':
            cfg['model'][name], class_text = _stock_backbone(network, cfg['model'][name])
        else:
            cfg['model'][name].update(shortened(network, cfg['model'][name]).arguments)
    if several:
        cfg['model'] = {
            name: value for name, value in cfg['model'].items() if name not in own_arguments(type(depth))
        }
        cfg['model']['type'] = _scoped(stock_class(type(depth)))
    title = f'# The sub-network {depth.skip} of an adaptive-depth {stock_class(type(depth)).__name__}'
    return f'{title}, as an ordinary one.\n{class_text}{Config(_equivalent(cfg, "config")).pretty_text}'


def _scoped(stock: type, name: str = '') -> str:
    """A stock class, or one of its library by another name, as a config calls it."""
    package = stock.__module__.split('.')[0]
    scope = f'{package}.' if package in MODELS.children else ''  # none of a class of the user's own
    return f'{scope}{name or stock.__name__}'


def _stock_backbone(backbone: AdaptiveDepth, args: dict) -> tuple[dict, str]:
    """The arguments of the stock class, its type among them, and the lines that define it if it is new."""
    stock = stock_class(type(backbone))
    package = stock.__module__.split('.')[0]
    own = set(own_arguments(type(backbone)))
    args = {name: value for name, value in args.items() if name not in own}
    if 'T' not in backbone.skip:
        return {**args, 'type': _scoped(stock)}, ''
    short = shortened(backbone, args)
    if short.arguments is None:
        raise InputError(
            f'no config can say how many blocks a {stock.__name__} has, because it computes that; extract in '
            'memory with mmadn.deploy.extract(model, skip)'
        )
    args.update(short.arguments, type=_scoped(stock, short.name))
    if not short.name:
        return args, ''
    # A name with two underscores is no setting to mmengine, and with an import of more than the standard
    # library the file would be a config of another kind.
    return args, (
        f'# {package} has no argument for the numbers of blocks: here is a class of its own that has them.\n'
        'import importlib\n\n'
        f'__stock = importlib.import_module({stock.__module__!r}).{stock.__name__}\n'
        f'__short = type({stock.__name__!r}, (__stock,), dict(arch_settings={short.arch_settings}))\n'
        f'importlib.import_module({package + ".registry"!r}).MODELS.register_module(\n'
        f'    {short.name!r}, force=True, module=__short\n)\n\n'
    )


def _for_inference(cfg: dict, skip: str) -> dict:
    """A config without what is for training alone."""
    cfg = {name: value for name, value in cfg.items() if name in KEPT}
    for name in ('model', 'data_preprocessor'):
        if cfg.get(name):
            cfg[name] = _without(cfg[name], ('init_cfg', 'batch_augments'))  # all weights are loaded
    if 'train_cfg' in cfg['model']:
        cfg['model']['train_cfg'] = None  # some detectors insist on the argument
    hooks = cfg.get('default_hooks', {})
    for name in TRAINING_HOOKS:
        hooks.pop(name, None)
    if cfg.get('work_dir'):  # not that of the training, whose records a test would mix with its own
        cfg['work_dir'] = f'{cfg["work_dir"]}/{skip}'
    for loop in (cfg.get('val_cfg'), cfg.get('test_cfg')):
        if loop and _own(loop.get('type')):
            del loop['type']
            loop.pop('skips', None)
    imports = cfg.get('custom_imports')
    if imports:
        names = imports['imports']
        imports['imports'] = [n for n in ([names] if isinstance(names, str) else names) if not _own(n)]
        if not imports['imports']:
            del cfg['custom_imports']
    return cfg


def _without(value, names: tuple):
    """Settings without the keys of these names, at any level."""
    if isinstance(value, dict):
        return {name: _without(item, names) for name, item in value.items() if name not in names}
    return type(value)(_without(item, names) for item in value) if isinstance(value, (list, tuple)) else value


def _own(type_) -> bool:
    return str(type_).split('.')[0] == 'mmadn'


def _equivalent(value, where: str):
    """Settings with stock types in place of this package's; raises ValueError where there is none."""
    if isinstance(value, (list, tuple)):
        return type(value)(_equivalent(item, f'{where}[{i}]') for i, item in enumerate(value))
    if not isinstance(value, dict):
        return value
    value = {name: _equivalent(item, f'{where}.{name}') for name, item in value.items()}
    if _own(value.get('type')):
        name = value['type'].rpartition('.')[2]
        if name not in EQUIVALENTS:
            raise InputError(
                f'{where} is a {value["type"]}, which has no equivalent in mmpretrain or mmdet; put a stock '
                'type into the config, or extract in memory with mmadn.deploy.extract(model, skip)'
            )
        value['type'], gone = EQUIVALENTS[name]
        value = {k: v for k, v in value.items() if k not in gone}
    return value
