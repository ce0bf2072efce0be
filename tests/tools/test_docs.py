"""Generated parts of pages are up to date. Lines of prose are short enough to read, and files that pages name exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from diagrams import rooms, routes
from diagrams.__main__ import AS_BUILT, FOLDER
from docs.generate import pages
from tests import ROOT
from tests.tools.test_house import FILES

PAGES = pages()
#: All pages except the first version of the scope, which is kept unchanged.
WRITTEN = [path for path in FILES if path.suffix == ".md" and path.name != "scope-initial.md"]
WIDTH = 100


def prose(text: str) -> Iterator[str]:
    """Lines that are no table, no heading and no code."""
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        if not fenced and not line.lstrip().startswith(("|", "#", "```", "<!--", "![")) and not line.startswith("    "):
            yield line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_what_the_code_says(page: Path) -> None:
    assert page.read_text() == PAGES[page], f"{page.name} is out of date: run bin/docs"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_prose_can_be_read(page: Path) -> None:
    assert [line for line in prose(page.read_text()) if len(line) > WIDTH] == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    """In full, or by the end of their path, as in ``storage/leveldb.py``. Links lead to existing files."""
    if page.name == "CHANGELOG.md":
        return  # it names files that are gone
    known = {f"/{parent}" for path in FILES for parent in (path.relative_to(ROOT), *path.relative_to(ROOT).parents)}
    text = page.read_text()
    named = re.findall(r"`((?:[\w-]+/)*[\w-]+\.py|(?:[\w-]+/)+)`", text)
    assert [name for name in named if not any(path.endswith(f"/{name.rstrip('/')}") for path in known)] == []
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = [path.name[:4] for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("part", [rooms, routes], ids=["rooms", "routes"])
def test_the_drawing_is_up_to_date(part: ModuleType) -> None:
    assert part.draw() in AS_BUILT.read_text(), "run bin/diagrams"


def test_every_drawing_has_its_rendering() -> None:
    assert [source.with_suffix(".svg").exists() for source in FOLDER.glob("*.d2")] == [True] * 3


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set[str]()}
    assert rooms.reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}
