"""Finds the fields of a record that JSONPath expressions name: a trie of their steps, and a walk of the record along it.

    $.a[*].x, $.a[0].y, $.b     .a -> [*] -> .x    field 0
                                      [0] -> .y    field 1
                                .b                 field 2

A walk looks at each member once, whatever the number of fields. It follows every trie node that matches: two at ``$.a[0]``.
No member may match twice, since it would be replaced twice. Compilation refuses two expressions that can lead to the same
member, or one of which can lead inside the other's member.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final

import msgspec

from quorumvault.errors import ConfigError
from quorumvault.formats.json import Container, Document, encode, opened
from quorumvault.formats.jsonpath import Every, FieldPath, PathError, concrete_path


class Slot(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A member of a document that a field leads to, and that is not null.

    ``field`` is the position of the field in ``FieldSet.paths``; ``raw`` is the member's exact JSON text.
    """

    field: int
    raw: bytes
    _container: Container
    _key: Any
    _trail: tuple[str | int, ...]

    @property
    def path(self) -> str:
        """The member's path without wildcards, as ``concrete_path`` spells it. Each name is cut to 64 characters."""
        return concrete_path(_shown(step) for step in (*self._trail, self._key))

    @property
    def name(self) -> str:
        """The member's name in its object; empty in an array."""
        return self._key if isinstance(self._key, str) else ""

    def replace(self, value: str | bool | int | msgspec.Raw) -> None:
        self._container[self._key] = value

    def __repr__(self) -> str:
        return f"Slot(field={self.field})"


#: The most characters of a member's name in a path. Under a wildcard the name comes from the caller: it may be as long as a body,
#: and be in 100,000 paths.
_NAME_SHOWN: Final = 64
#: The most sets of nodes that can match one way through a record. There are usually about as many as steps in all expressions.
#: But n expressions that mix [*] with other steps at n depths can have 2 to the n, and a walk looks at each node of a set for
#: each member.
MAX_CASES: Final = 4096


def _shown(step: str | int) -> str | int:
    return f"{step[:_NAME_SHOWN]}…" if isinstance(step, str) and len(step) > _NAME_SHOWN else step


class _Node:
    """A node of the trie: the steps that lead on from it, or the position of the field that ends here. ``alone`` is ``[self]``.

    ``through``: the positions of all expressions that lead to or through the node.
    """

    __slots__ = ("alone", "every", "field", "steps", "through")

    def __init__(self) -> None:
        self.steps: dict[str | int, _Node] = {}
        self.every: _Node | None = None
        self.field: int | None = None
        self.through: list[int] = []
        self.alone = [self]


@dataclass(frozen=True, slots=True)
class FieldSet:
    """The configured fields. ``paths`` has them as written; ``fingerprint`` does not depend on their spelling and order."""

    paths: tuple[str, ...]
    fingerprint: str
    _root: _Node = field(repr=False, compare=False)

    @classmethod
    def compile(cls, expressions: Sequence[str], where: object) -> FieldSet:
        """Compiles expressions. Raises ConfigError, which names ``where`` and the position in the list."""
        paths = []
        for position, text in enumerate(expressions):
            try:
                paths.append(FieldPath.parse(text))
            except PathError as error:
                raise ConfigError(where, f"fields[{position}]", f"{text!r}: {error}") from None
        root = _compile(paths, where)
        meaning = "\n".join(sorted(map(str, paths)))  # a path escapes its line breaks
        return cls(tuple(expressions), hashlib.blake2b(meaning.encode(), digest_size=8).hexdigest(), root)

    def find(self, document: Document) -> Iterator[Slot]:
        """Yields the slots of ``document``, in document order. A missing or null field has none; an object or array has one.

        The caller may replace a slot before it asks for the next one.
        """
        return (slot for slot in self.walk(document) if slot is not None)

    def walk(self, document: Document) -> Iterator[Slot | None]:
        """As ``find``, but yields None after at most 1,024 members (but see ``_walk``), so that other work can run."""
        return _walk(document.members, [self._root], (), [0])


