"""The fields of a record, by JSONPath expressions: a trie of their steps, and the walk of a record along it.

    $.a[*].x, $.a[0].y, $.b     .a -> [*] -> .x    field 0
                                      [0] -> .y    field 1
                                .b                 field 2

A walk looks at each member once, whatever the number of fields. It goes along all nodes that fit: at ``$.a[0]`` along two.
No member may be covered twice, since it would be replaced twice: expressions that can lead to one member, or to one inside the
other's, are refused when they are compiled.
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
from quorumvault.formats.jsonpath import Every, FieldPath, PathError, PathStep, concrete_path


class Slot(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A member of a document that a field leads to. It is not null.

    ``field`` is the position of that field in ``FieldSet.paths``; ``raw`` is the member's exact JSON text.
    """

    field: int
    raw: bytes
    _container: Container
    _key: Any
    _trail: tuple[str | int, ...]

    @property
    def path(self) -> str:
        """The member's path without wildcards, as ``concrete_path`` spells it. Names of the record are cut to 64 characters."""
        return concrete_path(_shown(step) for step in (*self._trail, self._key))

    def replace(self, value: str | bool | int | msgspec.Raw) -> None:
        self._container[self._key] = value

    def __repr__(self) -> str:
        return f"Slot(field={self.field})"


#: Characters of a member's name in a path. Under a wildcard it is the caller's, as long as a body, and may be in 100,000 paths.
_NAME_SHOWN: Final = 64


def _shown(step: str | int) -> str | int:
    return f"{step[:_NAME_SHOWN]}…" if isinstance(step, str) and len(step) > _NAME_SHOWN else step


class _Node:
    """A node of the trie: the steps that lead on from it, or the position of the field that ends here. ``alone`` is its list."""

    __slots__ = ("alone", "every", "field", "steps")

    def __init__(self) -> None:
        self.steps: dict[str | int, _Node] = {}
        self.every: _Node | None = None
        self.field: int | None = None
        self.alone = [self]

    def children(self) -> list[_Node]:
        return [*self.steps.values(), *([] if self.every is None else [self.every])]


@dataclass(frozen=True, slots=True)
class FieldSet:
    """The configured fields. ``paths`` has them as they were written; ``fingerprint`` is the same for any spelling and order."""

    paths: tuple[str, ...]
    fingerprint: str
    _root: _Node = field(repr=False, compare=False)

    @classmethod
    def compile(cls, expressions: Sequence[str], where: object) -> FieldSet:
        """Raises ConfigError that names ``where`` and the position in the list."""
        paths = []
        for position, text in enumerate(expressions):
            try:
                paths.append(FieldPath.parse(text))
            except PathError as error:
                raise ConfigError(where, f"fields[{position}]", f"{text!r}: {error}") from None
        root = _compile(paths, where)
        meaning = "\n".join(sorted(map(str, paths)))  # a path has its line breaks escaped
        return cls(tuple(expressions), hashlib.blake2b(meaning.encode(), digest_size=8).hexdigest(), root)

    def find(self, document: Document) -> Iterator[Slot]:
        """Yields the slots of ``document``, in its order; none for a field that is missing or null, one for an object or array.

        A slot may be replaced before the next one is asked for.
        """
        return (slot for slot in self.walk(document) if slot is not None)

    def walk(self, document: Document) -> Iterator[Slot | None]:
        """``find`` with a None after every 1,024 members of a container, so that a caller can yield to other work."""
        return _walk(document.members, [self._root], ())


_NULL = msgspec.Raw(b"null")


#: Members that are looked at between two returns to the caller: about half a millisecond.
_MEMBERS_AT_ONCE: Final = 1024


def _walk(container: Container, nodes: list[_Node], trail: tuple[str | int, ...]) -> Iterator[Slot | None]:
    """``nodes``: all that fit the way to ``container``. If one is the end of a field it is the only one."""
    for count, (key, following) in enumerate(_ways(container, nodes), 1):
        if count % _MEMBERS_AT_ONCE == 0:
            yield None
        member, ended = container[key], following[0].field
        if ended is None:
            inner = opened(container, key)
            if inner is not None:
                yield from _walk(inner, following, (*trail, key))
        elif member != _NULL:
            yield Slot(ended, encode(member), container, key, trail)


def _ways(container: Container, nodes: list[_Node]) -> Iterable[tuple[Any, list[_Node]]]:
    """The keys of ``container`` that lead on, in its order, and the nodes that each leads to."""
    node = nodes[0]
    every, steps = node.every, node.steps
    if len(nodes) > 1 or (every is not None and steps):
        return ((key, _after(nodes, key)) for key in _keys(container, nodes))
    if every is not None:
        return zip(container if isinstance(container, dict) else range(len(container)), repeat(every.alone))
    if isinstance(container, dict):
        return ((name, steps[name].alone) for name in container if name in steps)
    return ((index, steps[index].alone) for index in _keys(container, nodes))


def _keys(container: Container, nodes: list[_Node]) -> Iterable[Any]:
    has_every = any(node.every is not None for node in nodes)
    if isinstance(container, dict):
        return container if has_every else (name for name in container if any(name in node.steps for node in nodes))
    if has_every:
        return range(len(container))
    return sorted({step for node in nodes for step in node.steps if isinstance(step, int) and step < len(container)})


def _after(nodes: list[_Node], step: PathStep) -> list[_Node]:
    """The nodes that ``step`` can lead to; of an expression's ``[*]`` all of the next ones."""
    if isinstance(step, Every):
        return [child for node in nodes for child in node.children()]
    found = [node.steps[step] for node in nodes if step in node.steps]
    return found + [node.every for node in nodes if node.every is not None]


def _compile(paths: Sequence[FieldPath], where: object) -> _Node:
    """Returns the root of the trie. Raises ConfigError for an expression that can meet an earlier one."""
    root = _Node()
    for position, path in enumerate(paths):
        met = _met(root, path)
        if met is not None:
            same = "is the same as" if paths[met].steps == path.steps else _MEETS
            raise ConfigError(where, f"fields[{position}]", f"{path.text!r} {same} fields[{met}], {paths[met].text!r}; keep one")
        node = root
        for step in path.steps:
            if isinstance(step, Every):
                node.every = node = node.every or _Node()
            else:
                node = node.steps.setdefault(step, _Node())
        node.field = position
    return root


_MEETS: Final = "can lead to the same member as, or one inside the other's,"


def _met(root: _Node, path: FieldPath) -> int | None:
    """The position of an expression in the trie that can lead to the same member as ``path``, or to one inside or around it."""
    nodes = [root]
    for step in path.steps:
        nodes = _after(nodes, step)
        for node in nodes:
            if node.field is not None:
                return node.field
    while nodes:
        nodes = [child for node in nodes for child in node.children()]
        for node in nodes:
            if node.field is not None:
                return node.field
    return None
