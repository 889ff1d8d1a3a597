"""Imports of OpenMMLab's libraries without what they say at each start of packages that are optional."""

import io
import sys
import warnings
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec

OPTIONAL = 'Could not import OneDL'  # how the OneDL line begins to print of its data sets


def import_quietly(library: str | None) -> None:
    """Imports data sets and metrics of a library, the default scope of a config."""
    if library not in ('mmdet', 'mmpretrain', 'mmrotate', 'mmseg') or find_spec(library) is None:
        return
    with redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
        warnings.filterwarnings('ignore', '.* is not installed', UserWarning)
        for module in ('datasets', 'evaluation'):
            import_module(f'{library}.{module}')
    lines = printed.getvalue().splitlines(keepends=True)
    sys.stdout.write(''.join(line for line in lines if not line.startswith(OPTIONAL)))


import_quietly('mmpretrain')
