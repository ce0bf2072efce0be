"""Messages between nodes, in this process."""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from quorumvault.protocol import messages
from quorumvault.protocol.messages import AnyReply, AnyRequest, RoundId
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers.connection import decoded
from quorumvault.server.peers.facts import Greeting
from quorumvault.server.peers.frames import FrameError
from tests.fuzz.mutation import mutate
from tests.fuzz.target import InProcess, Violation
from tests.rigs.links import facts_of

_DECODERS: tuple[Callable[[bytes | memoryview], Any], ...] = (
    messages.decode_request,
    messages.decode_reply,
    saying.decode_greeting,
    saying.decode_facts,
)
#: Pieces of MessagePack: heads of long items, deep nesting, text that is not UTF-8, extensions, times.
WORDS = (
    *(head + b"\xff\xff\xff\xff" for head in (b"\xdb", b"\xdd", b"\xdf", b"\xc6", b"\xc9")), b"\x91" * 12_000,
    b"\x81\xa1x" * 12_000, b"\xa1\xff", b"\xa3\xed\xa0\x80", b"\xd6\xff" + bytes(4), b"\xc1", b"\xc0", b"\x90",
    b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xcb\x7f\xf8" + bytes(6), b"\x80", b"\xc4\x00", b"\xa0",
)  # fmt: skip
_OWNER, _DIGEST, _PLACE = b"o" * 16, b"d" * 24, b"p" * 44


def _said() -> list[bytes]:
    """Some messages of each shape that nodes send."""
    at = (RoundId(b"D" * 16, b"B" * 8, 7), (1, bytes(16)))
    by = (*at, b"E" * 16)
    said: list[AnyRequest | AnyReply] = [
        messages.Put(*at, _OWNER, 1, "s1", b"h" * 9, [_DIGEST], [b"x" * 40]),
        messages.Get(*at, _OWNER, [1, 1], [_DIGEST, _DIGEST]),
        messages.WriteBack(*at, "clinic", [1], [_DIGEST], [b"r" * 40]),
        messages.RaiseEpoch(*at, _OWNER, 2, "s1"),
        messages.Copy(*at, b""),
        messages.AskSums(*at, [1, 2]),
        messages.AskListing(*at, 0, 16),
        messages.Fetch(*at, [_PLACE]),
        messages.Ack(*by, 1, 9, {0: b""}),
        messages.Holds(*by, [b"r" * 40, None], [1]),
        messages.Settled(*by, [b"r" * 40, None], current=True),
        messages.EpochIs(*by, 1, "s1"),
        messages.Listing(*by, 3, [_PLACE], [b"h" * 8], []),
        messages.Fetched(*by, [b"r"], {_OWNER: "clinic"}),
    ]
    told = [saying.encode(facts_of("n2")), saying.encode(Greeting("n1", facts_of("n2")))]
    return [*map(messages.encode, said), *told]


SAID = _said()


class Messages(InProcess):
    """Any bytes are a message or a FrameError; and a message stays the same when it is encoded again."""

    def make(self, rng: Random) -> bytes:
        return mutate(rng, rng.choice(SAID), WORDS)

    def check_one(self, data: bytes) -> str:
        read = 0
        for decode in _DECODERS:
            try:
                message = decoded(decode, data)
            except FrameError:
                continue
            read += 1
            repr(message)
            again = msgspec.msgpack.encode(message)
            if msgspec.msgpack.encode(decode(again)) != again:
                raise Violation("a message that is another one when it was sent on")
        return f"read by {read}"
