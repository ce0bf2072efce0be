"""A node process that speaks the previous protocol version: a stand-in for the previous release in tests of rolling upgrades.

python -m tests.cluster.older serve --config …       the command ``quorumvault``, as it was on the wire

The node announces the older version in its facts. It sends no message whose ``since`` is the current version; it rejects such
a message as malformed, as the older release does, and cuts the sender off. It neither sends nor reads the fields that the
current version added. Its disk has today's format: tests/golden/ has disks of older formats.
"""

import sys
from typing import Any, NamedTuple

import msgspec

from quorumvault.cli import main as quorumvault
from quorumvault.protocol import messages
from quorumvault.protocol.messages import PROTOCOL_VERSION, AnyReply, AnyRequest, Copy, NotCopied, Outgoing, Sums, ViewIs
from quorumvault.protocol.peer import NoReply, OnReply
from quorumvault.server.node import health
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers import server
from quorumvault.server.peers.facts import Greeting, NodeFacts
from quorumvault.server.peers.link import Link


class _Wire(NamedTuple):
    """An older version on the wire: the number of fields of messages that have gained some since, and a node's facts."""

    fields: dict[type[messages.Message], int]
    facts: tuple[str, ...]


_WIRES = {2: _Wire({Sums: 4, Copy: 3, NotCopied: 3, ViewIs: 6}, NodeFacts.__struct_fields__)}
OLDER = PROTOCOL_VERSION - 1
#: Whoever raises PROTOCOL_VERSION adds an entry above for the version before.
_WIRE = _WIRES[OLDER]

_encode, _decode_request = messages.encode, messages.decode_request
_encode_facts, _send = saying.encode, Link.send


def _encode_older(message: AnyRequest | AnyReply) -> bytes:
    wire, fields = _encode(message), _WIRE.fields.get(type(message))
    if fields is None:
        return wire
    tag, *values = msgspec.msgpack.decode(wire)
    return msgspec.msgpack.encode([tag, *values[:fields]])


def _decode_older(data: bytes | memoryview) -> AnyRequest:
    request = _decode_request(data)
    if request.since > OLDER:
        raise msgspec.DecodeError("no such message")
    return _decode_request(_encode_older(request))


def _encode_older_facts(said: NodeFacts | Greeting) -> bytes:
    plain: dict[str, Any] = msgspec.msgpack.decode(_encode_facts(said))
    if isinstance(said, Greeting):
        return msgspec.msgpack.encode({**plain, "facts": _older_facts(plain["facts"])})
    return msgspec.msgpack.encode(_older_facts(plain))


def _older_facts(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if name in _WIRE.facts}


def _send_older(self: Link, outgoing: Outgoing, on_reply: OnReply) -> None:
    if outgoing.request.since > OLDER:
        on_reply(NoReply(sent=False))
    else:
        _send(self, outgoing, on_reply)


def main() -> None:
    for owner, name, older in (
        (health, "PROTOCOL_VERSION", OLDER),
        (messages, "encode", _encode_older),
        (server, "encode", _encode_older),
        (server, "decode_request", _decode_older),
        (saying, "encode", _encode_older_facts),
        (Link, "send", _send_older),
    ):
        setattr(owner, name, older)
    sys.argv[0] = "quorumvault"
    quorumvault()


if __name__ == "__main__":
    main()
