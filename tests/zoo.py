"""The zoos of mmdet, mmseg and mmrotate as a contract, for one config of every folder.

A model of a zoo, and the same with nothing but the `type` of its backbone changed, give the same losses and
predictions at full depth, bit for bit; the adaptive one also runs as its base-net, and trains at both depths.
"""

import mmadn  # noqa: F401, I001  first, for torchvision

import copy
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
PREFERRED = re.compile(r'ResNet|ResNeXt|Res2Net|ResNeSt|RegNet|Swin|ConvNeXt|MobileNetV2|Pyramid|MixVision')
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


def choose(folder: str) -> Config:
    """The config that stands for a folder, its model small enough for a test.

    Raises:
        ValueError: The folder has none with a backbone.
        OSError, ImportError: The same, and the reason why one cannot be read.
    """
    library, _, name = folder.partition('/')
    paths = [path for path in (configs(library) / name).rglob('*.py') if INSTEAD.get(folder, '') in path.name]
    # Small networks first, and short names, which are mostly those of the ordinary settings.
    paths.sort(key=lambda path: (not re.search('r50|r18|tiny|-t[-_]', path.name), len(path.name), path.name))
    found, unreadable = [], InputError('no config of a model with a backbone')
    for path in paths:
        try:
            cfg = Config.fromfile(path)
        except (OSError, ImportError) as error:  # of what the package does not have
            unreadable = error
            continue
        if list(backbones(cfg.get('model'))):
            found.append(cfg)
            if PREFERRED.search(backbone_of(cfg).type):
                break
    if not found:
        raise unreadable
    best = found[-1] if PREFERRED.search(backbone_of(found[-1]).type) else found[0]
    best.setdefault('default_scope', 'mmdet')
    return small(best)


def small(cfg: Config) -> Config:
    shrink(cfg.model, Path(cfg.filename))
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
        loads = name == 'init_cfg' and isinstance(value, dict) and 'checkpoint' in value
        if loads or name in ('pretrained', 'teacher_ckpt'):
            settings[name] = None
        elif name == 'teacher_config':  # is written as seen from a clone of the library
            settings[name] = str(next(p for p in path.parents if p.name == '.mim') / value)
        elif name in ('score_thr', 'mask_thr', 'filter_thr'):  # an untrained model is sure of nothing
            settings[name] = 0.0
        elif name in CAPS and isinstance(value, int):
            settings[name] = min(value, CAPS[name])
        elif name == 'img_size':  # of a table of positions
            settings[name] = (SIZE, SIZE)
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
def enliven(model: nn.Module, channels: int = 3) -> nn.Module:
    """Lets an untrained model neither overflow nor hide its residual branches, which may start at zero."""
    for module in model.modules():
        if is_norm(module) and module.weight is not None and not module.weight.any():
            module.weight.fill_(0.3)
        if hasattr(module, 'weight_gamma'):  # of DetectoRS, otherwise from its checkpoint
            module.weight_gamma.fill_(0.02)
        if type(module).__name__ == 'TridentConv':  # the same
            nn.init.kaiming_normal_(module.weight)
    backbone = next((module for name, module in model.named_modules() if name.endswith('backbone')), model)
    backbone.eval()
    # NAS-FCOS has an eps of 0, with which torch does not train.
    norms = {norm: norm.momentum for norm in backbone.modules() if isinstance(norm, _BatchNorm) and norm.eps}
    for norm in norms:
        norm.train().momentum = 1
    backbone(torch.randn(2, channels, SIZE, SIZE))
    for norm, momentum in norms.items():
        norm.momentum = momentum
    return model


def loss(model: nn.Module, data: dict) -> dict:
    model.train()
    torch.manual_seed(1)
    return model._run_forward(model.data_preprocessor(copy.deepcopy(data), True), mode='loss')


def learn(model: nn.Module, data: dict) -> dict:
    """The losses, after their backward, which runs the forward again in models that keep checkpoints."""
    losses = loss(model, data)
    model.parse_losses(losses)[0].backward()
    return losses


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


@dataclass
class Findings:
    """What of the contract does not hold, and whether stock or adaptive depth is the cause."""

    folder: str
    config: str = ''
    backbone: str = ''
    not_adaptive: str = ''
    stock: list[str] = field(default_factory=list)  # what stock does not do here
    ours: list[str] = field(default_factory=list)
    holds: list[str] = field(default_factory=list)

    def attempt(self, faults: list[str], what: str, function: Callable, *args) -> object:
        """What a function returns, or None after an error, which becomes a fault."""
        try:
            return function(*args)
        except Exception as error:  # whatever a library raises is what the table says
            faults.append(f'{what}: {one_line(error)}')

    @property
    def verdict(self) -> str:
        if self.ours:
            return 'fails'
        if self.not_adaptive:
            return 'not adaptive'
        if self.stock:
            return 'holds in part' if self.holds else 'stock fails'
        return 'holds'

    @property
    def library(self) -> str:
        return self.folder.partition('/')[0]

    @property
    def why_not(self) -> str:
        return '; '.join([*self.ours, *filter(None, [self.not_adaptive]), *self.stock])

    def __str__(self) -> str:
        return '; '.join(filter(None, [self.verdict, self.why_not]))


