"""The drawing of what was built says what the code says."""

from types import ModuleType

import pytest

from diagrams import rooms, routes
from diagrams.__main__ import AS_BUILT, FOLDER


@pytest.mark.parametrize("part", [rooms, routes], ids=["rooms", "routes"])
def test_the_drawing_is_up_to_date(part: ModuleType) -> None:
    assert part.draw() in AS_BUILT.read_text(), "run bin/diagrams"


def test_every_source_has_its_rendering() -> None:
    sources = sorted(FOLDER.glob("*.d2"))
    assert sources
    assert [source.with_suffix(".svg").exists() for source in sources] == [True] * len(sources)


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set[str]()}
    assert rooms.reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}
