"""Commands work on files, and have no frames of pandas. pyarrow looks for it all the same at the first array that it makes of
Python's objects, and where it is installed loading it takes longer than all other modules of a command."""

import sys
from importlib.machinery import ModuleSpec


class _NoPandas:
    """A finder that says of pandas that it is not installed."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("a command does without pandas", name=fullname)
        return None


def do_without_pandas() -> None:
    """To be called once, in a process of which nobody else imports anything."""
    sys.meta_path.insert(0, _NoPandas())
