import importlib.util
import json
from pathlib import Path

import pytest
import torch

import mmadn  # noqa: F401  first, for torchvision

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT.parent / 'shared' / 'reference'


@pytest.fixture(autouse=True)
def _deterministic():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def reference():
    """Loads golden data of the published networks: `reference(name)`, with `.fill` for the weights."""
    if not REFERENCE.is_dir():
        pytest.skip(f'no golden data of the published networks: {REFERENCE.name}/ is not beside the project')
    spec = importlib.util.spec_from_file_location('fill', REFERENCE / 'fill.py')
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)

    def load(name):
        return json.loads((REFERENCE / f'{name}.json').read_text())

    load.fill = fill
    return load
