"""What an import must leave as it was."""

import pkgutil
import subprocess
import sys

from conftest import ROOT

from mmadn import evaluation

MODULES = ', '.join(f'mmadn.evaluation.{module.name}' for module in pkgutil.iter_modules(evaluation.__path__))

# mmpretrain imports pyplot itself; what counts is that the backend stays the one that the user chose.
SCRIPT = f"""
import matplotlib, sys
matplotlib.use('svg')
import {MODULES}
assert matplotlib.get_backend() == 'svg', 'evaluation'
from mmadn.deploy import select
assert matplotlib.get_backend() == 'svg', 'deploy'
sys.path.append('tools')
import draw_depths
assert matplotlib.get_backend() == 'svg', 'a tool'
"""


def test_the_backend_of_matplotlib_stays_the_users():
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
