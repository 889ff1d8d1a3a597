"""A sub-network as an ordinary network: in memory, or as files that load without this package.

An adaptive-depth backbone says what the network of the blocks that run is called in its stock class:
`shorten(kept, args)` sets the attributes that count blocks, and returns the stock class's arguments and
lines of Python that a config needs before it, '' mostly. `kept(blocks)` gives the indices of those that run.
"""

import copy
import inspect
from pathlib import Path

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..checkpoint.files import build_model, fill, read_checkpoint
from ..depth import AdaptiveDepth, SkipAwareNorm, Skippable, adaptive_backbone, is_skipped, unwrap
from ..errors import InputError, NotAdaptiveError
from ..evaluation.flops import complexity, default_shape
from ..models.heads import DropoutLinearClsHead
from ..utils.report import replacing
from .to_torchvision import torchvision_difference, torchvision_source, torchvision_weights

# What has a stock equivalent for inference, and the arguments that go.
EQUIVALENTS = {
    'ImageFolder': ('mmpretrain.CustomDataset', ('num_classes',)),
    'DropoutLinearClsHead': ('mmpretrain.LinearClsHead', ('dropout_rate',)),
}
# What a config has for training.
TRAINING = ('auto_scale_lr', 'custom_hooks', 'load_from', 'optim_wrapper', 'param_scheduler', 'resume')


def extract(model, skip, share=False):
    """One sub-network as an ordinary network, with the outputs of `model` at that depth in eval mode.

    What is skipped is gone, of every norm one copy is left, and all classes of the backbone are stock ones
    (in a neck or head, what has a stock equivalent). In training mode stochastic depth is on in all blocks,
    as in the stock class.

    Args:
        model (nn.Module): A classifier or detector with an adaptive-depth backbone, wrapped for training or
            not, or the backbone alone.
        skip (str | Sequence[bool] | bool): The depth, see `set_skip`; that of `model` stays as it is.
        share (bool): Whether the network shares its parameters and buffers with `model`, so that training
            either changes both, and two threads serve two depths of one model. Move the model to its device
            before; moving either afterwards parts their buffers.

    Returns:
        nn.Module: The network, in the same mode as `model`.

    Raises:
        TypeError: The model has no adaptive depth.
        ValueError: `skip` does not fit, or the stock class cannot return the outputs of that depth.
    """
    model = unwrap(model)
    skip = _backbone(model).parse_skip(skip)
    tensors = [*model.parameters(), *model.buffers()]
    network = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    vars(network).pop('train_step', None)  # of a hook, while it trains the model
    _make_plain(_backbone(network), skip)
    for module in network.modules():
        if type(module) is DropoutLinearClsHead:
            module.__class__ = DropoutLinearClsHead.__base__
            del module.dropout
    return network if share else copy.deepcopy(network)


def _backbone(model) -> AdaptiveDepth:
    return model if isinstance(model, AdaptiveDepth) else adaptive_backbone(model)


def _kept(blocks) -> list[int]:
    return [i for i, block in enumerate(blocks) if not is_skipped(block)]


def _make_plain(backbone, skip):
    backbone.set_skip(skip)
    backbone.shorten(_kept, {})
    for parent in list(backbone.modules()):
        for name, child in reversed(list(parent.named_children())):
            if isinstance(child, SkipAwareNorm):
                setattr(parent, name, child.skip if child.switch.on else child.full)
            elif isinstance(child, Skippable) and (not is_skipped(child) or isinstance(child, DropPath)):
                child.__class__ = type(child).__mro__[2]
                del child.switch
            elif isinstance(child, Skippable):
                del parent[int(name)]  # containers number what is left anew
    del backbone._switches, backbone.mandatory
    backbone.__class__ = _stock_class(type(backbone))


def _stock_class(cls):
    return cls.__mro__[cls.__mro__.index(AdaptiveDepth) + 1]