def one_line(error: Exception) -> str:
    text = re.sub(r'/\S*/(site-packages|configs)/', '', ' '.join(str(error).split())) or type(error).__name__
    return text if len(text) < 120 else text[:117] + '...'


def check(folder: str) -> Findings:
    """Holds one model of a folder to the contract."""
    found = Findings(folder)
    try:
        cfg = choose(folder)
    except InputError as error:
        found.not_adaptive = str(error)
        return found
    except (OSError, ImportError) as error:
        found.stock.append(f'reading: {one_line(error)}')
        return found
    found.config, found.backbone = Path(cfg.filename).name, backbone_of(cfg).type
    stock = found.attempt(found.stock, 'building', build, cfg)
    ours = stock and adaptive_model(found, cfg)
    if ours:
        compare(found, cfg, stock, ours)
    return found


def adaptive_model(found: Findings, cfg: Config) -> nn.Module | None:
    try:
        return build(make_adaptive(cfg))
    except InputError as error:
        found.not_adaptive = one_line(error).partition(';')[0]
    except Exception as error:
        found.ours.append(f'building: {one_line(error)}')


def compare(found: Findings, cfg: Config, stock: nn.Module, ours: nn.Module) -> None:
    if not found.attempt(found.stock, 'backbone', enliven, stock):
        return
    before = copy.deepcopy(stock.state_dict())
    ours.load_state_dict(before)
    size = SIZES.get(found.folder, SIZE)
    train = train_batch(cfg, size)
    test = test_batch(cfg, size)
    parts = [('loss', loss, train), ('prediction', predict, test)]
    wanted = {'loss': found.attempt(found.stock, 'loss', learn, stock, train)}
    if wanted['loss'] is None:  # it was given up after norms had seen the images
        stock.load_state_dict(before)
    wanted['prediction'] = found.attempt(found.stock, 'prediction', predict, stock, test)
    found.stock += [f'{name}: not finite' for name in wanted if not finite(wanted[name])]
    parts = [part for part in parts if wanted[part[0]] is not None and finite(wanted[part[0]])]
    if not parts:
        return
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
    if all(same(results['super', name], results['base', name]) for name, _, _ in parts):
        found.ours.append('nothing depends on the depth')
    found.holds = [name for name, _, _ in parts]
    if 'loss' in found.holds:
        found.attempt(found.ours, 'self-distilled step', check_step, stock, ours, train)


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
    still = [
        name for name, _ in ours.named_parameters() if stock_name(name) in expected and name not in moved
    ]
    assert not still, f'{len(still)} parameters have no gradient: {still[:3]}'


def settings(library: str) -> dict[str, Config]:
    """Each different setting of a residual backbone in a library's zoo, as a config of the backbone alone."""
    found = {}
    for path in sorted(configs(library).rglob('*.py')):
        try:
            cfg = Config.fromfile(path)
        except (OSError, ImportError):
            continue
        for backbone in backbones(cfg.get('model')):
            if PREFERRED.search(backbone.type):
                shrink(backbone, path)
                plain = {name: value for name, value in backbone.items() if name != 'init_cfg'}
                scope = cfg.get('default_scope', library)
                alone = Config(dict(default_scope=scope, model=dict(backbone=plain)), filename=str(path))
                alone.folder = f'{library}/{path.relative_to(configs(library)).parts[0]}'
                found.setdefault(f'{library} {scope} {json.dumps(plain, sort_keys=True)}', alone)
    return found


@torch.no_grad()
def check_backbone(cfg: Config) -> Findings:
    """Compares a stock backbone alone with the adaptive one of the same settings."""
    found = Findings(cfg.folder, Path(cfg.filename).name, cfg.model.backbone.type)
    stock = found.attempt(found.stock, 'building', build_backbone, cfg)
    if stock:
        found.attempt(found.ours, 'backbone', compare_backbone, found, cfg, stock)
    return found


def build_backbone(cfg: Config) -> nn.Module:
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    return backbone


def compare_backbone(found: Findings, cfg: Config, stock: nn.Module) -> None:
    channels = cfg.model.backbone.get('in_channels', 3)
    enliven(stock, channels)
    ours = build_backbone(make_adaptive(cfg))
    ours.load_state_dict(stock.state_dict())
    image = torch.randn(1, channels, SIZE, SIZE)
    stock.eval(), ours.eval()  # returns nothing in a backbone
    wanted = found.attempt(found.stock, 'features', stock, image)
    with ours.skipping('super'):
        assert same(ours(image), wanted), 'the features differ from those of stock'
    with ours.skipping('base'), calls_of_skipped(ours) as calls:
        base = ours(image)
        assert finite(base) and not same(base, wanted) and not calls, 'the base-net is none'
    found.holds = ['features']
