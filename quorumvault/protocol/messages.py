"""The messages that nodes send each other, and their MessagePack codec.

Structs are arrays on the wire, with an integer tag first. So a field can only be added at the end, with a default; any larger
change raises PROTOCOL_VERSION. A node speaks its own version and the previous one. To a peer of the previous version it sends no
message whose ``since`` is later.

A **round** is one exchange with the replicas. A request names its round and the view that it is meant for. A reply repeats both
and names the replying disk, so that it counts once, for the request that it answers, in the view in which it was given.

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
    """Never used twice: the coordinator's disk, a nonce drawn when its process started, and a counter."""

    disk: bytes
    boot: bytes
    counter: int


#: Placeholder for round and view in a request that is not part of a round yet (``Request.sent_in`` fills them in).
UNSENT: Final = (RoundId(b"", b"", 0), NO_VIEW)


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Base of all messages. Its repr shows the kind only: digests and sealed bytes would reveal whole tokens."""

    #: The names of the fields that are parallel columns, of equal length.
    columns: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.columns and len({len(getattr(self, name)) for name in self.columns}) > 1:
            raise ValueError("parallel columns differ in length")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Request(Message, frozen=True):
    """``since``: the first protocol version that has this request."""

    since: ClassVar[int] = 1

    round: RoundId
    view: ViewId

    def sent_in(self, round_id: RoundId, view: ViewId) -> Self:
        """This request as a part of a round in a view."""
        return msgspec.structs.replace(self, round=round_id, view=view)


class Put(Request, frozen=True, tag=1):
    """Store new records of one owner and epoch, guarded by the fence. Parallel columns of equal length.

    ``secret`` is the id of the master secret that the epoch uses; ``header`` is the record header (records.py) that all the
    records share. ``owner_name`` is stored beside them: a replica needs it later to authenticate its records.
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
    """Read those of these records that are settled, and vote on the fence of a batch. Answered with Settled.

    One replica alone can confirm a value, but not that a key is absent. A coordinator sends this to its own replica only.
    ``epoch`` and ``secret`` are the batch's. For a read the epoch is 0, and there is no vote.
    """

    columns: ClassVar[tuple[str, ...]] = ("epochs", "digests")
    since: ClassVar[int] = 3
    owner: bytes
    epochs: list[int]
    digests: list[bytes]
    epoch: int = 0
    secret: str = ""


class WriteBack(Request, frozen=True, tag=3):
    """Read repair: whole records, exempt from the fence. Sender and receiver each authenticate the records.

    The keys for that are derived from ``owner_name``.
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
    """A request that came with version 2 of the protocol, as TLS did."""

    since: ClassVar[int] = 2


class ReadRevoked(_Request2, frozen=True, tag=7):
    """Ask which API keys are revoked. ``known`` is the fingerprint of the ids that the asker knows. Answered with RevokedAre."""

    known: bytes


class RevokeKeys(_Request2, frozen=True, tag=8):
    """The API keys with these ids are revoked, for ever."""

    ids: list[KeyId]


class AskView(_Request2, frozen=True, tag=10):
    """A joining disk asks for the receiving disk's view and mode. Answered with a ViewIs."""


class ProposeView(_Request2, frozen=True, tag=11):
    """Enter this view, if ``views.may_enter`` allows it. Answered with a ViewIs once the new view is durable."""

    proposed: View


class Copy(_Request2, frozen=True, tag=12):
    """Ask for this disk's next registers and records, in the order of their keys, from the first key after ``after`` on.

    ``only_read``: only check that they can be read. The answer has the last key with an empty value.
    ``around``: skip records that cannot be read, and report the skipped parts (``Copied.gaps``).
    """

    after: bytes
    only_read: bool = False
    around: bool = False


class AskSums(_Request2, frozen=True, tag=16):
    """Ask for the replica's sums: one for each group if ``groups`` is empty, else one for each bucket in ``groups``."""

    groups: list[int]


class AskListing(_Request2, frozen=True, tag=17):
    """List the records of buckets ``first`` to ``end`` (not included): as many whole buckets as fit into one answer."""

    first: int
    end: int


class Fetch(_Request2, frozen=True, tag=18):
    """Read whole records of any owner by their places (storage/layout.py)."""

    places: list[bytes]


class AskRegisters(_Request2, frozen=True, tag=19):
    """Ask for the owners' epoch registers, in the order of owner ids, from the first id after ``after`` on."""

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
    """The request is durable. ``refused`` maps the index of each item that was not written to the record that is there instead
    (b"" if that record cannot be read). ``incarnation`` and ``sequence`` place the ack in the history of its disk."""

    incarnation: int
    sequence: int
    refused: dict[int, bytes]