def stock_config(cfg: Config, skip) -> str:
    """The config of a sub-network in stock classes, for inference and testing.

    Where a stock class takes no numbers of blocks (ResNet, MobileNetV2), the text starts with lines of
    Python that make them known, so keep the file: what mmengine dumps of a loaded config is without them.
    What is for training alone is left out.

    Args:
        cfg (Config): A config with an adaptive-depth backbone.
        skip (str | Sequence[bool] | bool): The depth, see `set_skip`.

    Returns:
        str: The text of a Python config, for a file or `Config.fromstring(text, '.py')`.

    Raises:
        TypeError: The backbone has no adaptive depth.
        ValueError: `skip` does not fit, or something has no stock equivalent.
    """
    cfg = copy.deepcopy(cfg).to_dict()
    model = cfg.get('model') or {}
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        args = model.get('backbone')
        backbone = MODELS.build(copy.deepcopy(args)) if args else None
    if not isinstance(backbone, AdaptiveDepth):
        raise NotAdaptiveError(
            f'the config has the backbone {args and args.get("type")}, which has no adaptive depth; give one '
            "with a backbone of mmadn's, such as those in configs/adn/"
        )
    skip = backbone.parse_skip(skip)
    stock = _stock_class(type(backbone))

    for name in _own_arguments(type(backbone)):
        args.pop(name, None)
    if isinstance(args.get('init_cfg'), dict) and args['init_cfg'].get('type') == 'Pretrained':
        del args['init_cfg']  # the weights come with the checkpoint
    args['type'], code = f'{stock.__module__.split(".")[0]}.{stock.__name__}', ''
    if 'T' in skip:
        backbone.set_skip(skip)
        model['backbone'], code = backbone.shorten(_kept, args)

    cfg = {name: v for name, v in cfg.items() if name not in TRAINING and not name.startswith('train_')}
    cfg.get('default_hooks', {}).pop('checkpoint', None)
    for loop in (cfg.get('val_cfg'), cfg.get('test_cfg')):
        if loop and _own(loop.get('type')):
            del loop['type']
            loop.pop('skips', None)
    imports = cfg.get('custom_imports', {})
    if imports:
        names = imports['imports']
        imports['imports'] = [n for n in ([names] if isinstance(names, str) else names) if not _own(n)]
    cfg = _equivalent(cfg, 'config')
    about = f'# The sub-network {skip} of an adaptive-depth {stock.__name__}, as an ordinary one.\n'
    return about + code + Config(cfg).pretty_text


def _own_arguments(cls):
    """What an adaptive-depth backbone takes beside the stock arguments."""
    for each in cls.__mro__[: cls.__mro__.index(AdaptiveDepth) + 1]:
        for parameter in inspect.signature(each.__init__).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                yield parameter.name


def _own(type_) -> bool:
    return str(type_).split('.')[0] == 'mmadn'


def _equivalent(value, where):
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


