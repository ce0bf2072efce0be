"""Shows the progress of a look-up in a notebook: a bar in the cell's output, for a look-up that takes more than a moment.

This module does not import IPython: only a process that has imported it, and runs a kernel, has a cell to write to.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

#: Seconds before a bar appears, and between two updates: a quick cell shows no bar.
_PATIENCE: Final = 0.5
_INTERVAL: Final = 0.2


@contextlib.contextmanager
def progress_of(operation: str, total: int, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of texts done since its last call. The bar disappears at the end."""
    display = _display()
    if display is None:
        yield lambda texts: None
        return
    bar = _Bar(operation, total, clock(), clock() + _PATIENCE)

    def advance(texts: int) -> None:
        bar.done = min(bar.done + texts, total)
        if clock() >= bar.due:
            bar.due = clock() + _INTERVAL
            bar.show(display, clock())

    try:
        yield advance
    finally:
        bar.vanish()


def _display() -> Callable[..., Any] | None:
    """Returns IPython's ``display`` in a notebook's process, else None."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    display: Callable[..., Any] = ipython.display.display  # type: ignore[union-attr]
    return display


@dataclass(slots=True)
class _Bar:
    """A progress bar. ``due``: the time of its next update."""

    operation: str
    total: int
    began: float
    due: float
    done: int = 0
    _handle: Any = None

    def show(self, display: Callable[..., Any], now: float) -> None:
        left = (now - self.began) * (self.total - self.done) / max(self.done, 1)
        words = f"{self.operation}: {self.done:,} of {self.total:,} distinct texts, {left:.0f} s left"
        shown = {"text/plain": words, "text/html": f'<progress value="{self.done}" max="{self.total}"></progress> {words}'}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def vanish(self) -> None:
        if self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)
