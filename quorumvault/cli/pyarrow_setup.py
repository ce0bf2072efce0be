"""What a command decides for pyarrow before pyarrow is loaded.

Commands work on files, and have no frames of pandas. pyarrow looks for it all the same at the first array that it makes of
Python's objects, and where it is installed loading it takes longer than all other modules of a command.

pyarrow's allocator, mimalloc, keeps what is freed for a while unless told otherwise: at large row groups, a fifth of a command's
memory.
"""

import os
import sys
from importlib.machinery import ModuleSpec
from typing import Final

#: Milliseconds, at which a command takes as long as with the allocator's own delay. A user's own setting stands.
_PURGE_DELAY: Final = "10"


class _NoPandas:
    """A finder that says of pandas that it is not installed."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("a command does without pandas", name=fullname)
        return None


def prepare_pyarrow() -> None:
    """To be called once, in a process of which nobody else imports anything."""
    sys.meta_path.insert(0, _NoPandas())
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", _PURGE_DELAY)
