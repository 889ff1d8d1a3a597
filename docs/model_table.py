"""The table of models, out of the metafiles."""

from pathlib import Path

import yaml

CONFIGS = Path(__file__).parents[1] / 'configs'
HEAD = ['config', 'depth', 'GFLOPs', 'parameters in use (M)', "paper's top-1 %", 'epochs', 'weights']


def model_table() -> str:
    """A Markdown table with a row for each model and depth of `configs/*/metafile.yml`."""
    models = [
        model
        for path in sorted(CONFIGS.glob('*/metafile.yml'))
        for model in yaml.safe_load(path.read_text()).get('Models', [])
    ]
    lines = [HEAD, ['---'] * 2 + ['---:'] * 4 + ['---'], *(row for model in models for row in _rows(model))]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _rows(model: dict) -> list[list[str]]:
    costs = model['Metadata']['Depths']
    scores = {result['Depth']: result['Metrics']['Top 1 Accuracy'] for result in model.get('Results') or []}
    address = model.get('Weights')
    rows = []
    for skip in sorted({*costs, *scores}):
        cost, score = costs.get(skip), scores.get(skip)
        numbers = [f'{cost["FLOPs"] / 1e9:#.3g}', f'{cost["Parameters"] / 1e6:.2f}'] if cost else ['', '']
        rows.append([f'`{skip}`', *numbers, f'{score:.1f}' if score else ''])
    first = [
        f'`{model["Config"]}`',
        [str(model['Metadata']['Epochs']), f'[file]({address})' if address else ''],
    ]
    return [
        [first[0] if not i else '', *row, *(first[1] if not i else ['', ''])] for i, row in enumerate(rows)
    ]
