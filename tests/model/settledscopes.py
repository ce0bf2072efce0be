"""Small worlds with settled reads: a disk tells a record alone if it knows that two disks have the record."""

from dataclasses import replace

from quorumvault.model import Version
from quorumvault.protocol import records
from quorumvault.server.storage import layout
from tests.model import rejoinscopes
from tests.model.knowledge import Knowing
from tests.model.rejoining import Call, RejoinWorld
from tests.model.rejoinscopes import RECORD, SECOND
from tests.model.scopes import A_NARROW, GET, GET_NARROW, NARROW, OTHER, OWNER, ROTATE, VALUE, A, C, Scope, digest_of, get, put
from tests.model.world import DISKS, KEYRING, Owed

PLACE, PLACE_NARROW = (layout.record_keys(OWNER.id, [1], [digest_of(VALUE, keyring)])[0][1:] for keyring in (KEYRING, NARROW))
READ, READ_NARROW = (get(keyring, DISKS[0], "read at n1") for keyring in (KEYRING, NARROW))

#: n1 puts the value again, unless its own replica knows that the value is settled.
AGAIN = put("put at n1", 2, alone=DISKS[0])
C_AT_N1 = put("put at n1", 2, OTHER, NARROW, alone=DISKS[0])

#: Replicas learn by notices alone, and know the whole bucket from the beginning.
TOLD, TOLD_NARROW = (Knowing(place, whole=True, compares=False) for place in (PLACE, PLACE_NARROW))
COMPARED, COMPARED_NARROW = Knowing(PLACE), Knowing(PLACE_NARROW)

#: Explored by the test suite. In each a Put may be lost, or only its acknowledgements. "again": the value is put once more, as by
#: a client that has heard nothing. "no-room": a replica cannot remember anything that is written.
SMALL = {
    "settled-put-read-get": Scope((A, READ, GET), at_least=150_000, knowing=COMPARED, group=2),
    "settled-put-again-read": Scope((A, AGAIN, READ), at_least=80_000, knowing=TOLD, group=2),
    "settled-no-room": Scope((A, READ), at_least=5_000, knowing=replace(COMPARED, room=0)),
    "settled-two-values-read": Scope((A_NARROW, C, READ_NARROW), NARROW, 30_000, replace(TOLD_NARROW, mends=True), group=2),
    "settled-put-again-rotate": Scope((AGAIN, ROTATE), at_least=100, knowing=TOLD, stored=RECORD),
    "settled-two-values-put": Scope((A_NARROW, C_AT_N1), NARROW, 1_000, TOLD_NARROW),
}
#: Explored by hand.
LARGE = {
    "settled-all-know": Scope((A,), knowing=replace(COMPARED, disks=(0, 1, 2))),
    "settled-put-again-read-compared": Scope((A, AGAIN, READ), knowing=COMPARED),
    "settled-put-read-get-mended": Scope((A, READ, GET), knowing=replace(COMPARED, mends=True)),
    "settled-two-values-read-compared": Scope((A_NARROW, C, READ_NARROW), NARROW, knowing=replace(COMPARED_NARROW, mends=True)),
    "settled-two-values-read-get": Scope((A_NARROW, C, READ_NARROW, GET_NARROW), NARROW, knowing=TOLD_NARROW),
}


_COMMON = {
    layout.register_key(OWNER.id): layout.encode_register(1, NARROW.secret_id),
    layout.owner_key(OWNER.id): OWNER.name.encode(),
}


def _holding(value: bytes, clock: int) -> dict[bytes, bytes]:
    (sealed,) = NARROW.epoch_keys(OWNER, 1).sealer.seal([value], [digest_of(value, NARROW)])
    return _COMMON | {layout.RECORD + PLACE_NARROW: records.header(Version(clock, 1)) + sealed}


#: Two values met in one token. The first is on two disks, was told, and is known from the beginning to the followed disks.
CONTESTED = {"n1": _holding(VALUE, 1), "n2": _holding(VALUE, 1), "n3": _holding(OTHER, 2)}
FOUND = Owed(frozenset({records.sealed_of(CONTESTED["n1"][layout.RECORD + PLACE_NARROW])}))
#: The numbers of disks: the old ones of n1 and n2, and the disk that joins in n2's place.
_N1, OLD, _NEW = 0, 1, 3
_DISKS = {_N1: DISKS[0], OLD: DISKS[1], _NEW: SECOND.disk}


