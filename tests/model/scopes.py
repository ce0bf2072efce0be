"""The subjects of small worlds: a few operations on one key and one register, and the results that must never occur."""

from collections.abc import Mapping
from dataclasses import dataclass

from quorumvault.crypto import canonical
from quorumvault.crypto.keys import Keyring
from quorumvault.model import Owner, Version
from quorumvault.protocol import operations, records, revocations
from quorumvault.protocol.fence import Register
from quorumvault.protocol.operations import OwnReplica, Written
from quorumvault.protocol.read import Open
from quorumvault.protocol.steps import Steps
from tests.model.damage import Damage
from tests.model.groups import MOST
from tests.model.knowledge import Knowing
from tests.model.world import KEYRING, Operation, Owed, World

OWNER = Owner("acme")
#: Tokens are cut to 8 bits, so that two values meet in one token.
NARROW = Keyring("m1", bytes(32), digest_bits=8)
VALUE = canonical.from_str("value")
#: The last epoch: all rotates are from epoch 1.
LAST_EPOCH = 2


def digest_of(value: bytes, keyring: Keyring = KEYRING) -> bytes:
    return keyring.epoch_keys(OWNER, 1).digests([value])[0]


#: Another value with the same token as VALUE in epoch 1.
OTHER = next(v for v in map(b"i%d".__mod__, range(10_000)) if digest_of(v, NARROW) == digest_of(VALUE, NARROW))


def put(
    kind: str = "put", clock: int = 1, value: bytes = VALUE, keyring: Keyring = KEYRING, alone: bytes | None = None
) -> Operation:
    """A write. ``alone``: the disk of the coordinator's own node, which is first asked whether the value is settled already."""
    own = None if alone is None else OwnReplica(alone, lambda owner, epoch, digests: range(len(digests)))
    header = records.header(Version(clock, 1))
    sealed = frozenset(keyring.epoch_keys(OWNER, 1).sealer.seal([value], [digest_of(value, keyring)]))

    def stands(result: Written) -> bool:
        return result.epoch == 1 and not result.collided

    def breaks(result: Written, owed: Owed) -> str | None:
        if stands(result) and owed.found - sealed:
            return "acknowledged under a token that stands for another value"
        return _wrong_epoch(result.epoch, owed)

    return Operation(
        kind,
        lambda: operations.tokenize(OWNER, [value], keyring, header, 1, own),
        lambda result: Owed(sealed if stands(result) else frozenset(), result.epoch),
        breaks,
        lambda owed: Owed(owed.found - sealed, owed.epoch),
    )


class _Alone(bytes):
    """A record that one disk told alone."""

    def __repr__(self) -> str:
        return f"alone {super().__repr__()}"


def get(keyring: Keyring = KEYRING, alone: bytes | None = None, kind: str = "get", *, left_behind: bool = False) -> Operation:
    """A read. ``alone``: the disk of the coordinator's own node, which is first asked whether it may tell the value alone.

    ``left_behind``: it may do so even after a collision was seen, since its disk was replaced and has not heard of the collision.
    """
    digest = digest_of(VALUE, keyring)

    def breaks(result: list[bytes | Open | None], owed: Owed) -> str | None:
        (found,) = result
        if isinstance(found, _Alone) and left_behind:
            owed = Owed(owed.found)
        if len(owed.found) > 1:
            return "two values were acknowledged or seen under one token"
        if owed.collided and found in (None, *_values(result)):
            return "not a collision any more, after one was seen"
        if found is None and owed.found:
            return "not found, after it was acknowledged or seen"
        if isinstance(found, bytes) and owed.found - {records.sealed_of(found)}:
            return "another value than the one that was acknowledged or seen"
        return None

    return Operation(
        kind,
        lambda: _look_up(keyring, digest, alone),
        lambda result: Owed(frozenset(map(records.sealed_of, _values(result))), collided=result == [Open.COLLISION]),
        breaks,
        lambda owed: Owed(owed.found, collided=owed.collided),
        begins=0 if alone is None else 1,
    )


def _look_up(keyring: Keyring, digest: bytes, alone: bytes | None) -> Steps[list[bytes | Open | None]]:
    """Reads as Coordinator does: by quorum, if the one disk does not tell the value, or tells bytes that are not authentic."""
    if alone is not None:
        (told,) = yield from operations.read_settled(OWNER, [1], [digest], alone)
        if told is not None and records.authentic(told, digest, keyring.epoch_keys(OWNER, 1).sealer):
            return [_Alone(told)]
    return (yield from operations.read_records(OWNER, [1], [digest], keyring, lambda size: None))