class Stale(Reply, frozen=True, tag=34):
    """The fence: nothing was written, because the owner's epoch on this replica is larger, or uses another master secret."""

    epoch: int
    secret: str


class Holds(Reply, frozen=True, tag=35):
    """For each key asked for: its record, or None if absent. ``unknown`` has the indices that could not be read: not absent."""

    records: list[bytes | None]
    unknown: list[int]


class Settled(Reply, frozen=True, tag=41):
    """For each key asked for: its record if that is settled, else None.

    ``current``: the owner's register has the batch's epoch and secret, which is this disk's vote that the fence lets it pass.
    """

    records: list[bytes | None]
    current: bool


class EpochIs(Reply, frozen=True, tag=36):
    """The register; epoch 0 if it was never written."""

    epoch: int
    secret: str


class RevokedAre(Reply, frozen=True, tag=40):
    """The ids of the API keys that this disk knows to be revoked; None if they are exactly those that the asker knows."""

    ids: list[KeyId] | None


class OtherView(Reply, frozen=True, tag=37):
    """Nothing was done: this disk is in another view, ``current``."""

    current: View


class NotVoting(Reply, frozen=True, tag=38):
    """This disk does not vote: it is joining; or, if ``full``, it is active but had no room, and wrote nothing."""

    full: bool = False


class Overflow(Reply, frozen=True, tag=39):
    """The records asked for do not fit into one reply."""


class ViewIs(Reply, frozen=True, tag=42):
    """The disk is in view ``current`` (None before it has entered a view), in ``mode``. ``mark`` is the disk's own mark.

    ``remembered``: the marks of other disks that are durable on this disk.
    """

    mode: Mode
    current: View | None
    mark: Mark = NO_MARK
    remembered: dict[bytes, Mark] = {}


class Copied(Reply, frozen=True, tag=43):
    """Parallel columns of the store's keys and values; ``last``: no keys come after these.

    ``gaps``: for each skipped part, its first place and the first place behind it. ``until``: the key after which to continue, if
    that is not the last of ``keys``.
    """

    columns: ClassVar[tuple[str, ...]] = ("keys", "values")
    keys: list[bytes]
    values: list[bytes]
    last: bool
    gaps: list[tuple[bytes, bytes]] = []
    until: bytes = b""


class NotCopied(Reply, frozen=True, tag=44):
    """The store cannot be read in full after the key ``after`` and before ``end``. A copy can continue after ``end``.

    ``end`` is empty if the disk does not say where a copy could continue.
    """

    after: bytes = b""
    end: bytes = b""


class Sums(Reply, frozen=True, tag=48):
    """Unsigned integers of 64 bits, big-endian, in the order asked for; None while this replica is still counting.

    The sums are as of ``sequence`` writes. ``unknown``, sent with the sums of groups, lists the buckets in which this replica has
    gaps.
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
    """The first of the records asked for, at least one; None for a record that is absent or cannot be read.

    ``names`` maps the ids of their owners to names.
    """

    records: list[bytes | None]
    names: dict[bytes, str]


class Registers(Reply, frozen=True, tag=51):
    """Parallel columns; empty after the last register. A name is empty if this replica does not know it."""

    columns: ClassVar[tuple[str, ...]] = ("owners", "names", "epochs", "secrets")
    owners: list[bytes]
    names: list[str]
    epochs: list[int]
    secrets: list[str]


#: Requests for comparing whole replicas, and the replies to them.
Survey = AskSums | AskListing | Fetch | AskRegisters
Surveyed = Sums | Listing | Fetched | Registers
_OfCoordinators = Put | Get | GetSettled | WriteBack | ReadEpoch | RaiseEpoch | ReadRevoked | RevokeKeys
AnyRequest = _OfCoordinators | AskView | ProposeView | Copy | Settle | Survey
_ToCoordinators = Ack | Stale | Holds | Settled | EpochIs | RevokedAre | OtherView | NotVoting | Overflow
AnyReply = _ToCoordinators | ViewIs | Copied | NotCopied | Surveyed

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_reply_decoder: msgspec.msgpack.Decoder[AnyReply] = msgspec.msgpack.Decoder(AnyReply)


def encode(message: AnyRequest | AnyReply) -> bytes:
    return _encoder.encode(message)


def decode_request(data: bytes | memoryview) -> AnyRequest:
    """Raises ValueError or RecursionError if the bytes are not exactly one request."""
    return _request_decoder.decode(data)


def decode_reply(data: bytes | memoryview) -> AnyReply:
    """Raises ValueError or RecursionError if the bytes are not exactly one reply."""
    return _reply_decoder.decode(data)


@dataclass(frozen=True)
class Outgoing:
    """A request to several replicas, encoded at most once."""

    request: AnyRequest

    @cached_property
    def wire(self) -> bytes:
        return encode(self.request)
