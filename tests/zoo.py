"""The zoos of mmdet, mmseg and mmrotate as a contract, for one config of every folder.

A model of a zoo and the same model with nothing but the `type` of its backbone changed give the same losses and
the same predictions at full depth, bit for bit, and the adaptive one trains at two depths.
"""

import mmadn  # noqa: F401, I001  first, for torchvision

import copy
import importlib.util
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmcv.cnn import is_norm
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from zoo_batches import SIZE, test_batch, train_batch

from mmadn import AdaptiveDepth, SelfDistillationHook
from mmadn.depth import is_skipped
from mmadn.errors import InputError

LIBRARIES = ('mmdet', 'mmseg', 'mmrotate')
# What a folder is represented by, if it has it.
PREFERRED = re.compile(r'ResNet|ResNeXt|Res2Net|ResNeSt|RegNet|Swin|ConvNeXt|MobileNetV2|PyramidVision')
# Folders whose shortest config does not run here, and a part of the name of one that does.
INSTEAD = {
    'mmdet/cascade_rpn': 'faster-rcnn',  # its RPN alone cannot be built: it has no number of classes
    'mmdet/dcn': 'dconv',  # deformable pooling has no operator for CPUs
    'mmdet/dcnv2': 'mdconv',
    'mmseg/swin': 'ade20k',  # the images of LEVIR have six channels
}
CAPS = dict(num_queries=20, num_proposals=20, nms_pre=50, max_per_img=20, num_points=64, num=32)
SIZES = {'mmdet/ddod': 384}  # its deformable convolutions need 3x3 positions at a stride of 128


def configs(library: str) -> Path | None:
    """The folder of a library's configs, None where the library is not installed."""
    spec = importlib.util.find_spec(library)
    return spec and Path(spec.origin).parent / '.mim' / 'configs'


def folders() -> list[str]:
    """Every folder of the installed zoos, such as 'mmdet/atss'."""
    found = []
    for library in LIBRARIES:
        paths = sorted(configs(library).iterdir()) if configs(library) else []
        names = [path.name for path in paths if path.is_dir() and not path.name.startswith('_')]
        found += [f'{library}/{name}' for name in names if name != 'common']
    return found


def choose(folder: str) -> Config | None:
    """The config that stands for a folder; None if none has a backbone."""
    library, _, name = folder.partition('/')
    part = INSTEAD.get(folder, '')
    paths = [path for path in (configs(library) / name).rglob('*.py') if part in path.name]
    best = None
    # Small networks first, and short names, which are mostly those of the ordinary settings.
    for path in sorted(paths, key=lambda p: (not re.search('r50|r18|tiny|-t-', p.name), len(p.name), p.name)):
        cfg = read(path)
        if cfg is not None and PREFERRED.search(backbone_of(cfg).type):
            return cfg
        best = best or cfg
    return best


def read(path: Path) -> Config | None:
    """A config, its model small enough for a test; None if it has no backbone or cannot be read."""
    try:
        cfg = Config.fromfile(path)
    except (OSError, ImportError, AttributeError):  # of what the package does not have
        return None
    if not list(backbones(cfg.get('model'))):
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
        elif name in ('score_thr', 'mask_thr', 'filter_thr'):  # an untrained model is sure of nothing
            settings[name] = 0.0
        elif name in CAPS and isinstance(value, int):
            settings[name] = min(value, CAPS[name])
        elif name == 'use_torchvision':  # whose operator is compiled anew for every shape on a CPU
            settings[name] = False
        elif value in ('SyncBN', 'MMSyncBN'):
            settings[name] = 'BN'


def backbones(settings: object) -> Iterator[dict]:
    """The settings of all backbones in a model's config."""
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if name == 'backbone' and isinstance(value, dict) and isinstance(value.get('type'), str):
            yield value
        else:
            yield from backbones(value)


def backbone_of(cfg: Config) -> dict:
    """The settings of the backbone that is made adaptive; re-identification beside a tracker has another."""
    found = list(backbones(cfg.model))
    return next((each for each in found if PREFERRED.search(each.type)), found[0])


def make_adaptive(cfg: Config) -> Config:
    """The same config but for the one word that makes its backbone adaptive."""
    cfg = copy.deepcopy(cfg)
    backbone = backbone_of(cfg)
    library, dot, name = backbone.type.rpartition('.')
    backbone.type = f'mmadn.{library}{dot}ADN{name}'
    return cfg


