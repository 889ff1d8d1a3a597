"""A sub-network as an ordinary network: in memory, or as files that load without this package."""

import copy
from pathlib import Path

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.config import Config
from torch import nn

from ..checkpoint.files import build_model, fill, read_checkpoint
from ..depth import (
    AdaptiveDepth,
    PathNorm,
    RunningLayers,
    Skippable,
    SwitchableDepth,
    depth_of,
    is_skipped,
    unwrap,
)
from ..errors import InputError
from ..evaluation.flops import complexity, default_shape
from ..models.backbones.adaptive import idle_layers, own_arguments, prediction_branches, stock_class
from ..models.heads import DropoutLinearClsHead
from ..utils.report import replacing
from .stock import shim, shortened, stock_config
from .to_torchvision import torchvision_difference, torchvision_source, torchvision_weights

COLUMNS = {
    'network': ('network', ''),
    'params': ('parameters (M)', '.3f'),
    'gflops': ('GFLOPs', '#.4g'),
    'size': ('weights (MB)', '.2f'),
    'difference': ('outputs differ by', '.1g'),
}


def extract(model: nn.Module, skip, share: bool = False) -> nn.Module:
    """One sub-network as an ordinary network, with the outputs of `model` at that depth in eval mode.

    What is skipped is gone, of every norm one copy is left, and all classes of the backbone are stock ones
    (in a neck or head, what has a stock equivalent). In training mode stochastic depth is on in all blocks,
    as in the stock class.

    Args:
        model: A classifier or detector with an adaptive-depth backbone, wrapped for training or not, or the
            backbone alone.
        skip (str | Sequence[bool] | bool): The depth, see `set_skip`; that of `model` stays as it is.
        share: Whether the network shares its parameters and buffers with `model`, so that training
            either changes both, and two threads serve two depths of one model. Move the model to its device
            before; moving either afterwards parts their buffers.

    Returns:
        The network, in the same mode as `model`.

    Raises:
        TypeError: The model has no adaptive depth.
        ValueError: `skip` does not fit, or the stock class cannot return the outputs of that depth.
    """
    model = unwrap(model)
    skip = depth_of(model).parse_skip(skip)
    tensors = [*model.parameters(), *model.buffers()]
    network = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    vars(network).pop('train_step', None)  # of a hook, while it trains the model
    _make_plain(depth_of(network), skip)
    for module in network.modules():
        if type(module) is DropoutLinearClsHead:
            module.__class__ = DropoutLinearClsHead.__base__
            del module.dropout
    return network if share else copy.deepcopy(network)


def _make_plain(depth: SwitchableDepth, skip) -> None:
    depth.set_skip(skip)
    for branches in prediction_branches(depth):
        for i in reversed(idle_layers(depth.decoder)):
            del branches[i]
    networks = depth.networks()
    for network in networks:
        _make_network_plain(network)
        _make_stock(network)
    if depth not in networks:
        _make_stock(depth)


def _make_network_plain(network: AdaptiveDepth) -> None:
    vars(network).update(shortened(network, {}).attributes)
    for parent in list(network.modules()):
        if isinstance(parent, RunningLayers):
            parent.__class__ = RunningLayers.__base__
        for name, child in reversed(list(parent.named_children())):
            if isinstance(child, PathNorm):
                setattr(parent, name, child.present())
            elif isinstance(child, Skippable) and (not is_skipped(child) or isinstance(child, DropPath)):
                child.__class__ = type(child).__mro__[2]
                del child.switch
            elif isinstance(child, Skippable):
                del parent[int(name)]  # containers number what is left anew


def _make_stock(module: nn.Module) -> None:
    for name in ('_switches', *own_arguments(type(module))):
        vars(module).pop(name, None)
    module.__class__ = stock_class(type(module))


def extract_file(cfg: Config, checkpoint, out, skip, to: str = 'openmmlab', shape=None) -> list[dict]:
    """Writes one sub-network of a checkpoint as `out`.pth and `out`.py, and compares what they give.

    Args:
        cfg: A config with an adaptive-depth backbone.
        checkpoint (str | Path): The weights of its model.
        out (str | Path): Where to, with or without the suffix.
        skip (str | Sequence[bool] | bool): The depth, see `set_skip`.
        to: 'openmmlab', a checkpoint and a config for stock mmpretrain or mmdet, whose outputs are
            bit-equal; or 'torchvision', a bare state dict and a module with `build()`, see
            `torchvision_source`.
        shape (Sequence[int], optional): Channels, height and width of the random image that is compared and
            counted; see `default_shape`.

    Returns:
        Of the adaptive network and of the one written: `network`, `params` in 1e6, `gflops`, `size` of the
        weights in 1e6 bytes, and `difference`, the largest of the outputs from the adaptive network's at
        that depth; of torchvision's logits, over their standard deviation.

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
    text = shim() + stock_config(cfg, skip) if to == 'openmmlab' else None
    state, meta = read_checkpoint(checkpoint)
    model = build_model(cfg)
    fill(model, state, checkpoint)
    depth = depth_of(model)
    skip = depth.parse_skip(skip)
    network = extract(model, skip, share=True)
    image = torch.randint(
        0, 256, shape or default_shape(cfg), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    if to == 'torchvision':
        text, saved = shim() + torchvision_source(network), torchvision_weights(network)
        difference_of = torchvision_difference
    else:
        about = {name: meta[name] for name in ('dataset_meta', 'CLASSES', 'PALETTE') if name in meta}
        saved = {'meta': {**about, 'skip': skip, 'cfg': text}, 'state_dict': network.state_dict()}
        difference_of = _difference
    with depth.skipping(skip), replacing(weights) as weights_file, replacing(module) as module_file:
        module_file.write_text(text)
        torch.save(saved, weights_file)
        difference = difference_of(model, weights_file, module_file, image)
    with depth.skipping('super'):
        whole = _row(f'adaptive, {depth.skip}', model, image)
    return [whole, {**_row(f'{skip} alone', network, image), 'difference': difference}]


def _row(name: str, model: nn.Module, image: torch.Tensor) -> dict:
    return {
        'network': name,
        'params': sum(p.numel() for p in model.parameters()) / 1e6,
        'gflops': complexity(model, torch.zeros(1, *image.shape))['gflops'],
        'size': sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6,
    }


def _difference(model: nn.Module, weights: Path, config: Path, image: torch.Tensor) -> float:
    """Zero, the only difference that the network in the files may have."""
    cfg = Config.fromfile(config)
    stock = build_model(cfg)
    stock.load_state_dict(torch.load(weights, weights_only=True)['state_dict'])
    for theirs, ours in zip(_outputs(stock, image, cfg), _outputs(model, image, cfg), strict=True):
        if theirs.numpy().tobytes() != ours.numpy().tobytes():  # NaN equals NaN here
            raise RuntimeError('the network written gives other outputs: a fault of mmadn, please report it')
    return 0.0


@torch.no_grad()
def _outputs(model: nn.Module, image: torch.Tensor, cfg: Config) -> list[torch.Tensor]:
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
