"""What an import must leave as it was."""

import pkgutil

import pytest
from conftest import run

from mmadn import evaluation

MODULES = ', '.join(f'mmadn.evaluation.{module.name}' for module in pkgutil.iter_modules(evaluation.__path__))


@pytest.mark.parametrize(
    'statement',
    [f'import {MODULES}', 'from mmadn.deploy import select', 'sys.path.append("tools"); import draw_depths'],
    ids=['evaluation', 'deploy', 'tool'],
)
def test_the_backend_of_matplotlib_stays_the_users(statement):
    # mmpretrain imports pyplot itself; what counts is that the backend stays the one that the user chose.
    before, after = (
        'import sys, matplotlib; matplotlib.use("svg")',
        'assert matplotlib.get_backend() == "svg"',
    )
    run('-c', f'{before}; {statement}; {after}')
