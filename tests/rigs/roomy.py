"""The command ``quorumvault`` on a disk whose free room a file states: ``python -m tests.rigs.roomy FILE serve …``.

Mounting a file system of a few megabytes takes a privilege. This takes none: only the answer of statvfs is replaced.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

from quorumvault.cli.main import main


def free_in(file: Path) -> SimpleNamespace:
    """The fields of statvfs(3) that count."""
    return SimpleNamespace(f_bavail=int(file.read_text()), f_frsize=1)


if __name__ == "__main__":
    told = Path(sys.argv[1])
    os.statvfs = lambda path: free_in(told)  # type: ignore[assignment,return-value]
    main(sys.argv[2:])