def _put_read(disk: int, knowing: Knowing, *, stragglers: bool = False) -> RejoinWorld:
    """A value is put and then read at this disk, while the second disk is replaced."""
    calls = [Call("put", put()), Call("read", get(KEYRING, _DISKS[disk]), after=0)]
    knowing = replace(knowing, disks=(disk,))
    return RejoinWorld(calls, [SECOND], stragglers=stragglers, losses=False, views=2, knowing=knowing)


def contested(disk: int, knowing: Knowing, *, left_behind: bool = False) -> RejoinWorld:
    """One read at this disk, and one by quorum, while the second disk is replaced: after the quorum read there is a collision.

    ``left_behind``: the read may still tell the value, since the disk has not heard that it was replaced.
    """
    read = get(NARROW, _DISKS[disk], left_behind=left_behind)
    calls = [Call("read", read), Call("get", GET_NARROW)]
    knowing = replace(knowing, disks=(disk,))
    return RejoinWorld(
        calls, [SECOND], CONTESTED, FOUND, stragglers=False, losses=False, views=2, keyring=NARROW, knowing=knowing
    )


def _two_values() -> RejoinWorld:
    """Two values that meet in one token are put, while the second disk is replaced."""
    calls = [Call("put a", A_NARROW), Call("put b", C)]
    return RejoinWorld(calls, [SECOND], stragglers=False, losses=False, views=2, keyring=NARROW, knowing=TOLD_NARROW)


def _again_rotate(disk: int) -> RejoinWorld:
    """A value that is settled is put again after a rotate, while the second disk is replaced: this disk votes first."""
    calls = [Call("rotate", ROTATE), Call("put again", put("put again", 2, alone=_DISKS[disk]), after=0)]
    knowing = replace(TOLD, disks=(disk,))
    held = dict.fromkeys(("n1", "n2", "n3"), RECORD)
    return RejoinWorld(calls, [SECOND], held, stragglers=False, losses=False, views=2, knowing=knowing)


#: Disks are replaced. "old": the replaced disk, which lives on, is followed and asked; "new": the disk in its place is.
JOINS_SMALL = {
    "settled-join-put-read": rejoinscopes.Scope(lambda: _put_read(_N1, TOLD), 20_000),
    "settled-join-put-compared": rejoinscopes.Scope(
        lambda: RejoinWorld([Call("put", put())], [SECOND], stragglers=False, losses=False, views=2, knowing=COMPARED), 10_000
    ),
    "settled-join-put-read-old": rejoinscopes.Scope(lambda: _put_read(OLD, TOLD), 40_000),
    "settled-join-put-read-new": rejoinscopes.Scope(lambda: _put_read(_NEW, COMPARED), 40_000),
    "settled-join-again-rotate": rejoinscopes.Scope(lambda: _again_rotate(_N1), 1_000),
    "settled-join-again-rotate-old": rejoinscopes.Scope(lambda: _again_rotate(OLD), 1_000),
    "settled-join-contested": rejoinscopes.Scope(lambda: contested(_N1, replace(TOLD_NARROW, mends=True)), 20_000),
    "settled-join-contested-old": rejoinscopes.Scope(
        lambda: contested(OLD, replace(TOLD_NARROW, mends=True), left_behind=True), 30_000
    ),
    "settled-join-contested-new": rejoinscopes.Scope(lambda: contested(_NEW, replace(COMPARED_NARROW, mends=True)), 30_000),
}
JOINS_LARGE = {
    "settled-join-late-messages": rejoinscopes.Scope(lambda: _put_read(_N1, TOLD, stragglers=True), 50_000),
    "settled-join-put-read-compared": rejoinscopes.Scope(lambda: _put_read(_N1, COMPARED), 200_000),
    "settled-join-contested-compared": rejoinscopes.Scope(
        lambda: contested(_N1, replace(COMPARED_NARROW, whole=True, mends=True)), 100_000
    ),
    "settled-join-two-values": rejoinscopes.Scope(_two_values, 200_000),
}
