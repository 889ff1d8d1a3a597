"""Evaluation of all sub-networks of one checkpoint: a table, a JSON file and a picture."""

from pathlib import Path

import matplotlib
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from .depth import adaptive_backbone, unwrap
from .flops import complexity
from .report import machine, markdown_table, replacing, write_json

matplotlib.use('Agg')
from matplotlib import pyplot  # noqa: E402


def quiet_runner(cfg: Config) -> Runner:
    """A Runner that logs its progress, without mmengine's pages on the environment and the config."""
    runner = Runner.from_cfg(Config({**cfg, 'log_level': 'WARNING'}))
    for each in (runner.logger, *runner.logger.handlers):
        each.setLevel('INFO')
    return runner


def evaluate_subnets(cfg: Config, checkpoint: str, skips='all') -> list[dict]:
    """Tests sub-networks of one checkpoint in one pass over the test data.

    Args:
        cfg (Config): A config with an adaptive-depth backbone and test data.
        checkpoint (str): Path of the weights.
        skips (Sequence[str] | str): Which depths, see `set_skip`; 'all' for all 2^n.

    Returns:
        list[dict]: For each depth `skip`, `gflops` and `params` (see `complexity`; at the size of the
        first test image) and the metrics under their own names.
    """
    cfg = cfg.copy()
    cfg.load_from = str(checkpoint)
    cfg.test_cfg = dict(type='mmadn.SubnetTestLoop', skips=skips)
    runner = quiet_runner(cfg)
    metrics = runner.test()

    model = unwrap(runner.model)
    data = pseudo_collate([runner.test_dataloader.dataset[0]])
    inputs = model.data_preprocessor(data, False)['inputs']
    rows = []
    for skip in dict.fromkeys(name.split('/', 1)[0] for name in metrics):
        with adaptive_backbone(model).skipping(skip):
            cost = complexity(model, inputs)
        scores = {k.split('/', 1)[1]: v for k, v in metrics.items() if k.startswith(f'{skip}/')}
        rows.append({'skip': skip, **cost, **scores})
    return rows


def pareto_front(rows: list[dict], metric: str) -> list[dict]:
    """The rows that no other one beats: none is better at the same or fewer GFLOPs."""
    front = []
    for row in sorted(rows, key=lambda r: (r['gflops'], -r[metric])):
        if not front or row[metric] > front[-1][metric]:
            front.append(row)
    return front


def metric_of(rows: list[dict]) -> str:
    """The metric a table is ranked by: the first one of the evaluator."""
    return next(name for name in rows[0] if name not in ('skip', 'gflops', 'params'))


def table(rows: list[dict]) -> list[dict]:
    """The rows as text, fewest GFLOPs last, with a mark on the Pareto front."""
    best = [row['skip'] for row in pareto_front(rows, metric_of(rows))]
    return [
        {
            'skip': row['skip'],
            'GFLOPs': f'{row["gflops"]:#.3g}',
            'params in use (M)': f'{row["params"]:.2f}',
            **{k: f'{v:.2f}' for k, v in row.items() if k not in ('skip', 'gflops', 'params')},
            'Pareto': '*' if row['skip'] in best else '',
        }
        for row in sorted(rows, key=lambda r: -r['gflops'])
    ]


def plot(rows: list[dict], path) -> None:
    """Draws the metric over GFLOPs with the Pareto front, as a PNG."""
    metric = metric_of(rows)
    front = pareto_front(rows, metric)
    most = max(row['gflops'] for row in rows)
    scale, unit = (1, 'GFLOPs') if most >= 0.1 else (1e3, 'MFLOPs')
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout='constrained')
    for group, style in (
        (rows, dict(marker='o', ls='', color='#999999', label='sub-network')),
        (front, dict(marker='o', ls='-', color='#0072B2', label='Pareto front')),
    ):
        axes.plot([r['gflops'] * scale for r in group], [r[metric] for r in group], **style)
    ends = [min(rows, key=lambda r: r['gflops']), max(rows, key=lambda r: r['gflops'])]
    for row in {r['skip']: r for r in [*front, *ends]}.values():
        axes.annotate(
            row['skip'],
            (row['gflops'] * scale, row[metric]),
            xytext=(0, 7),
            textcoords='offset points',
            ha='center',
            fontsize=9,
        )
    axes.margins(0.08, 0.15)
    # mmpretrain's accuracies are percentages; COCO's average precision is not.
    axes.set(
        title='Sub-networks of one model',
        xlabel=f'{unit} (multiply-adds)',
        ylabel=f'{metric} (%)' if metric.startswith('accuracy') else metric,
    )
    axes.grid(alpha=0.3)
    axes.legend(loc='lower right')
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format='png')
    pyplot.close(figure)


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
