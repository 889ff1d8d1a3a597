from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from .depth import adaptive_backbone, unwrap
from .distillation import feature_divergence, kl_divergence, touch
from .registry import HOOKS


@HOOKS.register_module()
class SelfDistillationHook(Hook):
    """Trains a stock classifier with an adaptive-depth backbone by self-distillation (Algorithm 1).

    Each iteration is two passes over the same batch and one optimizer step. The super-net learns from
    the labels, `alpha * L(super)`; then the base-net learns from the super-net and sees no labels,
    `(1 - alpha) * KL(super || base)`. Each pass runs its own backward, so that the peak memory is that
    of one pass. While training runs, the hook stands in for the model's `train_step`.

    Logged are `loss_super` and `loss_distill` with these weights, their sum `loss`, and what the head
    reports of the super-net (accuracy).

    Args:
        alpha (float): Weight of the super-net's loss, between 0 and 1.
        temperature (float): Temperature of the KL terms, above 0.
        topk (int, optional): Only this many of the teacher's largest logits enter; None takes all.
        features (Sequence[str]): Modules whose outputs are distilled too, such as
            `('backbone.layer3', 'backbone.layer4')`: feature maps, averaged over their positions.

    Raises:
        ValueError: An argument is out of its range, or `features` names a module the model lacks.
        TypeError: The model has no adaptive-depth backbone, or a wrapper that shards it.
    """

    def __init__(self, alpha=0.5, temperature=1.0, topk=500, features=()):
        if not 0 < alpha < 1:
            raise ValueError(f'alpha={alpha!r}: give a number between 0 and 1, without both')
        if not temperature > 0:
            raise ValueError(f'temperature={temperature!r}: give a number above 0')
        if topk is not None and not topk >= 1:
            raise ValueError(f'topk={topk!r}: give a number of logits from 1 on, or None for all')
        if isinstance(features, str):
            raise ValueError(f'features={features!r}: give a list of module names')
        self.alpha = alpha
        self.temperature = temperature
        self.topk = topk
        self.features = tuple(features)

    def before_train(self, runner):
        model = runner.model
        if is_model_wrapper(model) and not isinstance(model, DistributedDataParallel):
            raise TypeError(
                f'SelfDistillationHook cannot drive {type(model).__name__}, which moves parameters '
                'between the two passes of an iteration; train without a wrapper or with '
                "model_wrapper_cfg=dict(type='MMDistributedDataParallel')"
            )
        adaptive_backbone(model)
        self._distilled(model)  # fails now and not in the first iteration
        model.train_step = partial(self.train_step, model)

    def after_train(self, runner):
        del runner.model.train_step  # the method of its class shows again

    def train_step(self, model, data, optim_wrapper):
        """One iteration of Algorithm 1, called as `model.train_step(data, optim_wrapper)` is."""
        backbone, distilled = adaptive_backbone(model), self._distilled(model)
        with optim_wrapper.optim_context(model):
            data = unwrap(model).data_preprocessor(data, True)

        # A pass stays at its depth until its backward is done: with_cp runs the forward again there.
        with backbone.skipping('super'), _no_sync(model):
            with optim_wrapper.optim_context(model), record(distilled) as teacher:
                losses = model._run_forward(data, mode='loss')
            loss, logs = unwrap(model).parse_losses(losses)
            loss_super = self.alpha * loss
            optim_wrapper.backward(optim_wrapper.scale_loss(loss_super))
            optim_wrapper._inner_count -= 1  # it counts iterations, and this one goes on

        with backbone.skipping('base'):
            with optim_wrapper.optim_context(model), record(distilled) as student:
                model._run_forward(data, mode='tensor')
                loss_distill = (1 - self.alpha) * self.divergence(student, teacher)
            loss = loss_distill
            if isinstance(model, DistributedDataParallel):
                loss = touch(loss, [p for p in backbone.idle_parameters() if p.requires_grad])
            optim_wrapper.update_params(loss)

        loss_super, loss_distill = loss_super.detach(), loss_distill.detach()
        return {
            'loss': loss_super + loss_distill,
            'loss_super': loss_super,
            'loss_distill': loss_distill,
            **{name: value for name, value in logs.items() if 'loss' not in name},
        }

    def divergence(self, student: dict, teacher: dict) -> Tensor:
        """The sum of all KL terms, from the recorded outputs of the two passes."""
        logits = kl_divergence(student['head'], teacher['head'], self.temperature, self.topk)
        return logits + sum(
            feature_divergence(student[name], teacher[name], self.temperature) for name in self.features
        )

    def _distilled(self, model) -> dict:
        modules = dict(unwrap(model).named_modules())
        for name in ('head', *self.features):
            if name not in modules:
                stages = [f'backbone.{n}' for n, _ in adaptive_backbone(model).named_children()]
                raise ValueError(
                    f'there is no module {name!r} to distil in {type(unwrap(model)).__name__}; give names '
                    f'from named_modules(), such as {", ".join(stages)}'
                )
        return {name: modules[name] for name in ('head', *self.features)}


@contextmanager
def record(modules: dict):
    """Collects in a dict, under the same names, what `modules` return during a `with` block."""
    outputs = {}
    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(
                lambda module, args, output, name=name: outputs.__setitem__(name, output)
            )
            stack.callback(handle.remove)
        yield outputs


def _no_sync(model):
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
