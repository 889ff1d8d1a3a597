"""What the hooks share that stand in for a model's `train_step`."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..depth import AdaptiveDepth, unwrap
from ..errors import InputError, NotAdaptiveError
from .shared_prefixes import replaced_forward


class TrainStepHook(Hook):
    """Stands in for the model's `train_step` while training runs."""

    def before_train(self, runner: Runner) -> None:
        self._check_run(runner)
        self.prepare(runner)
        runner.model.train_step = partial(self.train_step, runner.model)

    def after_train(self, runner: Runner) -> None:
        del runner.model.train_step  # the method of its class shows again

    def prepare(self, runner: Runner) -> None:
        """Fails now for what would fail in the first iteration."""

    def train_step(self, model: nn.Module, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """One iteration, called as `model.train_step(data, optim_wrapper)` is; returns what is logged."""
        raise NotImplementedError

    def _check_run(self, runner: Runner) -> None:
        """Refuses the settings of a run that this hook cannot honour.

        Raises:
            TypeError: The model has a wrapper that shards it.
            ValueError: Another setting does not go together with this hook.
        """
        name, model = type(self).__name__, runner.model
        distributed = isinstance(model, DistributedDataParallel)
        if is_model_wrapper(model) and not distributed:
            raise NotAdaptiveError(
                f'{name} cannot drive {type(model).__name__}, which moves parameters within '
                'an iteration; train without a wrapper or with '
                "model_wrapper_cfg=dict(type='MMDistributedDataParallel')"
            )
        for option in ('find_unused_parameters', 'static_graph') if distributed else ():
            if getattr(model, option):
                raise InputError(
                    f'{option}=True: {name} takes care of unused parameters itself; remove {option} from the '
                    'config, at its top level or in model_wrapper_cfg'
                )
        if 'train_step' in vars(model):
            raise InputError(
                f'{name} takes the place of train_step, which "compile" in the config or another hook of '
                'this kind has replaced already; remove "compile" or the other hook from the config'
            )
        traced = runner.cfg.get('efficient_conv_bn_eval') or ()
        modules = unwrap(model).named_modules()
        adaptive = [f'{path}.' for path, module in modules if isinstance(module, AdaptiveDepth)]
        for path in [traced] if isinstance(traced, str) else traced:
            if any(f'{path}.'.startswith(each) or each.startswith(f'{path}.') for each in adaptive):
                raise InputError(
                    f'efficient_conv_bn_eval={traced!r} traces the backbone at one depth, and {name} changes '
                    'the depth; remove it from the config'
                )


@contextmanager
def record(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, list]]:
    """Collects in a dict what the modules of these names return during a `with` block, run by run.

    By their `forward` and not by a hook, because mmseg's heads call that themselves.
    """
    outputs = {name: [] for name in names}

    def noting(runs: list, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        runs.append(forward(*args, **kwargs))
        return runs[-1]

    with ExitStack() as stack:
        for name, runs in outputs.items():
            stack.enter_context(replaced_forward(model.get_submodule(name), partial(noting, runs)))
        yield outputs
