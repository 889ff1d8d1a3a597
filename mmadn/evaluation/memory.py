import weakref
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def peak_memory(run: Callable[[], object], device='cpu') -> int:
    """By how many bytes of tensors `run()` exceeds, at its peak, what was there before.

    On CUDA these are the bytes of torch's allocator. On a CPU they are the storages that operators
    return, each from then on until it is freed, whoever holds it (autograd too); what a kernel
    takes and gives back within one operator is not in it. Either is exact and repeatable, which
    the resident memory of a process is not.
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveStorages() as live:
        run()
    return live.peak


class _LiveStorages(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.sizes, self.total, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        older = {s.data_ptr() for s in _storages((args, kwargs))}  # of views and in-place operators
        for storage in _storages(result):
            address = storage.data_ptr()
            if address not in older and address not in self.sizes:
                self.sizes[address] = storage.nbytes()
                self.total += storage.nbytes()
                self.peak = max(self.peak, self.total)
                weakref.finalize(storage, self._freed, address)
        return result

    def _freed(self, address):
        self.total -= self.sizes.pop(address)


def _storages(tree):
    return [x.untyped_storage() for x in tree_iter(tree) if isinstance(x, torch.Tensor)]