_NULL = msgspec.Raw(b"null")


#: Members, times the nodes that match their container, between two returns to the caller: about half a millisecond.
_LOOKED_AT_ONCE: Final = 1024


def _walk(container: Container, nodes: list[_Node], trail: tuple[str | int, ...], looked: list[int]) -> Iterator[Slot | None]:
    """Walks ``container``. ``nodes``: all that match the way to it. If a field ends at one of them, it is the only one.

    ``looked`` counts the members of containers since the last return to the caller. A single node without [*] scans the names of
    one container without a return: at most 100,000 (json.py), about 3 ms.
    """
    looked[0] += len(container)
    if looked[0] >= _LOOKED_AT_ONCE:
        looked[0] = 0
        yield None
    turn = max(1, _LOOKED_AT_ONCE // len(nodes))
    for count, (key, following) in enumerate(_ways(container, nodes), 1):
        if count % turn == 0:
            yield None
        if not following:
            continue
        member, ended = container[key], following[0].field
        if ended is None:
            inner = opened(container, key)
            if inner is not None:
                yield from _walk(inner, following, (*trail, key), looked)
        elif member != _NULL:
            yield Slot(ended, encode(member), container, key, trail)


def _ways(container: Container, nodes: list[_Node]) -> Iterable[tuple[Any, list[_Node]]]:
    """Returns the keys of ``container`` to look at, in its order, and the nodes that each leads to, which may be none."""
    node = nodes[0]
    every, steps = node.every, node.steps
    keys: Iterable[Any] = container if isinstance(container, dict) else range(len(container))
    if isinstance(container, list) and all(node.every is None for node in nodes):
        keys = sorted({step for node in nodes for step in node.steps if isinstance(step, int) and step < len(container)})
    if len(nodes) > 1 or (every is not None and steps):
        return ((key, _after(nodes, key)) for key in keys)
    if every is not None:
        return zip(keys, repeat(every.alone))
    return ((key, steps[key].alone) for key in keys if key in steps)


def _after(nodes: list[_Node], step: str | int) -> list[_Node]:
    found = [node.steps[step] for node in nodes if step in node.steps]
    return found + [node.every for node in nodes if node.every is not None]


def _compile(paths: Sequence[FieldPath], where: object) -> _Node:
    """Returns the root of the trie. Raises ConfigError for an expression that overlaps an earlier one, or over MAX_CASES."""
    root = _Node()
    for position, path in enumerate(paths):
        node = root
        for step in path.steps:
            if isinstance(step, Every):
                node.every = node = node.every or _Node()
            else:
                node = node.steps.setdefault(step, _Node())
            node.through.append(position)
        node.field = position
    cases, waiting = 1, [[root]]
    while waiting:
        nodes = waiting.pop()
        if any(node.field is not None for node in nodes):
            _refuse_company(nodes, paths, where)
            continue
        every = [node.every for node in nodes if node.every is not None]
        ways: dict[str | int, list[_Node]] = {step: [] for node in nodes for step in node.steps}
        cases += len(ways) + bool(every)
        if cases > MAX_CASES:
            raise ConfigError(where, "fields", f"paths with fewer [*] beside names or indices (over {MAX_CASES} cases)")
        for node in nodes:
            for key, child in node.steps.items():
                ways[key].append(child)
        waiting += [way + every for way in reversed(ways.values())] + [every] * bool(every)
    return root


def _refuse_company(nodes: list[_Node], paths: Sequence[FieldPath], where: object) -> None:
    """Raises ConfigError unless only one expression leads to ``nodes``. A field ends at one of the nodes."""
    first, *others = sorted(position for node in nodes for position in node.through)
    if others:
        ended = min(node.field for node in nodes if node.field is not None)
        second = others[0] if ended == first else ended
        kept, path = paths[first], paths[second]
        same = "is the same as" if kept.steps == path.steps else "can lead to the same member as, or one inside the other's,"
        raise ConfigError(where, f"fields[{second}]", f"{path.text!r} {same} fields[{first}], {kept.text!r}; keep one")
