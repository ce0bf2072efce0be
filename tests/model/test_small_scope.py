"""Every interleaving of a few operations on the real core. And that the model can say no: each safety undone is caught."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from quorumvault import replica
from quorumvault.crypto import canonical
from quorumvault.crypto.keys import Keyring
from quorumvault.model import Owner, Version
from quorumvault.protocol import epochs, operations, read, records, rounds
from quorumvault.protocol.epochs import EpochRead, Register
from quorumvault.protocol.operations import Written
from quorumvault.protocol.quorum import Tally
from quorumvault.protocol.read import WriteBackNeeded
from quorumvault.replica import Replica
from tests.model.world import KEYRING, Operation, Owed, Violation, World

OWNER = Owner("acme")
NARROW = Keyring("m1", bytes(32), digest_bits=8)
VALUE = canonical.from_str("value")


def digest_of(value: bytes, keyring: Keyring = KEYRING) -> bytes:
    return keyring.epoch_keys(OWNER, 1).digests([value])[0]


def sealed_form(value: bytes, keyring: Keyring) -> bytes:
    return keyring.epoch_keys(OWNER, 1).sealer.seal([value], [digest_of(value, keyring)])[0]


def put(name: str, clock: int = 1, value: bytes = VALUE, keyring: Keyring = KEYRING) -> Operation:
    header = records.header(Version(clock, 1))

    def obliges(result: Any) -> Owed:
        committed = result.epoch == 1 and not result.collided
        return Owed(frozenset({sealed_form(value, keyring)}) if committed else frozenset(), result.epoch)

    def breaks(result: Written, owed: Owed) -> str | None:
        if result.epoch < owed.epoch:
            return "an epoch older than one that a finished rotate, or an answer, had shown"
        if result.epoch == 1 and not result.collided and owed.found - {sealed_form(value, keyring)}:
            return "acknowledged under a token that stands for another value"
        return None

    return Operation(name, lambda: operations.tokenize(OWNER, [value], keyring, header, 1), obliges, breaks)


def get(name: str, keyring: Keyring = KEYRING) -> Operation:
    digest = digest_of(VALUE, keyring)

    def obliges(result: Any) -> Owed:
        return Owed(frozenset(records.sealed_of(r) for r in result if isinstance(r, bytes)))

    def breaks(result: Any, owed: Owed) -> str | None:
        (found,) = result
        if len(owed.found) > 1:
            return "two values were acknowledged or seen under one token"
        if found is None and owed.found:
            return "not found, after it was acknowledged or seen"
        if isinstance(found, bytes) and owed.found - {records.sealed_of(found)}:
            return "another value than the one that was acknowledged or seen"
        return None

    return Operation(name, lambda: operations.read_records(OWNER, [1], [digest], keyring), obliges, breaks)


def rotate(name: str) -> Operation:
    return Operation(name, lambda: operations.rotate(OWNER, 1, KEYRING), lambda e: Owed(epoch=e), _no_older)


def epoch(name: str) -> Operation:
    return Operation(
        name,
        lambda: operations.read_epoch(OWNER, KEYRING),
        lambda register: Owed(epoch=register.epoch),
        lambda register, owed: _no_older(register.epoch, owed),
    )


def _no_older(epoch: Any, owed: Owed) -> str | None:
    return "an epoch older than one that was shown" if epoch < owed.epoch else None


def met_value() -> bytes:
    """Another value with VALUE's token, when tokens are cut to 8 bits."""
    wanted = digest_of(VALUE, NARROW)
    return next(v for v in map(canonical.from_int, range(10_000)) if digest_of(v, NARROW) == wanted)


PUT_GET_GET = [put("put"), get("get a"), get("get b")]
PUT_PUT_GET = [put("put a", 1), put("put b", 2), get("get")]
ROTATE_PUT = [rotate("rotate"), put("put")]
ROTATE_PUT_PUT = [rotate("rotate"), put("put a"), put("put b", 2)]
ROTATE_EPOCHS = [rotate("rotate"), epoch("epoch a"), epoch("epoch b")]
COLLIDING = [put("put a", 1, VALUE, NARROW), put("put b", 2, met_value(), NARROW), get("get a", NARROW), get("get b", NARROW)]
#: Three clients: one writes, one reads twice, one rotates and then writes.
EVERYTHING = [put("put a", 1), get("get a"), replace(get("get b"), after=1), rotate("rotate"), replace(put("put b", 2), after=3)]


def names(scope: list[Operation]) -> str:
    return ", ".join(operation.name for operation in scope)


@pytest.mark.parametrize("scope", [PUT_GET_GET, PUT_PUT_GET, ROTATE_PUT, ROTATE_EPOCHS], ids=names)
def test_every_interleaving_with_a_replica_given_up_and_stragglers(scope: list[Operation]) -> None:
    assert World(scope, losses=1).explore() > 1_000


def test_every_interleaving_of_two_values_under_one_token() -> None:
    assert World(COLLIDING[:3], keyring=NARROW).explore() > 1_000
    assert World(COLLIDING, keyring=NARROW, stragglers=False).explore() > 10_000


def test_every_interleaving_of_two_puts_two_reads_and_a_rotate() -> None:
    assert World(EVERYTHING, stragglers=False).explore() > 10_000


def _write_nothing_back(*arguments: Any) -> Iterator[Any]:
    yield from ()
    return True


def _overwrites(self: Replica, keys: list[bytes], incoming: list[bytes], staged: dict[bytes, bytes]) -> dict[int, bytes]:
    staged.update(zip(keys, incoming, strict=True))
    return {}


class _FirstReply(epochs.EpochRound):
    def _decision(self) -> EpochRead | None:
        return EpochRead(self._answers[0] if self._answers[0].epoch else Register(1, ""), settled=True) if self._answers else None


class _NotWrittenBack(epochs.EpochRound):
    def _decision(self) -> EpochRead | None:
        decision = super()._decision()
        return decision and EpochRead(decision.register, settled=True)


def _hasty(states: Any, pending: int) -> Any:
    """Takes the first value that comes, and one replica's word for absent."""
    verdict = read_judge(states, pending)
    return states[0] if isinstance(verdict, WriteBackNeeded) else verdict


read_judge = read.judge

#: What is undone, where, and a scope that must notice.
UNDONE: dict[str, tuple[object, str, object, list[Operation]]] = {
    "read repair": (operations, "_write_back", _write_nothing_back, PUT_GET_GET),
    "the fence": (replica, "fenced", lambda mine, theirs: False, ROTATE_PUT),
    "the largest of two epochs": (operations, "EpochRound", _FirstReply, ROTATE_EPOCHS),
    "writing an epoch back": (operations, "EpochRound", _NotWrittenBack, ROTATE_EPOCHS),
    "two replicas for a value": (read, "judge", _hasty, PUT_GET_GET),
    "write-once": (Replica, "_store_once", _overwrites, COLLIDING[:3]),
    "two acknowledgements": (rounds, "Tally", lambda disks, needed: Tally(disks, 1), PUT_GET_GET),
}


@pytest.mark.parametrize("safety", UNDONE)
def test_the_model_notices_when_a_safety_is_undone(safety: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, replacement, scope = UNDONE[safety]
    monkeypatch.setattr(module, name, replacement)
    keyring = NARROW if scope[0] is COLLIDING[0] else KEYRING
    with pytest.raises(Violation):
        World(scope, keyring=keyring).explore()
