import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner import Runner, TestLoop, ValLoop
from mmengine.runner.amp import autocast

from ..depth import depth_of, unwrap
from ..errors import InputError
from ..registry import LOOPS
from .shared_prefixes import predicting


class SubnetEvaluator:
    """One evaluator for each sub-network; their metrics are named `TTTT/accuracy/top1`.

    Each depth works with its own copies of `metrics`. They are made when the first batch comes, so that a
    metric may be added until then, as OpenMMLab's own `tools/test.py --out` does. Where there are several
    depths, each writes to files of its own: `results.pkl` becomes `results.TTTT.pkl`, and an
    `outfile_prefix` such as `work_dirs/coco` becomes `work_dirs/coco.TTTT`.

    Args:
        evaluator (Evaluator): What one depth alone would be evaluated with.
        skips (Iterable[str]): The depths.
    """

    def __init__(self, evaluator: Evaluator, skips: Iterable[str]):
        self.evaluator, self.skips = evaluator, list(skips)
        self._copied_metrics = None

    @property
    def metrics(self) -> list[BaseMetric]:
        return self.evaluator.metrics

    @property
    def evaluators(self) -> dict[str, Evaluator]:
        """The evaluator of each depth."""
        if self._copied_metrics != self.metrics:  # at the first batch, or after a metric was added
            self._copied_metrics = list(self.metrics)
            self._evaluators = {skip: _copy(self.evaluator) for skip in self.skips}
            for skip, evaluator in self._evaluators.items() if len(self.skips) > 1 else ():
                for metric in evaluator.metrics:
                    _write_elsewhere(metric, skip)
        return self._evaluators

    def evaluate(self, size: int) -> dict:
        return {
            f'{skip}/{name}': value
            for skip, evaluator in self.evaluators.items()
            for name, value in evaluator.evaluate(size).items()
        }


def _copy(evaluator: Evaluator) -> Evaluator:
    """A deep copy that shares parsed annotations, of COCO, LVIS or panoptic segmentation.

    Metrics only read them, and of COCO's validation set each copy takes 36 MB and seconds.
    """
    values = [value for metric in evaluator.metrics for value in vars(metric).values()]
    annotations = {id(value): value for value in values if hasattr(value, 'anns')}
    return copy.deepcopy(evaluator, annotations)


def _write_elsewhere(metric: BaseMetric, skip: str) -> None:
    """Inserts the depth into the names of the files that a metric writes."""
    if getattr(metric, 'out_file_path', None):  # mmengine's DumpResults and those built on it
        path = Path(metric.out_file_path)
        metric.out_file_path = str(path.with_suffix(f'.{skip}{path.suffix}'))
    if getattr(metric, 'outfile_prefix', None):  # mmdet's metrics
        former = Path(metric.outfile_prefix)
        metric.outfile_prefix += f'.{skip}'
        if former.is_dir():  # Cityscapes' metric has made a folder of it
            Path(metric.outfile_prefix).mkdir(exist_ok=True)


class _SubnetLoop:
    def __init__(self, runner, dataloader, evaluator, skips=('super', 'base'), fp16=False):
        super().__init__(runner, dataloader, evaluator, fp16)
        depth = depth_of(runner.model)
        skips = [skips] if isinstance(skips, str) and skips != 'all' else skips
        names = depth.subnets() if skips == 'all' else map(depth.parse_skip, skips)
        self.evaluator = SubnetEvaluator(self.evaluator, dict.fromkeys(names))
        if hasattr(unwrap(runner.model), 'tracker') and len(self.evaluator.skips) > 1:
            raise InputError(
                f'skips={skips!r}: a tracker remembers the frames before, so test it at one depth at a time'
            )
        if self.mode == 'val':
            _check_save_best(runner, self.evaluator.skips)

    @torch.no_grad()
    def run_iter(self, idx, data_batch):
        """Runs one batch at every depth; the hooks see the batch once, with the outputs of the last one."""
        runner, mode, evaluators = self.runner, self.mode, self.evaluator.evaluators
        depth = depth_of(runner.model)
        runner.call_hook(f'before_{mode}_iter', batch_idx=idx, data_batch=data_batch)
        with predicting(runner.model, data_batch, mode) as predict:
            for skip in sorted(evaluators):  # neighbours share most
                with depth.skipping(skip), autocast(enabled=self.fp16):
                    outputs = predict()
                evaluators[skip].process(data_samples=outputs, data_batch=data_batch)
                if skip == list(evaluators)[-1]:
                    last = outputs
        runner.call_hook(f'after_{mode}_iter', batch_idx=idx, data_batch=data_batch, outputs=last)


def _check_save_best(runner: Runner, skips: list[str]) -> None:
    """Refuses before the training what would fail after the first validation."""
    for hook in runner.hooks:
        rules = getattr(hook, 'save_best', None) or []
        for rule in [rules] if isinstance(rules, str) else rules:
            depth, _, metric = rule.partition('/')
            if metric and set(depth) <= set('TF') and depth not in skips:
                raise InputError(
                    f'save_best={rule!r}: validated are the depths {", ".join(skips)}; give '
                    f"default_hooks.checkpoint.save_best='{skips[-1]}/{metric}'"
                )


@LOOPS.register_module()
class SubnetValLoop(_SubnetLoop, ValLoop):
    """Validates several sub-networks in one pass over the data.

    Metrics carry the sub-network's name, as in `save_best='TTTT/accuracy/top1'`, and so do the files that
    they write if there are several depths: `results.TTTT.pkl`, see SubnetEvaluator.

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
