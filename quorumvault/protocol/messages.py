"""The messages that nodes send each other, and their MessagePack codec.

Structs are arrays on the wire, with an integer tag first, so that a field can only ever be added at the end, with a default;
a change that is more than that raises PROTOCOL_VERSION (a node speaks its own version and the one before, to which it sends no
message that is ``since`` a later one).

A **round** is one exchange with the replicas. Requests name the round and the view they are meant for; replies name both again
and the disk that speaks, so that a reply can be counted once, for what it answers, in the view it was given in.

Rules kept here: a reply counts once; every request names its view.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Final, Self

import msgspec

from quorumvault.protocol.rollback_marks import NO_MARK, Mark
from quorumvault.protocol.views import NO_VIEW, Mode, View, ViewId

PROTOCOL_VERSION: Final = 3


#: The public part of an API key (config/api_keys.py).
KeyId = Annotated[str, msgspec.Meta(pattern=r"\A[a-z2-7]{1,32}\Z")]


class RoundId(msgspec.Struct, frozen=True, array_like=True):
    """Unique for ever: the coordinator's disk, a nonce drawn at its start, and a counter."""

    disk: bytes
    boot: bytes
    counter: int


#: Round and view of a request that is not part of a round yet (``Request.sent_in``).
UNSENT: Final = (RoundId(b"", b"", 0), NO_VIEW)


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages. Its repr shows the kind alone: digests and sealed bytes make whole tokens and stay unseen."""

    #: Names of fields that are parallel columns, of equal length.
    columns: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.columns and len({len(getattr(self, name)) for name in self.columns}) > 1:
            raise ValueError("parallel columns differ in length")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Request(Message, frozen=True):
    """``since``: the first protocol version that has it."""

    since: ClassVar[int] = 1

    round: RoundId
    view: ViewId

    def sent_in(self, round_id: RoundId, view: ViewId) -> Self:
        """This request as a part of a round in a view."""
        return msgspec.structs.replace(self, round=round_id, view=view)


class Put(Request, frozen=True, tag=1):
    """Store new records of one owner and epoch, guarded by the fence. Parallel columns of equal length.

    ``secret`` is the id of the master secret that the epoch uses; ``header`` the record header (records.py) they share.
    ``owner_name`` is stored beside them: a replica needs it to authenticate its records later on.
    """

    columns: ClassVar[tuple[str, ...]] = ("digests", "sealed")
    owner: bytes
    epoch: int
    secret: str
    header: bytes
    digests: list[bytes]
    sealed: list[bytes]
    owner_name: str = ""


class Get(Request, frozen=True, tag=2):
    """Read records of one owner: parallel columns of epochs and digests."""

    columns: ClassVar[tuple[str, ...]] = ("epochs", "digests")
    owner: bytes
    epochs: list[int]
    digests: list[bytes]


class GetSettled(Request, frozen=True, tag=6):
    """Read the settled records among these. Answered with Holds, which has None for all others: only a value is told alone.

    A coordinator sends it to its own replica, never to a peer.
    """

    columns: ClassVar[tuple[str, ...]] = ("epochs", "digests")
    since: ClassVar[int] = 3
    owner: bytes
    epochs: list[int]
    digests: list[bytes]


class WriteBack(Request, frozen=True, tag=3):
    """Read repair: whole records, exempt from the fence. Authenticated before it is sent, and again by who receives it.

    ``owner_name`` is there because the keys that authenticate are derived from it.
    """

    columns: ClassVar[tuple[str, ...]] = ("epochs", "digests", "records")
    owner_name: str
    epochs: list[int]
    digests: list[bytes]
    records: list[bytes]


class ReadEpoch(Request, frozen=True, tag=4):
    owner: bytes


class RaiseEpoch(Request, frozen=True, tag=5):
    """Raise the owner's register to at least ``epoch``."""

    owner: bytes
    epoch: int
    secret: str


class _Request2(Request, frozen=True):
    """A request that all nodes know which speak TLS; those of version 1 did not."""

    since: ClassVar[int] = 2


class ReadRevoked(_Request2, frozen=True, tag=7):
    """Which API keys are revoked? ``known`` is the fingerprint of those that the asker knows. Answered with RevokedAre."""

    known: bytes


class RevokeKeys(_Request2, frozen=True, tag=8):
    """The API keys with these ids are revoked, for ever."""

    ids: list[KeyId]


class AskView(_Request2, frozen=True, tag=10):
    """A joining disk asks in which view and mode the receiving disk is. Answered with a ViewIs."""


class ProposeView(_Request2, frozen=True, tag=11):
    """Enter this view, if ``views.may_enter`` allows it. Answered with a ViewIs once that is durable."""

    proposed: View


class Copy(_Request2, frozen=True, tag=12):
    """The next registers and records of this disk, in the order of their keys, from the first one after ``after`` on.

    ``only_read``: whether they can be read is the question. The answer has the last of their keys, and an empty value.
    ``around``: what cannot be read of the records is passed over, and told.
    """

    after: bytes
    only_read: bool = False
    around: bool = False


class AskSums(_Request2, frozen=True, tag=16):
    """Ask for fingerprints of what the replica holds: of each group if ``groups`` is empty, else of each bucket in them."""

    groups: list[int]


class AskListing(_Request2, frozen=True, tag=17):
    """List the records of buckets ``first`` to ``end`` (not included): as many whole buckets as one answer takes."""

    first: int
    end: int


class Fetch(_Request2, frozen=True, tag=18):
    """Read whole records of any owner by their places (storage/layout.py)."""

    places: list[bytes]


