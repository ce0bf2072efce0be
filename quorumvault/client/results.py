"""The results of the client's methods. No ``repr`` shows a value or a token."""

import re
import sys
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from quorumvault import errors

#: Values that can be tokenized. A Raw is a value's JSON text: a way to send integers longer than Python converts.
Value = str | int | bool | msgspec.Raw | None
#: The outcome for one token. ``null``: the item was None. ``unavailable``: the value could not be determined, ask again.
#: ``collision``: two values have this token, and neither is returned.
Status: TypeAlias = Literal["ok", "not_found", "null", "unavailable", "collision"]

_INTEGER = re.compile(rb"-?[0-9]+")
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Result:
    """The result of ``detokenize`` for one token.

    ``status`` is ``ok``, ``not_found``, ``null`` (the item was None), ``unavailable`` (the value could not be determined, ask
    again) or ``collision`` (two values have this token, neither is returned); the type ``Status`` lists the five.
    """

    status: Status
    json: bytes = field(default=b"null", repr=False)
    """The value's JSON text; ``null`` if there is none."""

    @property
    def found(self) -> bool:
        return self.status == "ok"

    @property
    def value(self) -> str | int | bool | None:
        """The value with its type; None for ``not_found`` and ``null``.

        Raises NoQuorum for ``unavailable`` and TokenCollision for ``collision``: neither means that there is no value.
        Raises IntegerTooLong for an integer of more digits than ``sys.get_int_max_str_digits()``.
        """
        _raise_untold(self.status)
        return _python_value(self.json)


def _raise_untold(status: Status) -> None:
    if status == "unavailable":
        raise errors.NoQuorum("this token's value could not be told, though the others of its request could: ask again")
    if status == "collision":
        raise errors.TokenCollision("two values met in this token: neither is given out")


def _python_value(json: bytes) -> str | int | bool | None:
    # msgspec converts integers of up to 64 bits, and some longer ones; Python refuses integers of too many digits.
    if _INTEGER.fullmatch(json):
        try:
            return int(json)
        except ValueError:
            limit = sys.get_int_max_str_digits()
            raise errors.IntegerTooLong(
                f"this integer has {len(json.lstrip(b'-'))} digits and Python converts up to {limit}: "
                "raise that with sys.set_int_max_str_digits, or take Result.json"
            ) from None
    value: str | bool | None = _decode(json, type=str | bool | None)
    return value


@dataclass(frozen=True, slots=True)
class TokenResult:
    """The result of ``retokenize`` for one token. ``status`` is one of those of ``Result``."""

    status: Status
    _token: str | None = field(default=None, repr=False)

    @property
    def found(self) -> bool:
        return self.status == "ok"

    @property
    def token(self) -> str | None:
        """The token of the same value in the active epoch; None for ``not_found`` and ``null``.

        Raises NoQuorum for ``unavailable`` and TokenCollision for ``collision``, as ``Result.value`` does.
        """
        _raise_untold(self.status)
        return self._token


@dataclass(frozen=True, slots=True)
class TokenizedRecords:
    """Records with tokens at the configured fields, all of one epoch, in the caller's order.

    ``replaced`` has, for each configured path, the number of values that became tokens, zeros included.
    """

    epoch: int
    records: list[dict[str, Any]] = field(repr=False)
    replaced: dict[str, int]


class Limits(msgspec.Struct, frozen=True):
    """A node's limits for one request: items, values in all records together, bytes of the body, bytes of one value."""

    items: int
    body_bytes: int
    value_bytes: int
    #: A node that does not report this limit takes at least this many.
    record_values: int = 10_000


class QuorumHealth(msgspec.Struct, frozen=True):
    """The number of active replicas needed, and the number that this node reaches, itself included."""

    needed: int
    reachable: int


class PeerHealth(msgspec.Struct, frozen=True):
    """A peer as a node sees it: ``up`` or ``down``, and joining or active if the node knows.

    ``owed_records``: the number of records that the node knows the peer lacks, the oldest for ``owed_seconds``.
    """

    status: str
    state: str | None = None
    owed_records: int = 0
    owed_seconds: float = 0.0


class JoiningHealth(msgspec.Struct, frozen=True):
    """The progress of a joining disk: records copied, their approximate total, the source node, and what the disk waits for."""

    records: int = 0
    expected: int | None = None
    source: str | None = None
    waits_for: str | None = None


class Health(msgspec.Struct, frozen=True):
    """A node's report about itself: ``ok``, ``degraded`` (a quorum, but not all nodes) or ``unavailable``.

    ``keys``: a fingerprint of the API keys that the node knows; empty if its release does not report one. ``damaged``: the node
    cannot read all of its store.
    """

    status: str
    node: str
    state: str
    quorum: QuorumHealth
    peers: dict[str, PeerHealth]
    warnings: list[str] = msgspec.field(default_factory=list)
    version: str = ""
    joining: JoiningHealth | None = None
    keys: str = ""
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """The report of the node at ``url`` about itself. ``report`` is None if none came, and ``problem`` says why."""

    url: str
    report: Health | None
    problem: str | None = None
