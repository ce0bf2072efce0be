"""Finds the members of records that no column leads to: they stay as they are, and so in clear.

    columns $.name.family, $.contacts[*].phone
    record  {"id": 1, "name": {"family": "x", "given": "y"}, "contacts": "none"}   ->   id, $.name.given, contacts

A member also counts if a column's path leads to it but cannot be followed into it ("contacts"). Each name is looked at once, so
a row of known names costs one comparison for each object on a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from quorumvault.formats.json import Container, Node
from quorumvault.formats.jsonpath import Every, FieldPath, PathStep, column_name

#: The most names to note: records whose names are data have unboundedly many.
MOST_NAMES: Final = 1000
_NULL: Final = msgspec.Raw(b"null")
_Steps = tuple[PathStep, ...]


class _Level:
    """An object or array on a path. ``ends``: the steps at which a path ends. ``inner``: the steps at which a path goes on."""

    def __init__(self, paths: Iterable[_Steps]) -> None:
        following: dict[PathStep, list[_Steps]] = {}
        for first, *rest in paths:
            following.setdefault(first, []).append(tuple(rest))
        self.ends = {step for step, rests in following.items() if () in rests}
        self.inner = {step: _Level(rests) for step, rests in following.items() if step not in self.ends}
        self.known: set[PathStep] = {*self.ends, *self.inner}


class Remaining:
    """``names``: the names found so far, in order. ``keep``: paths that are not noted, with everything inside them."""

    def __init__(self, paths: Sequence[FieldPath], keep: Sequence[FieldPath]) -> None:
        self._root = _Level(path.steps for path in paths)
        self._keep = {path.steps for path in keep}
        self.names: dict[str, None] = {}

    def meet(self, members: dict[str, Node]) -> None:
        """Notes the new names in a record whose columns have been found."""
        if len(self.names) < MOST_NAMES:
            self._meet(self._root, members, ())

    def _meet(self, level: _Level, container: Container, path: _Steps) -> None:
        if Every.ONE not in level.known:
            self._note_unknown(level, container, path)
        for step, inner in level.inner.items():
            for key, value in _at(container, step):
                if isinstance(value, dict | list):
                    self._meet(inner, value, (*path, step))
                elif value != _NULL:
                    self._note((*path, step if isinstance(key, int) else key))

    def _note_unknown(self, level: _Level, container: Container, path: _Steps) -> None:
        if isinstance(container, list):
            if any(place not in level.known for place in range(len(container))):
                self._note((*path, Every.ONE))
        elif not level.known.issuperset(container):
            for name in container:
                if name not in level.known:
                    level.known.add(name)
                    self._note((*path, name))

    def _note(self, path: _Steps) -> None:
        if not any(path[:length] in self._keep for length in range(1, len(path) + 1)):
            self.names[column_name(path)] = None


def _at(container: Container, step: PathStep) -> Iterator[tuple[Any, Node]]:
    """Yields the members that a step leads to."""
    if isinstance(step, Every):
        yield from container.items() if isinstance(container, dict) else enumerate(container)
    elif isinstance(container, dict) if isinstance(step, str) else isinstance(container, list) and step < len(container):
        with_member: Any = container
        if isinstance(step, int) or step in with_member:
            yield step, with_member[step]
