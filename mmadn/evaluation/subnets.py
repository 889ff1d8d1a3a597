"""Evaluation of all sub-networks of one checkpoint: a table, a JSON file and a picture."""

import math
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.amp import autocast

from ..checkpoint.files import load_weights
from ..datasets.checks import check_loops
from ..depth import SwitchableDepth, depth_of, unwrap
from ..engine.quiet import quiet_runner
from ..errors import InputError
from ..utils.report import (
    draw_front,
    drawing,
    flops_unit,
    legend_above,
    machine,
    markdown_table,
    replacing,
    write_json,
)
from .flops import complexity
from .table import as_text, axis_label, metrics_of
from .timing import interleaved


def evaluate_subnets(cfg: Config, checkpoint: str, skips='all') -> list[dict]:
    """Tests sub-networks of one checkpoint in one pass over the test data.

    An ordinary network is tested too, at the one depth it has; its `skip` is then empty.

    Args:
        cfg (Config): A config of a classifier, detector or segmentor, with test data.
        checkpoint (str): Path of the weights; or of an ONNX file, which then predicts in place of the model.
        skips (Sequence[str] | str): Which depths, see `set_skip`; 'all' for all 2^n.

    Returns:
        list[dict]: For each depth `skip`, `gflops` and `params` (see `complexity`), `latency_ms` (see
        `latencies`), each for the first test image at its size, and the metrics under their own names.
    """
    cfg = cfg.copy()
    file = _exported_file(checkpoint)
    skips = file.depths(skips) if file else skips
    adaptive = skips != 'all' or is_adaptive(cfg)
    cfg.test_cfg = subnet_test_cfg(cfg, skips) if adaptive else dict(fp16=_uses_fp16(cfg))
    runner = quiet_runner(cfg)
    model = unwrap(runner.model)
    if file:
        file.check(model)
    check_loops(runner, ['test'])
    if not file:
        load_weights(runner, checkpoint)
    with file.predicting(model) if file else nullcontext():
        metrics = runner.test()
        if not metrics:
            raise InputError('the test_evaluator gave no metrics; give one that does, such as Accuracy')
        if not adaptive:
            metrics = {f'/{name}': value for name, value in metrics.items()}
        data = pseudo_collate([runner.test_dataloader.dataset[0]])
        names = list(dict.fromkeys(name.split('/', 1)[0] for name in metrics))
        latency = latencies(model, data, names, fp16=_uses_fp16(cfg))
    inputs = model.data_preprocessor(data, False)['inputs']
    rows = []
    for skip in names:
        with _at(model, skip):
            cost = complexity(model, inputs)
        scores = {k.split('/', 1)[1]: _plain(v) for k, v in metrics.items() if k.startswith(f'{skip}/')}
        rows.append({'skip': skip, **cost, 'latency_ms': latency[skip], **scores})
    return rows


def _exported_file(path):
    if not str(path).endswith('.onnx'):
        return None
    from ..deploy.onnx.testing import ExportedFile  # needs onnxruntime

    return ExportedFile(path)


def _plain(value):
    """A number of numpy, as mmseg's metrics give, as Python's, which JSON can hold."""
    return float(str(value)) if isinstance(value, np.floating) else value


def subnet_test_cfg(cfg: Config, skips) -> dict:
    """The `test_cfg` that tests a config's model at these depths, in the precision that it is tested in."""
    return dict(type='mmadn.SubnetTestLoop', skips=skips, fp16=_uses_fp16(cfg))


def _uses_fp16(cfg: Config) -> bool:
    """Whether a config tests with autocast."""
    return (cfg.get('test_cfg') or {}).get('fp16', False)


def is_adaptive(cfg: Config) -> bool:
    """Whether the model of a config, or a backbone in it, has an adaptive depth."""
    init_default_scope(cfg.get('default_scope'))
    with MODELS.switch_scope_and_registry(None) as registry:
        types = (each.type for each in [cfg.model, *_backbones(cfg.model)] if 'type' in each)
        return any(issubclass(registry.get(each), SwitchableDepth) for each in types)


def _backbones(cfg):
    for key, value in cfg.items():
        if isinstance(value, dict):
            yield from [value] if key == 'backbone' else _backbones(value)


def _at(model, skip):
    return depth_of(model).skipping(skip) if skip else nullcontext()


def latencies(model, data, skips, rounds=5, fp16=False) -> dict:
    """How long the model takes for a batch from data to predictions, at each depth.

    Args:
        model (BaseModel): A classifier or detector in eval mode.
        data (dict): A batch as a data loader gives it.
        skips (Sequence[str]): The depths; an empty one leaves the model as it is.
        rounds (int): How often each runs, in random order; two more rounds come first.
        fp16 (bool): Whether with autocast, as in mmengine's TestLoop.

    Returns:
        dict[str, float]: The median of each depth in milliseconds. Few rounds on a machine that does
        other work give a rough figure; `tools/profile_subnets.py` measures until it is steady.
    """

    def run(skip):
        with _at(model, skip), torch.no_grad(), autocast(enabled=fp16):  # as the test loop does
            model.test_step(data)

    steps = {skip: (lambda: None, partial(run, skip)) for skip in skips}
    times, _ = interleaved(steps, next(model.parameters()).device, spread=math.inf, min_rounds=rounds)
    return {skip: median(values) for skip, values in times.items()}


def table(rows: list[dict]) -> list[dict]:
    """The rows as text, with a mark on the Pareto front of the first metric over GFLOPs."""
    return as_text(rows, 'gflops')


def plot(rows: list[dict], path) -> None:
    """Draws the first metric over GFLOPs with the Pareto front, as a PNG."""
    metric = metrics_of(rows)[0]
    scale, unit = flops_unit(row['gflops'] for row in rows)
    with drawing(path, (7, 4.5)) as (_, axes):
        axes = axes.item()
        draw_front(axes, rows, 'gflops', metric, scale)
        axes.set(xlabel=f'{unit} (multiply-adds)', ylabel=axis_label(metric))
        legend_above(axes)


def write_report(rows: list[dict], out, **about) -> None:
    """Writes `subnets.json`, `subnets.md` and `subnets.png` into the folder `out`.

    Args:
        rows (list[dict]): From `evaluate_subnets`.
        **about: What else the JSON file records, such as the config and the checkpoint.
    """
    out = Path(out)
    write_json(out / 'subnets.json', {**about, 'machine': machine(), 'subnets': rows})
    with replacing(out / 'subnets.md') as path:
        Path(path).write_text(markdown_table(table(rows)) + '\n')
    plot(rows, out / 'subnets.png')
