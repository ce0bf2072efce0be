"""Which command explores a scope, by its number of states: bin/test --fast, bin/test, or bin/test -m large, as .ci/run does."""

from collections.abc import Mapping
from typing import Protocol

import pytest

#: Scopes with at least so many states take a second or more, and many seconds.
_SLOW, _LARGE = 20_000, 80_000


class Sized(Protocol):
    @property
    def at_least(self) -> int:
        """A number of states that the scope exceeds."""


def by_size(scopes: Mapping[str, Sized]) -> list[object]:
    """Returns the names as parameters of a test, with the markers slow and large."""
    return [pytest.param(name, marks=_marks(scope.at_least)) for name, scope in scopes.items()]


def _marks(states: int) -> list[pytest.MarkDecorator]:
    return [mark for mark, least in ((pytest.mark.slow, _SLOW), (pytest.mark.large, _LARGE)) if states >= least]
