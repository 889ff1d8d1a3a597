"""Parts of a report: commands of this project, each in a process of its own."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    """A command that makes a part of a report.

    Args:
        name: Of the folder of its results.
        command: What Python runs: a script or `-m` and a module, and their arguments.
        needs: Files that it reads and that others have to write first.
    """

    name: str
    command: Sequence[object]
    needs: Sequence[Path] = ()

    @property
    def words(self) -> list[str]:
        return [*map(str, self.command)]

    @property
    def line(self) -> str:
        """The command, as one types it."""
        return shlex.join(['python', *self.words])

    def run(self, **options: Any) -> int:
        """Runs it and returns its exit status; `options` are those of `subprocess.run`."""
        return subprocess.run([sys.executable, *self.words], **options).returncode
