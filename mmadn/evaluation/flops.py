"""What a network costs: multiply-adds by mmengine's counter, parameters, and the paper's figures."""

import re
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import chain
from math import prod
from pathlib import Path

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.analysis.jit_handles import get_shape
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement

from ..depth import SwitchableDepth, depth_of, present_branch
from ..utils.report import cells
from .columns import COLUMNS

# GFLOPs by the paper at a size of images, height before width; its counter adds all norms and activations.
PAPER = {
    'resnet50': ((224, 224), dict(FFFF=4.11, TFFF=3.90, TTFF=3.46, TTTF=2.80, TTTT=2.58)),
    'mobilenetv2': ((224, 224), dict(FFFFF=0.32, TTTTT=0.22)),
    'vit_b16': ((224, 224), dict(FFFF=17.58, TTFF=14.67, TTFT=13.21, TTTT=11.76)),
    'swin_t': ((224, 224), dict(FFFF=4.49, TFFF=4.11, TTFF=3.75, TTTT=2.34)),
    'faster_rcnn_r50': ((800, 1280), dict(FFFF=207.07, TTTT=175.66)),
    'mask_rcnn_r50': ((800, 1280), dict(FFFF=260.14, TTTT=228.73)),
    'retinanet_r50': ((800, 800), dict(FFFF=151.54, TTTT=132.04)),
}


def complexity(model, inputs) -> dict:
    """What the model costs, at its current depth if it has several; a tracker, what its detector costs.

    Args:
        model (nn.Module): A classifier, detector or segmentor, in eval mode.
        inputs (Tensor): A preprocessed image of shape (1, 3, H, W), or a clip, whose first frame counts.

    Returns:
        dict: `gflops`, multiply-adds in 1e9 by mmengine's counter, and `params`, in 1e6, of what is used.
    """
    model = present_branch(model)
    model = getattr(model, 'detector', model)
    if isinstance(inputs, torch.Tensor) and inputs.ndim == 5:
        inputs = inputs[:, 0]
    counter = FlopAnalyzer(model, inputs)
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counter.set_op_handle('aten::scaled_dot_product_attention', _attention_flops)
    idle = chain.from_iterable(backbone.idle_parameters() for backbone in _adaptive(model))
    if isinstance(model, BaseModel):  # detectors of two stages cut their proposals to the size of the image
        names, shape = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), tuple(inputs.shape[-2:])
        image = BaseDataElement(metainfo={**dict.fromkeys(names, shape), 'scale_factor': (1.0, 1.0)})
        model.forward = partial(model.forward, data_samples=[image])
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the tracer, on what a detector does with Python numbers
            total = counter.total()
    finally:
        vars(model).pop('forward', None)
    return {'gflops': total / 1e9, 'params': (_size(model.parameters()) - _size(idle)) / 1e6}


def _attention_flops(inputs, outputs):
    # mmengine passes over the fused operator: queries times keys, and weights times values.
    query, key, value = (get_shape(x) for x in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _adaptive(model):
    found = [module for module in model.modules() if isinstance(module, SwitchableDepth)]
    inside = {network for each in found for network in each.networks() if network is not each}
    return [module for module in found if module not in inside]


def _size(parameters):
    return sum(p.numel() for p in parameters)


def default_shape(cfg: Config) -> tuple:
    """Channels, height and width of the images that a config tests with.

    Of a detector that resizes COCO's images to 1333x800 at most, 800x1280, at which their GFLOPs are stated.
    Without test data, 224x224 for a classifier. Of a segmentor, the crops that it is trained on.
    """
    if crop := 'decode_head' in cfg.model and cfg.model.get('data_preprocessor', {}).get('size'):
        return (3, *crop)
    loader = cfg.get('test_dataloader') or {}
    pipeline = loader.get('dataset', {}).get('pipeline', [])
    sizes = [step.get('crop_size') or step.get('scale') for step in pipeline]
    size = next((size for size in reversed(sizes) if size), 224 if 'head' in cfg.model else (1333, 800))
    width, height = (size, size) if isinstance(size, int) else size
    return (3, 800, 1280) if (width, height) == (1333, 800) else (3, height, width)


def measure(cfg: Config, shape=None, skips=None) -> list[dict]:
    """Counts what the network of a config costs.

    Args:
        cfg (Config): Of a classifier, detector or segmentor, with an adaptive-depth
            backbone or without.
        shape (Sequence[int], optional): Channels, height and width of an image; see `default_shape`.
        skips (Sequence[str] | str, optional): Which depths, see `set_skip`; 'all' for all 2^n. By default
            the super-net and the base-net, or the one depth of an ordinary network.

    Returns:
        list[dict]: For each depth `skip` (only of an adaptive network), `gflops` and `params`, see
        `complexity`, and `stored`, the parameters of all depths in 1e6.

    Raises:
        TypeError: `skips` are given and the network has no adaptive depth.
        ValueError: A skip does not fit the backbone.
    """
    init_default_scope(cfg.get('default_scope'))
    model = MODELS.build(cfg.model).eval()
    inputs = torch.zeros(1, *(shape or default_shape(cfg)))
    stored = _size(model.parameters()) / 1e6
    if not _adaptive(model) and skips is None:
        return [{**complexity(model, inputs), 'stored': stored}]
    depth = depth_of(model)
    names = depth.subnets() if skips == 'all' else map(depth.parse_skip, skips or ('super', 'base'))
    rows = []
    for skip in dict.fromkeys(names):
        with depth.skipping(skip):
            rows.append({'skip': skip, **complexity(model, inputs), 'stored': stored})
    return rows


def published(config, shape, skip=None) -> float | None:
    """The GFLOPs that the paper states for a depth of one of its networks on ImageNet or COCO.

    Args:
        config (str | Path): Path of a config here, whose name says the network.
        shape (Sequence[int]): Channels, height and width of an image.
        skip (str, optional): The depth, unless the network is an individual one.
    """
    name = re.fullmatch(r'(.+?)(?:adn)?(-base)?(?:-super|_adn.*)?_(in1k|coco)', Path(config).stem)
    if name is None or name[1] not in PAPER:
        return None
    size, figures = PAPER[name[1]]
    full, *_, base = figures
    return figures.get(skip or (base if name[2] else full)) if tuple(shape[1:]) == size else None


def table(rows: list[dict], config: str | Path, shape: Sequence[int]) -> list[dict]:
    """What `measure` gives, as text beside the paper's figures where there are some."""
    rows = [{**row, 'paper': published(config, shape, row.get('skip'))} for row in rows]
    columns = {
        'skip': ('skip', ''),
        'gflops': ('GFLOPs', '#.4g'),  # with a digit more than elsewhere, as the paper states them
        'paper': ("paper's", ''),
        **{name: COLUMNS[name][:2] for name in ('params', 'stored')},
    }
    return cells(rows, columns)
