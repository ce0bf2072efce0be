"""The static field configuration: which members of a record are replaced.

No member may be covered twice, since it would be replaced twice: expressions that can lead to one member, or one of them
inside the other's, are refused when they are compiled.

A ``FieldSet`` is the expressions merged into one automaton. Its states are the sets of expressions that fit the way from the
record's root so far, so a walk looks at each member once, whatever the number of fields:

    $.a[*].x, $.a[0].y     .a ->  [0]    -> .x -> field 0
                                         -> .y -> field 1
                                  [else] -> .x -> field 0
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from quorumvault.errors import ConfigError
from quorumvault.formats.json import Container, Document, encode, opened
from quorumvault.formats.jsonpath import Every, FieldPath, PathError, Step, concrete_path
from quorumvault.formats.yaml import load_yaml

#: States of the automaton. There are about as many as steps in all expressions; but n of them that mix [*] with other steps
#: at n depths can have 2 to the n.
MAX_STATES: Final = 4096


class Slot(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One member of one document that a field leads to, and that is not null.

    ``field`` is the position of that field in ``FieldSet.paths``, ``raw`` the member's exact JSON text.
    """

    field: int
    raw: bytes
    _container: Container
    _key: Any
    _trail: tuple[str | int, ...]

    @property
    def path(self) -> str:
        """Where it is, without wildcards; see ``concrete_path``. A long name that came with the record is cut."""
        return concrete_path(_shown(step) for step in (*self._trail, self._key))

    def replace(self, value: str | bool | int | msgspec.Raw) -> None:
        self._container[self._key] = value

    def __repr__(self) -> str:
        return f"Slot(field={self.field})"


#: Characters of a member's name in a path. Under a wildcard it is the caller's, as long as a body, and may be in 100,000 paths.
_NAME_SHOWN: Final = 64


def _shown(step: str | int) -> str | int:
    return f"{step[:_NAME_SHOWN]}…" if isinstance(step, str) and len(step) > _NAME_SHOWN else step


@dataclass(slots=True)
class _State:
    """Where a walk can be: at a field (then there is nothing beyond it), or on the way to some.

    ``names`` and ``indices`` (ascending) already include what ``every`` leads to.
    """

    names: dict[str, _State]
    indices: dict[int, _State]
    every: _State | None = None
    field: int | None = None


@dataclass(frozen=True, slots=True)
class FieldSet:
    """The configured fields. ``paths`` has them as they were written; ``fingerprint`` is the same for any spelling and order."""

    paths: tuple[str, ...]
    fingerprint: str
    _root: _State = field(repr=False, compare=False)

    @classmethod
    def compile(cls, expressions: Sequence[str], where: object) -> FieldSet:
        """Raises ConfigError that names ``where`` and the position in the list."""
        paths = []
        for position, text in enumerate(expressions):
            try:
                paths.append(FieldPath.parse(text))
            except PathError as error:
                raise ConfigError(where, f"fields[{position}]", f"{text!r}: {error}") from None
        root = _Compiler(paths, where).state([_Rest(n, path.steps) for n, path in enumerate(paths)])
        meaning = "\n".join(sorted(map(str, paths)))  # a path has its line breaks escaped
        return cls(tuple(expressions), hashlib.blake2b(meaning.encode(), digest_size=8).hexdigest(), root)

    def find(self, document: Document) -> Iterator[Slot]:
        """The slots of ``document``, in its order. A field that is missing or null has none; one that is an object or
        array has. A slot may be replaced before the next one is asked for."""
        return (slot for slot in self.walk(document) if slot is not None)

    def walk(self, document: Document) -> Iterator[Slot | None]:
        """The same, with a None now and then, where many members lead to no slot: for whoever has something else to do."""
        return _walk(document.members, self._root, ())


_NULL = msgspec.Raw(b"null")


#: Members that are looked at between two returns to the caller: about half a millisecond.
_MEMBERS_AT_ONCE: Final = 1024


def _walk(container: Container, state: _State, trail: tuple[str | int, ...]) -> Iterator[Slot | None]:
    for count, (key, following) in enumerate(_ways(container, state), 1):
        if count % _MEMBERS_AT_ONCE == 0:
            yield None
        member = container[key]
        if following.field is None:
            inner = opened(container, key)
            if inner is not None:
                yield from _walk(inner, following, (*trail, key))
        elif member != _NULL:
            yield Slot(following.field, encode(member), container, key, trail)


def _ways(container: Container, state: _State) -> Iterator[tuple[Any, _State]]:
    """The keys of ``container`` that lead on, in its order."""
    every = state.every
    if isinstance(container, dict):
        names = state.names
        if every is None:
            return ((name, names[name]) for name in container if name in names)
        return ((name, names.get(name, every)) for name in container)
    indices = state.indices
    if every is None:
        return ((index, following) for index, following in indices.items() if index < len(container))
    return ((index, indices.get(index, every)) for index in range(len(container)))


@dataclass(frozen=True, slots=True)
class _Rest:
    """What is left to go of the expression at ``position`` in the list."""

    position: int
    steps: tuple[Step, ...]


class _Compiler:
    """The subset construction, from expressions to an automaton; refuses those of which two can meet."""

    def __init__(self, paths: Sequence[FieldPath], where: object) -> None:
        self._paths = paths
        self._where = where
        self._states = 0

    def state(self, rests: list[_Rest]) -> _State:
        """The state in which the expressions of ``rests`` fit the way so far."""
        self._states += 1
        if self._states > MAX_STATES:
            raise ConfigError(self._where, "fields", f"paths with fewer [*] beside names or indices (over {MAX_STATES} cases)")
        ended = next((rest for rest in rests if not rest.steps), None)
        if ended is not None:
            self._refuse_company(ended, rests)
            return _State({}, {}, field=ended.position)
        heads = list(dict.fromkeys(rest.steps[0] for rest in rests))
        every = self._after(rests, Every.ONE) if Every.ONE in heads else None
        names = {head: self._after(rests, head) for head in heads if isinstance(head, str)}
        indices = {head: self._after(rests, head) for head in sorted(head for head in heads if isinstance(head, int))}
        return _State(names, indices, every)

    def _after(self, rests: list[_Rest], step: Step) -> _State:
        return self.state([_Rest(rest.position, rest.steps[1:]) for rest in rests if rest.steps[0] in (step, Every.ONE)])

    def _refuse_company(self, ended: _Rest, rests: list[_Rest]) -> None:
        others = [rest.position for rest in rests if rest is not ended]
        if not others:
            return
        first, second = sorted((ended.position, others[0]))
        kept, refused = self._paths[first], self._paths[second]
        same = "is the same as" if kept.steps == refused.steps else "can lead to the same member as, or one inside the other's,"
        raise ConfigError(self._where, f"fields[{second}]", f"{refused.text!r} {same} fields[{first}], {kept.text!r}; keep one")


def load_fields(path: Path) -> FieldSet:
    """Reads fields.yaml: a mapping with the one key ``fields``, a list of expressions. Raises ConfigError.

    At least one: a vault that replaces nothing would give records back as they are, and say that all went well.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(path, "", "a mapping with the key `fields`")
    for key in content:
        if key != "fields":
            raise ConfigError(path, key, "is no key of this file; it has the one key `fields`")
    fields = content.get("fields")
    if not isinstance(fields, list) or not fields:
        raise ConfigError(path, "fields", "a list of one or more JSONPath expressions, such as - $.ssn")
    for position, expression in enumerate(fields):
        if not isinstance(expression, str):
            raise ConfigError(path, f"fields[{position}]", "a JSONPath expression as text, such as $.ssn")
    return FieldSet.compile(fields, path)
