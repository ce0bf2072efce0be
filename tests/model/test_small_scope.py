"""Every interleaving of a few operations, on the real core. And that the model can say no: each safety undone is caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quorumvault.crypto import canonical
from quorumvault.crypto.keys import Keyring
from quorumvault.model import Owner, Version
from quorumvault.protocol import epochs, operations, records
from quorumvault.protocol.operations import Written
from quorumvault.protocol.read import Open, WriteBackNeeded, judge
from tests.model.world import KEYRING, LOST, Operation, State, World

OWNER = Owner("acme")
VALUE = canonical.from_str("value")
FIRST_TOKEN = KEYRING.epoch_keys(OWNER, 1).digests([VALUE])[0]
NARROW = Keyring("m1", bytes(32), digest_bits=8)


class Violation(AssertionError):
    pass


def put(name: str, clock: int, value: bytes = VALUE, keyring: Keyring = KEYRING) -> Operation:
    header = records.header(Version(clock, 1))
    return Operation(name, lambda: operations.tokenize(OWNER, [value], keyring, header, 1))


def read(name: str, digest: bytes = FIRST_TOKEN, keyring: Keyring = KEYRING) -> Operation:
    return Operation(name, lambda: operations.read_records(OWNER, [1], [digest], keyring))


def rotate(name: str) -> Operation:
    return Operation(name, lambda: operations.rotate(OWNER, 1, KEYRING))


def epoch(name: str) -> Operation:
    return Operation(name, lambda: operations.read_epoch(OWNER, KEYRING))


def check(operations_: list[Operation]) -> Callable[[State, int], None]:
    """The rules, for one key: nothing acknowledged is lost, nothing seen is unseen, no one falls behind a finished rotate."""

    def require(holds: bool, rule: str, state: State) -> None:
        if not holds:
            raise Violation(f"{rule}\n  " + "\n  ".join(state.trace))

    def checker(state: State, number: int) -> None:
        progress = state.progress[number]
        assert progress is not None
        if progress.result is LOST:
            return
        before = [(operations_[n].name, state.progress[n].result) for n in progress.after]
        before = [(name, result) for name, result in before if result is not LOST]
        name, result = operations_[number].name, progress.result
        if name.startswith("read"):
            (found,) = result
            written = any(isinstance(r, Written) and r.epoch == 1 and not r.collided for _, r in before)
            seen = {records.sealed_of(r[0]) for n, r in before if n.startswith("read") and isinstance(r[0], bytes)}
            if written or seen:
                require(found is not None, "not found after it was acknowledged or seen", state)
            if isinstance(found, bytes):
                require(seen <= {records.sealed_of(found)}, "another value than was seen before", state)
        rotated = any(n.startswith("rotate") for n, _ in before)
        known = max((r.epoch for n, r in before if n.startswith("epoch")), default=1)
        if isinstance(result, Written):
            require(result.epoch >= (2 if rotated else known), "an epoch from before a finished rotate", state)
        if name.startswith("epoch"):
            require(result.epoch >= (2 if rotated else known), "an epoch smaller than one that was returned", state)

    return checker


SCOPES: dict[str, list[Operation]] = {
    "two puts, a read": [put("put a", 1), put("put b", 2), read("read a")],
    "a put, two reads": [put("put a", 1), read("read a"), read("read b")],
    "a rotate, a put, an epoch": [rotate("rotate a"), put("put a", 1), epoch("epoch a")],
    "a rotate, two epochs": [rotate("rotate a"), epoch("epoch a"), epoch("epoch b")],
}


@pytest.mark.parametrize("scope", SCOPES)
def test_every_interleaving_keeps_the_rules(scope: str) -> None:
    world = World(SCOPES[scope], losses=1)
    assert world.explore(check(SCOPES[scope])) > 1_000


def test_two_puts_two_reads_and_a_rotate() -> None:
    scope = [put("put a", 1), put("put b", 2), read("read a"), read("read b"), rotate("rotate a")]
    states = World(scope).explore(check(scope))
    print(f"{states} states")
    assert states > 10_000
