"""Small worlds with a lost disk and its replacement."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from quorumvault.model import Version
from quorumvault.protocol import records
from quorumvault.protocol.rollback_marks import NO_MARK, Mark
from quorumvault.server.storage import layout
from tests.model.rejoining import Call, Joiner, RejoinWorld
from tests.model.scopes import OWNER, VALUE, digest_of, get, put, read_revoked, revoke, rotate
from tests.model.world import KEYRING, Owed

SECOND, OTHER_SECOND, THIRD = Joiner("n2", b"d" * 16), Joiner("n2", b"e" * 16), Joiner("n3", b"f" * 16)
(SEALED,) = KEYRING.epoch_keys(OWNER, 1).sealer.seal([VALUE], [digest_of(VALUE)])
PUT_GET = [Call("put", put()), replace(Call("get", get()), after=0)]
ROTATE_PUT = [Call("rotate", rotate()), replace(Call("put", put()), after=0)]
#: A record on two of three disks: it was acknowledged.
RECORD = {
    layout.record_keys(OWNER.id, [1], [digest_of(VALUE)])[0]: records.header(Version(1, 1)) + SEALED,
    layout.register_key(OWNER.id): layout.encode_register(1, KEYRING.secret_id),
}
ACKNOWLEDGED = Owed(frozenset({SEALED}))


def stored(*nodes: str, joiners: list[Joiner], lost: tuple[str, ...] = (), views: int = 2) -> RejoinWorld:
    """Reads a record that these nodes' old disks have while disks join."""
    holders = dict.fromkeys(nodes, RECORD)
    return RejoinWorld([Call("get", get())], joiners, stored=holders, owed=ACKNOWLEDGED, lost=lost, views=views)


@dataclass(frozen=True)
class Scope:
    """``at_least``: the world has more states than this, so that a world which becomes smaller by mistake is noticed."""

    world: Callable[[], RejoinWorld]
    at_least: int


def _damaged(at_hand: dict[bytes, bytes] | None, remembered: Mark = NO_MARK) -> RejoinWorld:
    """n1 cannot read a record that its disk and n2's old disk acknowledged. n2 gets a new disk, with or without the old one."""
    key, _ = RECORD
    beside = {key[:3] + bytes(len(key) - 3): b"readable"}  # a scan of the bucket begins here: one gap, not thousands
    holders = {"n1": RECORD | beside, "n2": RECORD}
    return RejoinWorld(
        [Call("get", get())],
        [SECOND],
        stored=holders,
        owed=ACKNOWLEDGED,
        lost=("n2",),
        unreadable=("n1",),
        at_hand=at_hand,
        remembered=remembered,
        stragglers=False,
        losses=False,
        views=2,
    )


_TWO_GETS = [Call("get a", get()), replace(Call("get b", get()), after=0)]
_REVOKE_READ = [Call("revoke", revoke()), replace(Call("revoked", read_revoked()), after=0)]
_TWO_JOIN = partial(stored, joiners=[SECOND, THIRD])

#: On two of three disks: the revocation was acknowledged.
_REVOKED = {layout.revoked_key("keya"): layout.REVOKED_VALUE}


def _read_revoked() -> RejoinWorld:
    """n1's and n2's old disks know that a key is revoked, and a new disk takes n2's place."""
    owed = Owed(revoked=frozenset({"keya"}))
    stored = dict.fromkeys(("n1", "n2"), _REVOKED)
    return RejoinWorld([Call("revoked", read_revoked())], [SECOND], stored=stored, owed=owed, lost=("n2",))


#: Explored by the test suite. "beside": the old disk lives on. If n2 and n3 are lost, nothing may go on (two lost disks need an
#: operator): one disk with the acknowledged record is left, or none, and nobody may say "not found".
#: Rules without a mutant are explored too: a refused round starts again; a joiner proposes the next view.
SMALL = {
    "join-beside-put-get": Scope(lambda: RejoinWorld(PUT_GET, [SECOND], stragglers=False), 40_000),
    "join-beside-rotate-put": Scope(lambda: RejoinWorld(ROTATE_PUT, [SECOND], stragglers=False), 150_000),
    "join-and-late-messages": Scope(lambda: RejoinWorld(PUT_GET, [SECOND]), 100_000),
    "join-piece-by-piece": Scope(lambda: RejoinWorld(PUT_GET, [SECOND], stragglers=False, copy_bytes=1), 70_000),
    "join-revoked-read": Scope(_read_revoked, 100),
    "join-damaged-survivor": Scope(lambda: _damaged(None), 10),
    "join-from-old-disk": Scope(lambda: _damaged(RECORD, Mark(1, 1)), 100),
    "join-from-older-copy": Scope(lambda: _damaged({}, Mark(1, 2)), 10),
    "join-beside-revoke-read": Scope(lambda: RejoinWorld(_REVOKE_READ, [SECOND], stragglers=False), 10_000),
    # A disk that is replaced has a record that nobody acknowledged.
    "join-beside-repair": Scope(
        lambda: RejoinWorld(_TWO_GETS, [SECOND], {"n2": RECORD}, stragglers=False, losses=False, views=2, learns=True), 1_000
    ),
    "two-join-n3-lost-on-n1-n2": Scope(lambda: _TWO_JOIN("n1", "n2", lost=("n3",), views=3), 10_000),
    "two-join-n3-lost-on-n2-n3": Scope(lambda: _TWO_JOIN("n2", "n3", lost=("n3",), views=3), 10_000),
    "two-join-n3-lost-on-n1-n3": Scope(lambda: _TWO_JOIN("n1", "n3", lost=("n3",), views=3), 10_000),
    "two-join-beside": Scope(lambda: _TWO_JOIN("n1", "n2"), 100_000),
    "two-want-one-slot": Scope(lambda: stored("n1", "n2", joiners=[SECOND, OTHER_SECOND], lost=("n2",)), 100_000),
    "both-lost-on-n1-n2": Scope(lambda: _TWO_JOIN("n1", "n2", lost=("n2", "n3")), 100),
    "both-lost-on-n2-n3": Scope(lambda: _TWO_JOIN("n2", "n3", lost=("n2", "n3")), 100),
    "both-lost-on-n1-n3": Scope(lambda: _TWO_JOIN("n1", "n3", lost=("n2", "n3")), 100),
}
#: Explored by hand.
LARGE = {
    "join-late-messages-piece-by-piece": Scope(lambda: RejoinWorld(PUT_GET, [SECOND], copy_bytes=1), 100_000),
    "two-slots": Scope(
        lambda: RejoinWorld(_TWO_GETS, [SECOND, THIRD], stored={"n3": RECORD}, views=2, stragglers=False, losses=False), 400_000
    ),
}
