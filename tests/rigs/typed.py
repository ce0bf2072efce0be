"""Commands that the pages show for typing."""

import re

from tests import ROOT


def blocks(page: str, heading: str) -> list[str]:
    """The commands under a heading of a page in docs/, one text for each block. Give the heading with its number signs."""
    text = (ROOT / "docs" / page).read_text()
    _, found, section = text.partition(f"\n{heading}\n")
    assert found, heading
    section = re.split(r"\n##+ ", section)[0]
    return re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
