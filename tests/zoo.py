"""The zoos of mmdet, mmseg and mmrotate as a contract, for one config of every folder.

A model of a zoo and the same model with nothing but the `type` of its backbone changed give the same losses and
the same predictions at full depth, bit for bit, and the adaptive one trains at two depths.
"""

import mmadn  # noqa: F401, I001  first, for torchvision

import copy
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from mmcv.cnn import is_norm
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from zoo_batches import SIZE, test_batch, train_batch

from mmadn import SelfDistillationHook, adaptive_backbone

LIBRARIES = ('mmdet', 'mmseg', 'mmrotate')
# Backbones of residual blocks; PVT, HRNet, CSPDarknet and others have no sub-paths to skip.
FAMILIES = re.compile(
    r'(\w+\.)?\w*(ResNet|ResNetV1[cde]|ResNeXt|Res2Net|ResNeSt|RegNet|SwinTransformer|ConvNeXt|MobileNetV2)$'
)
# Folders whose shortest config does not run here, and what another one of the same folder is called.
INSTEAD = {
    'mmdet/cascade_rpn': 'faster-rcnn',  # the RPN alone cannot be built: it has no number of classes
    'mmdet/dcn': 'dconv',  # deformable pooling has no operator for CPUs
    'mmdet/dcnv2': 'mdconv',
    'mmdet/guided_anchoring': 'ga-faster',  # the RPN alone has a test_cfg that its own head refuses
    'mmseg/swin': 'ade20k',  # LEVIR's images have six channels
}
CAPS = dict(num_queries=20, num_proposals=20, nms_pre=50, max_per_img=20, num_points=64, num=32)


class Stock(Exception):
    """What stock does not do here, which is no fault of adaptive depth."""


def configs(library: str) -> Path | None:
    """The folder of a library's configs, None where the library is not installed."""
    spec = importlib.util.find_spec(library)
    return spec and Path(spec.origin).parent / '.mim' / 'configs'


def folders(library: str) -> list[str]:
    roots = [path for path in sorted(configs(library).iterdir()) if path.is_dir() and path.name[0] != '_']
    return [path.name for path in roots if path.name not in ('common', '__pycache__')]


def choose(library: str, folder: str) -> Config | None:
    """The config of a folder that stands for it, or None where no backbone can be adaptive."""
    root = configs(library) / folder
    wanted = INSTEAD.get(f'{library}/{folder}', '')
    paths = [path for path in root.rglob('*.py') if wanted in path.name]
    # Small networks first: a short name is mostly that of the ordinary setting.
    for path in sorted(paths, key=lambda p: (not re.search('r50|r18|tiny|-t-', p.name), len(p.name), p.name)):
        if 'Config' not in path.read_text() and (cfg := read(path)) and next(backbones(cfg.model), None):
            return cfg


def read(path: Path) -> Config | None:
    """A config whose model is small enough for a test; None if the file cannot be read."""
    try:
        cfg = Config.fromfile(path)
    except (OSError, ImportError):  # of a `_base_` that the package does not have
        return None
    if 'type' not in cfg.get('model', {}):
        return None
    cfg.setdefault('default_scope', 'mmdet')
    shrink(cfg.model, path)
    preprocessor = cfg.model.get('data_preprocessor', {})
    preprocessor.pop('batch_augments', None)  # paddings to the size of the data set's images
    if cfg.default_scope == 'mmseg':
        preprocessor.update(size=(SIZE, SIZE), size_divisor=None)
    return cfg


def shrink(settings: dict, path: Path) -> None:
    """Caps what makes a model slow, and removes what would need a download or several processes."""
    for name, value in list(settings.items()):
        for inner in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(inner, dict):
                shrink(inner, path)
        if isinstance(value, dict) and value.get('type') == 'Pretrained' or name in ('pretrained', 'teacher_ckpt'):
            settings[name] = None
        elif name == 'teacher_config':  # is written as seen from a clone of the library
            settings[name] = str(next(p for p in path.parents if p.name == '.mim') / value)
        elif name == 'score_thr':  # an untrained model is sure of nothing
            settings[name] = 0.0
        elif name in CAPS and isinstance(value, int):
            settings[name] = min(value, CAPS[name])
        elif value in ('SyncBN', 'MMSyncBN'):
            settings[name] = 'BN'


def backbones(settings: dict) -> Iterator[dict]:
    """The settings of the backbones in a model's config that can be adaptive."""
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if name == 'backbone' and isinstance(value, dict) and FAMILIES.match(str(value.get('type'))):
            yield value
        else:
            yield from backbones(value)


def make_adaptive(cfg: Config) -> Config:
    """The same config with the one word changed that gives its backbone an adaptive depth."""
    cfg = copy.deepcopy(cfg)
    backbone = next(backbones(cfg.model))
    library, dot, name = backbone.type.rpartition('.')
    backbone.type = f'mmadn.{library}{dot}ADN{name}'
    return cfg


def build(cfg: Config) -> nn.Module:
    init_default_scope(cfg.default_scope)
    for name in ('epoch', 'iter', 'max_iters'):  # a Runner's, which some heads ask for
        MessageHub.get_current_instance().update_info(name, 0)
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg.model))
    model.init_weights()
    for module in model.modules():  # a residual branch that starts at zero would hide whether it is skipped
        if is_norm(module) and getattr(module, 'weight', None) is not None and not module.weight.any():
            nn.init.constant_(module.weight, 0.1)
    return model


def loss(model: nn.Module, data: dict) -> dict:
    model.train()
    torch.manual_seed(1)
    return model._run_forward(model.data_preprocessor(copy.deepcopy(data), True), mode='loss')


@torch.no_grad()
def predict(model: nn.Module, data: dict) -> list:
    model.eval()
    torch.manual_seed(1)
    return model.test_step(copy.deepcopy(data))


def numbers(value: object) -> list[Tensor]:
    """Everything that a loss or a prediction holds, without what a data sample held before."""
    if hasattr(value, 'all_items'):  # a data sample
        value = {name: item for name, item in value.items() if name.startswith('pred') or 'gt' not in name}
    value = getattr(value, 'tensor', value)
    if isinstance(value, dict):
        value = [value[name] for name in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in numbers(item)]
    if isinstance(value, (Tensor, int, float)) or hasattr(value, 'dtype'):
        return [torch.as_tensor(value).detach()]
    return []


def same(ours: object, stock: object) -> bool:
    ours, stock = numbers(ours), numbers(stock)
    return len(ours) == len(stock) and all(map(torch.equal, ours, stock))


def finite(value: object) -> bool:
    return all(number.isfinite().all() for number in numbers(value))


def moving(model: nn.Module) -> set[str]:
    """The names of the parameters that have a gradient other than zero."""
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def stock_name(name: str) -> str:
    """Of a parameter of an adaptive model, both copies of a norm alike."""
    return re.sub(r'\.(full|skip)\.(?=\w+$)', '.', name)


def distil(model: nn.Module, data: dict) -> tuple[dict, set[str]]:
    """One self-distilled step; returns the logs and the names of the parameters that it moved."""
    optimizer, moved = torch.optim.SGD(model.parameters(), lr=1e-5), set()
    optimizer.register_step_pre_hook(lambda *_: moved.update(moving(model)))
    model.train()
    torch.manual_seed(1)
    return SelfDistillationHook().train_step(model, copy.deepcopy(data), OptimWrapper(optimizer)), moved
