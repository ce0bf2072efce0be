"""The pages that are made from code are up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import pages

PAGES = pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_what_the_code_says(page: Path) -> None:
    assert page.read_text() == PAGES[page], f"{page.name} is out of date: run bin/docs"
