"""Imports of OpenMMLab's libraries without what the OneDL line prints at each start."""

import io
import sys
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec


def import_quietly(library: str | None) -> None:
    """Imports a library of data sets, the default scope of a config, without a remark on missing OneDL."""
    name = f'{library}.datasets'
    if library not in ('mmdet', 'mmpretrain') or name in sys.modules or find_spec(library) is None:
        return
    with redirect_stdout(io.StringIO()) as printed:
        import_module(name)
    lines = printed.getvalue().splitlines(keepends=True)
    sys.stdout.write(''.join(line for line in lines if not line.startswith('Could not import OneDL')))


import_quietly('mmpretrain')
