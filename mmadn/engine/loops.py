import copy

import torch
from mmengine.runner import TestLoop, ValLoop
from mmengine.runner.amp import autocast

from ..depth import adaptive_backbone
from ..registry import LOOPS
from .prefixes import predicting


class SubnetEvaluator:
    """One evaluator for each sub-network; their metrics are named `TTTT/accuracy/top1`."""

    def __init__(self, evaluator, skips):
        self.evaluators = {skip: copy.deepcopy(evaluator) for skip in skips}

    def evaluate(self, size: int) -> dict:
        return {
            f'{skip}/{name}': value
            for skip, evaluator in self.evaluators.items()
            for name, value in evaluator.evaluate(size).items()
        }


class _SubnetLoop:
    def __init__(self, runner, dataloader, evaluator, skips=('super', 'base'), fp16=False):
        super().__init__(runner, dataloader, evaluator, fp16)
        backbone = adaptive_backbone(runner.model)
        skips = [skips] if isinstance(skips, str) and skips != 'all' else skips
        names = backbone.subnets() if skips == 'all' else map(backbone.parse_skip, skips)
        self.evaluator = SubnetEvaluator(self.evaluator, dict.fromkeys(names))

    @torch.no_grad()
    def run_iter(self, idx, data_batch):
        """Runs one batch at every depth; the hooks see the batch once, with the outputs of the last one."""
        runner, mode, evaluators = self.runner, self.mode, self.evaluator.evaluators
        backbone = adaptive_backbone(runner.model)
        runner.call_hook(f'before_{mode}_iter', batch_idx=idx, data_batch=data_batch)
        with predicting(runner.model, data_batch, mode) as predict:
            for skip in sorted(evaluators):  # neighbours share most
                with backbone.skipping(skip), autocast(enabled=self.fp16):
                    outputs = predict()
                evaluators[skip].process(data_samples=outputs, data_batch=data_batch)
                if skip == list(evaluators)[-1]:
                    last = outputs
        runner.call_hook(f'after_{mode}_iter', batch_idx=idx, data_batch=data_batch, outputs=last)


@LOOPS.register_module()
class SubnetValLoop(_SubnetLoop, ValLoop):
    """Validates several sub-networks in one pass over the data.

    Metrics carry the sub-network's name, as in `save_best='TTTT/accuracy/top1'`.

    Args:
        runner, dataloader, evaluator, fp16: As in mmengine's ValLoop.
        skips (Sequence[str] | str): Which depth or depths, see `set_skip`; 'all' for all 2^n.
            By default the super-net and the base-net.

    Raises:
        TypeError: The model has no adaptive-depth backbone.
        ValueError: A skip does not fit the backbone.
    """

    mode = 'val'


@LOOPS.register_module()
class SubnetTestLoop(_SubnetLoop, TestLoop):
    """Tests several sub-networks in one pass over the data; see SubnetValLoop."""

    mode = 'test'
