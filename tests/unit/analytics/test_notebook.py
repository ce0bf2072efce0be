"""The progress bar and the short errors of a notebook. tests/extras/test_notebook.py runs a real notebook."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from quorumvault.analytics.notebook import progress_of
from quorumvault.errors import ColumnError, NoQuorum


class Cell:
    """The output of a cell: what was displayed, then each replacement of it."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        return SimpleNamespace(update=self._update, first=self._update(data, raw=True))

    def _update(self, data: dict[str, str], *, raw: bool) -> None:
        assert ("<progress" in data["text/html"]) == bool(data["text/plain"])
        self.shown.append(data["text/plain"])


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    made = Cell()
    shell = SimpleNamespace(kernel="a kernel")
    display = SimpleNamespace(display=made.display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    return made


def test_a_bar_comes_after_a_moment_moves_and_vanishes(cell: Cell) -> None:
    now = [0.0]
    with progress_of("tokenize", 1000, clock=lambda: now[0]) as progress:
        for seconds, texts in ((0.1, 100), (1.0, 100), (1.1, 100), (4.0, 500)):
            now[0] = seconds
            progress(texts)
    assert cell.shown == [
        "tokenize: 200 of 1,000 distinct texts, 4 s left",
        "tokenize: 800 of 1,000 distinct texts, 1 s left",
        "",
    ]


def test_what_is_done_at_once_shows_nothing(cell: Cell) -> None:
    with progress_of("tokenize", 1000, clock=lambda: 0.0) as progress:
        progress(1000)
    assert cell.shown == []


def test_a_terminal_shows_nothing(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    for shell in (None, SimpleNamespace()):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        with progress_of("tokenize", 1000, clock=lambda: now[0]) as progress:
            now[0] += 10
            progress(1000)
    assert cell.shown == []


def test_errors_are_one_line_where_ipython_asks_them() -> None:
    assert ColumnError("name one column or more")._render_traceback_() == ["ColumnError: name one column or more"]
    assert NoQuorum("n2: down")._render_traceback_() == [f"NoQuorum: {NoQuorum('n2: down')}"]
