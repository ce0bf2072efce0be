"""The settings that a command makes for pyarrow before it loads pyarrow.

Commands work on files, never on pandas frames. Yet pyarrow imports pandas, if installed, at the first array that it makes from
Python objects, which takes longer than loading all other modules of a command.

By default pyarrow's allocator, mimalloc, keeps freed memory for a while: with large row groups, a fifth of a command's memory.
"""

import os
import sys
from importlib.machinery import ModuleSpec
from typing import Final

#: Milliseconds; a command takes as long as with the allocator's default delay. A user's own setting takes precedence.
_PURGE_DELAY: Final = "10"


class _NoPandas:
    """A finder that reports pandas as not installed."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("a command does without pandas", name=fullname)
        return None


def prepare_pyarrow() -> None:
    """Makes the settings. Call it once, in a process in which no other code imports modules."""
    sys.meta_path.insert(0, _NoPandas())
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", _PURGE_DELAY)