def build(cfg: Config) -> nn.Module:
    init_default_scope(cfg.default_scope)
    for name in ('epoch', 'iter', 'max_iters'):  # of a Runner, which some heads ask for
        MessageHub.get_current_instance().update_info(name, 0)
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg.model))
    model.init_weights()
    return model


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Statistics and scales with which an untrained model neither overflows nor hides its residual branches."""
    norms = [module for module in model.modules() if is_norm(module)]
    for norm in norms:
        if norm.weight is not None and not norm.weight.any():
            norm.weight.fill_(0.3)
    for module in model.modules():
        if hasattr(module, 'weight_gamma'):  # of DetectoRS, from its checkpoint
            module.weight_gamma.fill_(0.02)
    backbone = next(module for name, module in model.named_modules() if name.split('.')[-1] == 'backbone')
    batch_norms = [norm for norm in backbone.modules() if isinstance(norm, _BatchNorm)]
    momenta = [norm.momentum for norm in batch_norms]
    for norm in batch_norms:
        norm.train().momentum = 1
    backbone(torch.randn(2, 3, SIZE, SIZE))
    for norm, momentum in zip(batch_norms, momenta, strict=True):
        norm.momentum = momentum


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


def moved_by(model: nn.Module) -> set[str]:
    """The names of the parameters that have a gradient other than zero."""
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def stock_name(name: str) -> str:
    """Of a parameter of an adaptive model; both copies of a norm have one."""
    return re.sub(r'\.(full|skip)\.(?=\w+$)', '.', name)


def distil(model: nn.Module, data: dict) -> tuple[dict, set[str]]:
    """One self-distilled step; returns what is logged and the names of the parameters that it moves."""
    optimizer, moved = torch.optim.SGD(model.parameters(), lr=1e-4), set()
    optimizer.register_step_pre_hook(lambda *_: moved.update(moved_by(model)))
    model.train()
    torch.manual_seed(1)
    return SelfDistillationHook().train_step(model, copy.deepcopy(data), OptimWrapper(optimizer)), moved


class Findings:
    """What of the contract does not hold, and whether stock or adaptive depth is the cause."""

    def __init__(self) -> None:
        self.stock, self.ours, self.not_adaptive = [], [], ''

    def attempt(self, faults: list[str], what: str, function: Callable, *args) -> object:
        """What a function returns, or None after an error, which becomes a fault."""
        try:
            return function(*args)
        except Exception as error:  # whatever a library raises is what the table says
            faults.append(f'{what}: {one_line(error)}')

    def __str__(self) -> str:
        if self.ours:
            return 'FAILS: ' + '; '.join(self.ours)
        stock = 'stock fails in ' + '; '.join(self.stock) if self.stock else ''
        return self.not_adaptive or stock or 'holds'


def one_line(error: Exception) -> str:
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) < 120 else text[:117] + '...'


def examine(cfg: Config, size: int = SIZE) -> Findings:
    """Holds a model of a zoo to the contract."""
    found = Findings()
    stock = found.attempt(found.stock, 'building', build, cfg)
    if stock is None:
        return found
    enliven(stock)
    try:
        ours = build(make_adaptive(cfg))
    except InputError as error:
        found.not_adaptive = 'not adaptive: ' + one_line(error).partition(';')[0]
        return found
    ours.load_state_dict(stock.state_dict())

    train = train_batch(cfg, size)
    parts = [('loss', loss, train), ('prediction', predict, test_batch(cfg, size))]
    wanted = {name: found.attempt(found.stock, name, run, stock, data) for name, run, data in parts}
    parts = [part for part in parts if wanted[part[0]] is not None]
    backbone = next(module for module in ours.modules() if isinstance(module, AdaptiveDepth))
    results = {}
    for depth in ('super', 'base'):
        with backbone.skipping(depth), calls_of_skipped(backbone) as calls:
            for name, run, data in parts:
                what = f'{name} at depth {backbone.skip}'
                results[depth, name] = result = found.attempt(found.ours, what, run, ours, data)
                if not finite(result):
                    found.ours.append(f'{what} is not finite')
        if calls:
            found.ours.append(f'skipped blocks run at depth {backbone.skip}: {", ".join(sorted(calls)[:2])}')
    for name, _, _ in parts:
        if not same(results['super', name], wanted[name]):
            found.ours.append(f'{name} differs from that of stock')
        if same(results['super', name], results['base', name]):
            found.ours.append(f'{name} does not depend on the depth')
    if wanted['loss'] is not None:
        stock.parse_losses(wanted['loss'])[0].backward()
        found.attempt(found.ours, 'self-distilled step', check_step, stock, ours, train)
    return found


@contextmanager
def calls_of_skipped(backbone: nn.Module) -> Iterator[set[str]]:
    """Collects the names of modules that run although they belong to a block that is skipped."""
    calls, handles = set(), []
    for name, block in backbone.named_modules():
        for part, module in block.named_children() if is_skipped(block) else ():
            call = f'{name}.{part}'
            handles.append(module.register_forward_pre_hook(lambda *_, call=call: calls.add(call)))
    yield calls
    for handle in handles:
        handle.remove()


def check_step(stock: nn.Module, ours: nn.Module, data: dict) -> None:
    logs, moved = distil(ours, data)
    assert finite(logs), f'its losses are not finite: {logs}'
    trained = {stock_name(name) for name, p in ours.named_parameters() if p.requires_grad}
    wrong = trained ^ {name for name, p in stock.named_parameters() if p.requires_grad}
    assert not wrong, f'others are frozen than in stock: {sorted(wrong)[:3]}'
    expected = moved_by(stock)
    still = [name for name, _ in ours.named_parameters() if stock_name(name) in expected and name not in moved]
    assert not still, f'{len(still)} parameters have no gradient: {still[:3]}'


def check(folder: str) -> Findings:
    return examine(choose(folder), SIZES.get(folder, SIZE))
