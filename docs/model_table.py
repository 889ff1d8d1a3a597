"""The table of models, out of the metafiles."""

from pathlib import Path

import yaml

CONFIGS = Path(__file__).parents[1] / 'configs'
HEAD = ['config', 'GFLOPs', 'in use (M)', "paper's top-1 %", 'in between', 'weights']


def model_table() -> str:
    """A Markdown table with a row for each model of `configs/*/metafile.yml`."""
    models = [
        model
        for path in sorted(CONFIGS.glob('*/metafile.yml'))
        for model in yaml.safe_load(path.read_text()).get('Models', [])
    ]
    lines = [HEAD, ['---', '---:', '---:', '---:', '---', '---'], *map(_row, models)]
    if not any(model.get('Weights') for model in models):
        lines = [line[:-1] for line in lines]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _row(model: dict) -> list[str]:
    """Its cells; of two numbers, the whole network's and the base's."""
    costs = [cost for _, cost in sorted(model['Metadata']['Depths'].items())]
    scores = {result['Depth']: result['Metrics']['Top 1 Accuracy'] for result in model.get('Results') or []}
    ends = [score for skip, score in sorted(scores.items()) if len(set(skip)) == 1]
    between = [f'{skip} {score:.1f}' for skip, score in sorted(scores.items()) if len(set(skip)) > 1]
    address = model.get('Weights')
    return [
        f'`{model["Config"].removeprefix("configs/")}`',
        ' / '.join(f'{cost["FLOPs"] / 1e9:#.3g}' for cost in costs),
        ' / '.join(f'{cost["Parameters"] / 1e6:.2f}' for cost in costs),
        ' / '.join(f'{score:.1f}' for score in ends),
        ', '.join(between),
        f'[file]({address})' if address else '',
    ]
