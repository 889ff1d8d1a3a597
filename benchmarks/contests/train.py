import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmpretrain.structures import DataSample
from torch.utils._pytree import tree_iter

from mmadn.engine.self_distillation import SelfDistillationHook
from mmadn.errors import InputError
from mmadn.evaluation.memory import peak_memory

from ..networks import CLASSES, classifiers
from ..protocol import Contestant, Ratio, Settings, compete, contest, with_target
from .inference import STOCK

MIB = 2**20


@contest('training step', rounds=20, batch=8, takes=('dtype', 'channels_last'))
def train(settings: Settings) -> dict:
    """Time and peak memory of a training step: both stock networks and self-distillation.

    All take the same batch of bytes through mmpretrain's preprocessor, and SGD with momentum in mmengine's
    OptimWrapper, or in float16 its AmpOptimWrapper. The first steps, which make the optimizer's state, are
    not counted. Memory is that of weights, buffers and optimizer state, plus `peak_memory` of a step.

    Returns:
        As from `inference`, with `memory_mib` in addition.

    Raises:
        ValueError: A batch norm of the last stage would see a single value a channel, or the dtype is float16
            without a GPU.
    """
    batch, shape, device = settings.batch, settings.shape, settings.device
    if batch * math.prod(math.ceil(side / 32) for side in shape[1:]) < 2:
        raise InputError(
            f'batch={batch} at shape={tuple(shape)}: the last norms would see one value a channel; '
            'give a larger batch, or more than 32 pixels a side'
        )
    images = torch.randint(256, (batch, *shape), dtype=torch.uint8, device=device)
    labels = torch.randint(CLASSES, (batch,)).tolist()
    data = dict(
        inputs=images.to(memory_format=settings.memory_format),
        data_samples=[DataSample().set_gt_label(label) for label in labels],
    )
    hook = SelfDistillationHook()
    contestants, held = [], {}
    kinds = {'stock': STOCK, 'stock-base': STOCK, 'self-distilled': 'adaptive depth'}
    nets = classifiers(settings.arch, device, memory_format=settings.memory_format)
    for (name, kind), net in zip(kinds.items(), nets.values(), strict=True):
        net.train()
        sgd = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
        step = partial(hook.train_step, net) if name == 'self-distilled' else net.train_step
        wrapper = optim_wrapper(sgd, device, settings.dtype)
        contestants.append(Contestant(name, partial(step, data, wrapper), kind=kind))
        held[name] = partial(bytes_held, net, sgd)
    out = compete('train', settings, contestants, [Ratio('self-distilled', ('stock', 'stock-base'), 1.03)])
    memory = {c.name: (held[c.name]() + peak_memory(c.run, device)) / MIB for c in contestants}
    out['memory_mib'] = memory
    value = memory['self-distilled'] / memory['stock']
    out['ratios']['memory, self-distilled / stock'] = with_target([value], 1.05)
    return out


class AutocastWrapper(OptimWrapper):
    """Forward passes in bfloat16, which needs no scaled gradients and so runs without a GPU too."""

    def __init__(self, optimizer: torch.optim.Optimizer, device: str):
        super().__init__(optimizer)
        self.device = torch.device(device).type

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast(self.device, torch.bfloat16):
            yield


def optim_wrapper(
    optimizer: torch.optim.Optimizer, device: str, dtype: str, loss_scale: str | dict = 'dynamic'
) -> OptimWrapper:
    """What trains in `dtype` on `device`; raises ValueError for float16 without a GPU."""
    if dtype == 'float32':
        return OptimWrapper(optimizer)
    if dtype == 'bfloat16':
        return AutocastWrapper(optimizer, device)
    if device == 'cpu':
        raise InputError("dtype='float16': training in it scales gradients on a GPU alone; give bfloat16")
    return AmpOptimWrapper(optimizer=optimizer, dtype=dtype, loss_scale=loss_scale)


def bytes_held(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of parameters, buffers and optimizer state: what a step finds and leaves."""
    state = [x for x in tree_iter(optimizer.state_dict()['state']) if isinstance(x, torch.Tensor)]
    return sum(x.nbytes for x in (*net.parameters(), *net.buffers(), *state))
