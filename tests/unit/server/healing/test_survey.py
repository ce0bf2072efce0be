"""How a joining disk has a store read: once, from where it stopped, and again when unreadable parts have become readable."""

from collections.abc import Callable

from quorumvault.protocol.join import Unread
from quorumvault.protocol.messages import AnyReply, AskView, Copy, Outgoing
from quorumvault.protocol.peer import NoReply
from quorumvault.protocol.views import Mode
from quorumvault.server.healing.join import Rejoin
from quorumvault.server.healing.rollback_marks import RollbackMarks
from quorumvault.server.healing.throttle import Throttle
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.trio import VIEW, make_replica

KEYS = [b"e1", *(b"r" + bytes([0, number]) + bytes(38) for number in range(5))]
BROKEN = KEYS[3]


class Source:
    """n1 as a peer. ``asked``: the keys after which it was to read; ``mute``: it does not answer; ``on_copy``: run at a read."""

    node, up = "n1", True

    def __init__(self) -> None:
        inner = MemoryStore()
        inner.write({**dict.fromkeys(KEYS, b"v"), KEYS[0]: layout.encode_register(1, "s1")})
        self.store = FaultyStore(inner)
        self.replica = make_replica(self.store, "n1", copy_bytes=50)
        self.asked: list[bytes] = []
        self.mute = False
        self.on_copy: Callable[[], None] = lambda: None

    def start_again(self) -> None:
        self.replica = make_replica(self.store, "n1", incarnation=self.replica.identity.incarnation + 1, copy_bytes=50)

    def send(self, outgoing: Outgoing, on_reply: Callable[[AnyReply | NoReply], None]) -> None:
        request = outgoing.request
        if not isinstance(request, AskView):
            assert isinstance(request, Copy)
            assert request.only_read
            self.asked.append(request.after)
            self.on_copy()
        on_reply(NoReply(sent=True) if self.mute else self.replica.handle([request])[0])


async def never() -> object:
    raise AssertionError("nothing is written before the view changes")


def joining(source: Source) -> Rejoin:
    fresh = DiskIdentity("c", "n2", b"d" * 16, 1, Mode.JOINING, None)
    marks = RollbackMarks(lambda: None, lambda: None, lambda: None, lambda seconds, what: None, lambda why: None)
    peers = {"n1": source}
    return Rejoin(lambda: fresh, b"nonce", peers, never, lambda: True, Throttle(1.0), marks, lambda: True, timeout=60)  # type: ignore[arg-type]


async def test_a_store_is_read_once_and_around_what_cannot_be_read() -> None:
    """Rule: read before the view changes."""
    source = Source()
    rejoin = joining(source)
    source.store.corrupt.add(BROKEN)
    assert await rejoin._survey("n1", VIEW) == Unread(frozenset({b"r\0\2", b"r\0\3"}))
    read = len(source.asked)
    assert read > 4
    assert await rejoin._survey("n1", VIEW) == Unread(frozenset({b"r\0\2", b"r\0\3"}))
    assert len(source.asked) == read + 2  # is the gap still there, and is anything new after the end?
    source.store.corrupt.clear()
    assert await rejoin._survey("n1", VIEW) == Unread()
    assert source.asked[read + 3] == b""


async def test_a_store_is_read_anew_after_a_start() -> None:
    """The store may have been salvaged: what could be read before may be a gap now. Proves: read before the view changes."""
    source = Source()
    rejoin = joining(source)
    assert await rejoin._survey("n1", VIEW) == Unread()
    source.store.corrupt.add(BROKEN)
    source.start_again()
    assert await rejoin._survey("n1", VIEW) == Unread(frozenset({b"r\0\2", b"r\0\3"}))
    # The same holds if n1 starts again while its store is read.
    rejoin = joining(source)
    source.on_copy = source.start_again
    assert await rejoin._survey("n1", VIEW) is None


async def test_one_that_falls_silent_is_asked_from_there_on() -> None:
    source = Source()
    rejoin = joining(source)
    source.mute = True
    assert await rejoin._survey("n1", VIEW) is None
    source.mute = False
    assert await rejoin._survey("n1", VIEW) == Unread()
