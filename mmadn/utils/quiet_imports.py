"""Imports mmpretrain's data sets without the remark that the OneDL line prints at each start."""

import io
import sys
from contextlib import redirect_stdout

REMARK = 'Could not import OneDL\n'

with redirect_stdout(io.StringIO()) as printed:
    import mmpretrain.datasets  # noqa: F401
sys.stdout.write(printed.getvalue().replace(REMARK, ''))