class AskRegisters(_Request2, frozen=True, tag=19):
    """The epoch registers of owners, in the order of their ids, from the first one after ``after`` on."""

    after: bytes


class Settle(Request, frozen=True, tag=20):
    """The write rounds with these counters, of the disk and boot in ``round``, were committed. Answered with a ViewIs."""

    since: ClassVar[int] = 3
    counters: list[int]


class Reply(Message, frozen=True):
    round: RoundId
    view: ViewId
    disk: bytes


class Ack(Reply, frozen=True, tag=33):
    """The request is durable. ``refused`` has the items that were not written, by index: the record that is there instead
    (or b"" when that cannot be read). ``incarnation`` and ``sequence`` place the ack in the history of its disk."""

    incarnation: int
    sequence: int
    refused: dict[int, bytes]


class Stale(Reply, frozen=True, tag=34):
    """The fence: nothing was written, the owner's epoch here is larger."""

    epoch: int
    secret: str


class Holds(Reply, frozen=True, tag=35):
    """A record, or None for absent, per digest asked for. ``unknown`` lists the indices that could not be read: not absent."""

    records: list[bytes | None]
    unknown: list[int]


class EpochIs(Reply, frozen=True, tag=36):
    """The register; epoch 0 when it was never written."""

    epoch: int
    secret: str


class RevokedAre(Reply, frozen=True, tag=40):
    """The ids of the API keys that this disk knows to be revoked; None: those that the asker knows."""

    ids: list[KeyId] | None


class OtherView(Reply, frozen=True, tag=37):
    """Nothing was done: this disk is in another view, which ``current`` gives."""

    current: View


class NotVoting(Reply, frozen=True, tag=38):
    """This disk has no vote: it is joining, or, if ``full``, it is active and has written nothing for want of room."""

    full: bool = False


class Overflow(Reply, frozen=True, tag=39):
    """The records asked for do not fit into one reply."""


class ViewIs(Reply, frozen=True, tag=42):
    """The disk is in view ``current`` (None before it has entered one), in this mode. ``mark`` says how far it has come.

    ``remembered``: its marks of other disks, as they are durable there.
    """

    mode: Mode
    current: View | None
    mark: Mark = NO_MARK
    remembered: dict[bytes, Mark] = {}


class Copied(Reply, frozen=True, tag=43):
    """Parallel columns of the store's keys and values; ``last``: there are no more after them.

    ``gaps``: first place, and first place behind, of each part that was passed over; ``until``: the key after which the next ones
    are, if that is not the last of these.
    """

    columns: ClassVar[tuple[str, ...]] = ("keys", "values")
    keys: list[bytes]
    values: list[bytes]
    last: bool
    gaps: list[tuple[bytes, bytes]] = []
    until: bytes = b""


class NotCopied(Reply, frozen=True, tag=44):
    """What the store has after the key ``after`` and before ``end`` cannot all be read. A copy can go on after ``end``.

    ``end`` is empty if the disk does not say where that would be.
    """

    after: bytes = b""
    end: bytes = b""


class Sums(Reply, frozen=True, tag=48):
    """Unsigned integers of 64 bits, big-endian, in the order asked for; None while this replica is still counting.

    ``sequence`` is the number of writes that they are the sums after. ``unknown``, beside the sums of groups, has the buckets of
    which this replica does not know all that it had.
    """

    sums: bytes | None
    sequence: int = 0
    unknown: tuple[int, ...] = ()


class Listing(Reply, frozen=True, tag=49):
    """The contents of the buckets before ``next``: parallel columns of places and of the hashes of their records.

    ``unreadable`` lists the buckets that cannot be read.
    """

    columns: ClassVar[tuple[str, ...]] = ("places", "hashes")
    next: int
    places: list[bytes]
    hashes: list[bytes]
    unreadable: list[int]


class Fetched(Reply, frozen=True, tag=50):
    """The first of the records asked for, at least one; None for one that is not there, or cannot be read.

    ``names`` has the names of their owners, by id.
    """

    records: list[bytes | None]
    names: dict[bytes, str]


class Registers(Reply, frozen=True, tag=51):
    """Parallel columns; no rows at the end. A name is empty if this replica does not know it."""

    columns: ClassVar[tuple[str, ...]] = ("owners", "names", "epochs", "secrets")
    owners: list[bytes]
    names: list[str]
    epochs: list[int]
    secrets: list[str]


#: Requests about all that a replica holds, for comparing it with another one, and the replies to them.
Survey = AskSums | AskListing | Fetch | AskRegisters
Surveyed = Sums | Listing | Fetched | Registers
_OfCoordinators = Put | Get | GetSettled | WriteBack | ReadEpoch | RaiseEpoch | ReadRevoked | RevokeKeys
AnyRequest = _OfCoordinators | AskView | ProposeView | Copy | Settle | Survey
_ToCoordinators = Ack | Stale | Holds | EpochIs | RevokedAre | OtherView | NotVoting | Overflow
AnyReply = _ToCoordinators | ViewIs | Copied | NotCopied | Surveyed

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_reply_decoder: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)


def encode(message: AnyRequest | AnyReply) -> bytes:
    return _encoder.encode(message)


def decode_request(data: bytes | memoryview) -> AnyRequest:
    """Raises ValueError or RecursionError for anything that is not exactly a request."""
    return _request_decoder.decode(data)


def decode_reply(data: bytes | memoryview) -> AnyReply:
    """Raises ValueError or RecursionError for anything that is not exactly a reply."""
    return _reply_decoder.decode(data)


@dataclass(frozen=True)
class Outgoing:
    """A request to several replicas, encoded at most once."""

    request: AnyRequest

    @cached_property
    def wire(self) -> bytes:
        return encode(self.request)