def _values(result: list[bytes | Open | None]) -> list[bytes]:
    return [found for found in result if isinstance(found, bytes)]


def rotate() -> Operation:
    return Operation(
        "rotate", lambda: operations.rotate(OWNER, 1, KEYRING), lambda epoch: Owed(epoch=epoch), _wrong_epoch, _only_epoch
    )


def read_epoch() -> Operation:
    def breaks(register: Register, owed: Owed) -> str | None:
        return _wrong_epoch(register.epoch, owed)

    return Operation(
        "epoch", lambda: operations.read_epoch(OWNER, KEYRING), lambda register: Owed(epoch=register.epoch), breaks, _only_epoch
    )


def _only_epoch(owed: Owed) -> Owed:
    return Owed(epoch=owed.epoch)


def _wrong_epoch(epoch: int, owed: Owed) -> str | None:
    if epoch > LAST_EPOCH:
        return "an epoch that no rotate has opened"
    return "an epoch older than one that was shown" if epoch < owed.epoch else None


def revoke(key_id: str = "keya") -> Operation:
    ids = frozenset({key_id})
    return Operation(
        f"revoke {key_id}", lambda: revocations.revoke(ids, frozenset(), listed=True), _revoked, _forgotten, _only_revoked
    )


def read_revoked() -> Operation:
    return Operation("revoked", lambda: revocations.read_revoked(frozenset()), _revoked, _forgotten, _only_revoked)


def _revoked(ids: frozenset[str]) -> Owed:
    return Owed(revoked=ids)


def _only_revoked(owed: Owed) -> Owed:
    return Owed(revoked=owed.revoked)


def _forgotten(ids: frozenset[str], owed: Owed) -> str | None:
    return "a key is not revoked any more that was" if owed.revoked - ids else None


@dataclass(frozen=True)
class Scope:
    """Operations that run concurrently, in more than ``at_least`` states; states that differ by a renaming count as one."""

    operations: tuple[Operation, ...]
    keyring: Keyring = KEYRING
    at_least: int = 0
    knowing: Knowing | None = None
    stored: Mapping[bytes, bytes] | None = None
    group: int = MOST
    damage: Damage | None = None

    def world(self, *, renaming: bool = True) -> World:
        return World(
            self.operations,
            keyring=self.keyring,
            renaming=renaming,
            knowing=self.knowing,
            stored=self.stored,
            group=self.group,
            damage=self.damage,
        )


A, B, C = put("put a", 1), put("put b", 2), put("put c", 2, OTHER, NARROW)
A_NARROW, GET_NARROW = put("put a", 1, VALUE, NARROW), get(NARROW)
PUT, GET, ROTATE, EPOCH = put(), get(), rotate(), read_epoch()
REVOKE, REVOKE_OTHER, REVOKED = revoke(), revoke("keyb"), read_revoked()

#: Explored by the test suite. Two writers write one value, each with its own version; two values meet in one token.
SMALL = {
    "put-get-get": Scope((PUT, GET, GET), at_least=1_000),
    "two-writers-get": Scope((A, B, GET), at_least=3_000),
    "two-values-get": Scope((A_NARROW, C, GET_NARROW), NARROW, at_least=1_500),
    "two-values-get-get": Scope((A_NARROW, C, GET_NARROW, GET_NARROW), NARROW, at_least=20_000),
    "rotate-epoch-epoch": Scope((ROTATE, EPOCH, EPOCH), at_least=500),
    "rotate-rotate-epoch": Scope((ROTATE, ROTATE, EPOCH), at_least=1_000),
    "revoke-read-read": Scope((REVOKE, REVOKED, REVOKED), at_least=500),
    "rotate-put-put": Scope((PUT, PUT, ROTATE), at_least=10_000),
    "put-put-get-rotate": Scope((PUT, PUT, GET, ROTATE), at_least=200_000),
}
#: Explored by hand: they take minutes. Two values in one token with two reads and a rotate are more than 16 million states.
LARGE = {
    "revoke-revoke-read": Scope((REVOKE, REVOKE_OTHER, REVOKED)),
    "put-put-get-get-rotate": Scope((PUT, PUT, GET, GET, ROTATE)),
    "put-put-rotate-rotate": Scope((PUT, PUT, ROTATE, ROTATE)),
    "two-writers-get-rotate": Scope((A, B, GET, ROTATE)),
    "two-values-get-rotate": Scope((A_NARROW, C, GET_NARROW, ROTATE), NARROW),
}