def extract_file(cfg, checkpoint, out, skip, to='openmmlab', shape=None) -> list[dict]:
    """Writes one sub-network of a checkpoint as `out`.pth and `out`.py, and compares what they give.

    Args:
        cfg (Config): A config with an adaptive-depth backbone.
        checkpoint (str | Path): The weights of its model.
        out (str | Path): Where to, with or without the suffix.
        skip (str | Sequence[bool] | bool): The depth, see `set_skip`.
        to (str): 'openmmlab', a checkpoint and a config for stock mmpretrain or mmdet, whose outputs are
            bit-equal; or 'torchvision', a bare state dict and a module with `build()`, see
            `torchvision_source`.
        shape (Sequence[int], optional): Channels, height and width of the random image that is compared and
            counted; see `default_shape`.

    Returns:
        list[dict]: Of the adaptive network and of the one written: `network`, `params` in 1e6, `gflops`,
        `size` of the file in 1e6 bytes, and `difference`, the largest of the outputs from the adaptive
        network's at that depth; of torchvision's logits, over their standard deviation.

    Raises:
        TypeError: The backbone has no adaptive depth.
        ValueError: `skip` does not fit, the file is no checkpoint or one of another model, or something has
            no equivalent.
        OSError: A file cannot be read or written.
    """
    base = str(Path(out)).removesuffix('.pth').removesuffix('.py')
    weights, module = Path(f'{base}.pth'), Path(f'{base}.py')
    for path, given in ((weights, checkpoint), (module, cfg.filename)):
        if given and path.exists() and path.samefile(given):
            raise InputError(f'{path} would overwrite what it is extracted from; give another name')
    text = stock_config(cfg, skip) if to == 'openmmlab' else None
    state, meta = read_checkpoint(checkpoint)
    model = build_model(cfg)
    fill(model, state, checkpoint)
    backbone = adaptive_backbone(model)
    network = extract(model, skip, share=True)
    shape = shape or default_shape(cfg)
    image = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    if to == 'torchvision':
        text, saved = torchvision_source(network), torchvision_weights(network)
    else:
        about = {name: meta[name] for name in ('dataset_meta', 'CLASSES', 'PALETTE') if name in meta}
        about.update(skip=backbone.parse_skip(skip), cfg=text)
        saved = {'meta': about, 'state_dict': network.state_dict()}
    with backbone.skipping(skip), replacing(weights) as weights_file, replacing(module) as module_file:
        module_file.write_text(text)
        torch.save(saved, weights_file)
        if to == 'torchvision':
            difference = torchvision_difference(model, weights_file, module_file, image)
        else:
            difference = _difference(model, weights_file, module_file, image)
    with backbone.skipping('super'):
        whole = _row(f'adaptive, {backbone.skip}', model, image, checkpoint, None)
    return [whole, _row(f'{backbone.parse_skip(skip)} alone', network, image, weights, difference)]


def _row(name, model, image, path, difference):
    return {
        'network': name,
        'params': sum(p.numel() for p in model.parameters()) / 1e6,
        'gflops': complexity(model, torch.zeros(1, *image.shape))['gflops'],
        'size': Path(path).stat().st_size / 1e6,
        'difference': difference,
    }


def table(rows: list[dict]) -> list[dict]:
    """What `extract_file` gives, as text."""
    return [
        {
            'network': row['network'],
            'parameters (M)': f'{row["params"]:.3f}',
            'GFLOPs': f'{row["gflops"]:#.4g}',
            'file (MB)': f'{row["size"]:.2f}',
            'outputs differ by': '' if row['difference'] is None else f'{row["difference"]:.1g}',
        }
        for row in rows
    ]


def _difference(model, weights, config, image):
    cfg = Config.fromfile(config)
    stock = build_model(cfg)
    stock.load_state_dict(torch.load(weights, weights_only=True)['state_dict'])
    for theirs, ours in zip(_outputs(stock, image, cfg), _outputs(model, image, cfg), strict=True):
        if theirs.numpy().tobytes() != ours.numpy().tobytes():  # NaN equals NaN here
            raise RuntimeError('the network written gives other outputs: a fault of mmadn, please report it')
    return 0.0


@torch.no_grad()
def _outputs(model, image, cfg):
    """All tensors that a model gives for an image of uint8, (3, H, W): its features and predictions."""
    data = {'inputs': [image]}
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.structures import DetDataSample

        shape = tuple(image.shape[1:])
        about = {'img_id': 0, 'img_shape': shape, 'ori_shape': shape, 'scale_factor': (1.0, 1.0)}
        data['data_samples'] = [DetDataSample(metainfo=about)]
    prediction = model.test_step(copy.deepcopy(data))[0]
    inputs = model.data_preprocessor(data, False)['inputs']
    prediction = prediction.pred_instances if 'pred_instances' in prediction else prediction
    return [*model.extract_feat(inputs), *(v for v in prediction.values() if isinstance(v, torch.Tensor))]
