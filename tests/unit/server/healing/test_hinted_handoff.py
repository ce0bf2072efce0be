"""Hinted handoff: a peer gets what it missed, from memory or after a restart, and nothing else is moved."""

import itertools
from contextlib import suppress
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.config.cluster import HealingSettings
from quorumvault.model import Owner
from quorumvault.protocol import hinted_handoff
from quorumvault.protocol.hinted_handoff import HINT_KEYS, Hint, Ledger, Owed
from quorumvault.protocol.messages import AnyRequest, Put, RoundId, WriteBack
from quorumvault.protocol.peer import NoReply, OnReply
from quorumvault.server.healing.requests import NoAnswer, Storage
from quorumvault.server.replica.replica import OwnWork
from quorumvault.server.storage import layout
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.healing import CLINIC, REGISTRY, Cluster, Node, values
from tests.rigs.trio import DISKS, VIEW

DISK = DISKS["n3"]
digests = st.integers(0, 30).map(lambda number: bytes([number]) * 20)
misses = st.lists(
    st.tuples(st.sampled_from([CLINIC, REGISTRY]), st.integers(1, 2), st.lists(digests, min_size=1, max_size=5)), max_size=20
)


@given(misses, st.integers(1, 40), st.sets(st.integers(0, 19)))
def test_a_ledger_has_all_that_was_missed_or_says_that_it_dropped_it(
    missed: list[tuple[Owner, int, list[bytes]]], limit: int, stores_after: set[int]
) -> None:
    ledger, stored, expected = Ledger(DISK, limit), list[tuple[int, Hint]](), set()
    for number, (owner, epoch, keys) in enumerate(missed):
        ledger.miss(owner.id, owner.name, epoch, keys, number)
        expected |= {(owner.id, epoch, key) for key in keys}
        if number in stores_after:
            stored += ledger.take_unstored()
    stored += ledger.take_unstored()
    kept = {(hint.owner, hint.epoch, digest) for _, hint in stored for digest in hint.digests}
    assert ledger.overflowed or kept == expected
    assert not ledger.overflowed or sum(len(keys) for *_, keys in missed) > limit
    assert ledger.records >= len(expected)
    assert [number for number, _ in stored] == list(range(len(stored)))


@given(misses, st.data())
def test_what_is_owed_falls_to_nothing_as_it_is_handed_off(
    missed: list[tuple[Owner, int, list[bytes]]], data: st.DataObject
) -> None:
    ledger, stored, clock = Ledger(DISK, 10**6), list[tuple[int, Hint]](), 0
    while missed or stored:
        if missed and (not stored or data.draw(st.booleans())):
            owner, epoch, keys = missed.pop()
            clock += 1
            ledger.miss(owner.id, owner.name, epoch, keys, clock)
            stored += ledger.take_unstored()
            assert ledger.since is not None
        else:
            before = ledger.records
            _, hint = stored.pop(0)
            ledger.handed_off(hint, stored[0][1] if stored else None)
            assert ledger.records == before - len(hint.digests)
            assert ledger.since == (stored[0][1].since if stored else None)
    assert (ledger.records, ledger.since) == (0, None)


def test_hints_are_bounded_in_size_and_come_back_from_their_bytes() -> None:
    ledger = Ledger(DISK, 10**6)
    ledger.miss(CLINIC.id, CLINIC.name, 3, [number.to_bytes(20, "big") for number in range(2 * HINT_KEYS + 1)], 7)
    hints = [hint for _, hint in ledger.take_unstored()]
    assert [hint.records for hint in hints] == [HINT_KEYS, HINT_KEYS, 1]
    assert [hinted_handoff.decode(hinted_handoff.encode(hint)) for hint in hints] == hints
    assert repr(hints[-1]) == "<Hint of 1 records>"


@pytest.mark.parametrize("whole", [True, False])
def test_a_comparison_settles_what_was_dropped_before_it_began_if_it_is_whole(whole: bool) -> None:
    ledger = Ledger(DISK, 3)
    ledger.miss(CLINIC.id, CLINIC.name, 1, [bytes([number]) for number in range(5)], 7)
    assert (ledger.overflowed, ledger.records, ledger.since) == (True, 5, 7)
    settles = ledger.begin_comparison()
    ledger.miss(CLINIC.id, CLINIC.name, 1, [b"meanwhile"], 9)
    ledger.end_comparison(settles, whole=whole)
    fresh = ledger.take_unstored()
    if whole:
        assert (ledger.overflowed, ledger.records) == (False, 1)
        ((_, hint),) = fresh
        ledger.handed_off(hint, None)
        assert (ledger.records, ledger.since) == (0, None)
    else:
        assert (ledger.overflowed, ledger.records, ledger.since, fresh) == (True, 6, 7, [])


async def test_what_a_peer_missed_reaches_it_and_nothing_else_does(nodes: Cluster) -> None:
    """Proves: hinted handoff."""
    n1 = nodes["n1"]
    await n1.coordinator.tokenize(CLINIC, values(0, 50))
    await nodes.cut_off("n3")
    await n1.coordinator.tokenize(CLINIC, values(50, 60))
    await n1.coordinator.tokenize(REGISTRY, values(0, 10))
    n1.now += 5_000
    await n1.healer.handoff.once()
    assert (n1.healer.handoff.owed("n3"), n1.healer.handoff.owed("n2")) == (Owed(20, 5.0), Owed(0, 0.0))
    assert (len(n1.hints()), len(nodes["n3"].records())) == (2, 50)
    nodes.bring_back("n3")
    n1.ways["n3"].asked.clear()
    await n1.healer.handoff.once()
    assert nodes["n3"].common() == n1.common() == nodes["n2"].common()
    assert sum(len(request.records) for request in n1.ways["n3"].asked if isinstance(request, WriteBack)) == 20
    assert (n1.healer.handoff.owed("n3"), n1.hints(), n1.diary.handoffs) == (Owed(0, 0.0), [], [("n3", 20)])


def busy_at(node: Node, number: int) -> Storage:
    """The node's storage thread, which refuses the request with this number, counted from 1."""
    numbers = itertools.count(1)

    def submit(request: AnyRequest | OwnWork, on_reply: OnReply) -> None:
        if next(numbers) == number:
            on_reply(NoReply(sent=False))
        else:
            node.commit.submit(request, on_reply)

    return cast("Storage", SimpleNamespace(submit=submit))


@pytest.mark.parametrize("number", range(1, 9))
async def test_after_a_restart_each_hint_counts_once_however_busy_the_disk_is(nodes: Cluster, number: int) -> None:
    n1 = nodes["n1"]
    await nodes.cut_off("n3")
    for owner in (CLINIC, REGISTRY):
        await n1.coordinator.tokenize(owner, values(0, 10))
    await n1.healer.handoff.once()
    n1.restart_healing()
    n1.healer.handoff.storage = busy_at(n1, number)
    for _ in range(3):
        with suppress(NoAnswer):
            await n1.healer.handoff.once()
    assert n1.healer.handoff.owed("n3").records == 20


async def test_hints_that_the_busy_disk_does_not_take_are_made_up_for_by_a_comparison(nodes: Cluster) -> None:
    """Also those of an owner's register, which count as no record."""
    n1 = nodes["n1"]
    await n1.coordinator.tokenize(CLINIC, values(0, 1))
    await n1.healer.handoff.once()
    await nodes.cut_off("n3")
    await n1.coordinator.rotate(CLINIC, 1)
    n1.healer.handoff.storage = busy_at(n1, 2)  # after the question whether there is room for hints
    with pytest.raises(NoAnswer):
        await n1.healer.handoff.once()
    nodes.bring_back("n3")
    await n1.healer.handoff.once()
    assert n1.healer.handoff.overflowed("n3")
    await n1.healer.anti_entropy.once()
    assert nodes["n3"].common() == n1.common()


async def test_hints_outlive_the_process_and_those_in_memory_do_not(nodes: Cluster) -> None:
    n1 = nodes["n1"]
    await nodes.cut_off("n3")
    await n1.coordinator.tokenize(CLINIC, values(0, 10))
    await n1.healer.handoff.once()
    await n1.coordinator.tokenize(CLINIC, values(10, 15))
    n1.restart_healing()
    n1.now += 60_000
    await n1.healer.handoff.once()
    assert n1.healer.handoff.owed("n3") == Owed(10, 60.0)
    await n1.coordinator.tokenize(CLINIC, values(20, 23))
    nodes.bring_back("n3")
    await n1.healer.handoff.once()
    assert (len(nodes["n3"].records()), n1.hints()) == (13, [])


async def test_a_rotate_that_a_peer_missed_reaches_it(nodes: Cluster) -> None:
    n1 = nodes["n1"]
    await nodes.cut_off("n2")
    assert await n1.coordinator.rotate(CLINIC, 1) == 2
    nodes.bring_back("n2")
    await n1.healer.handoff.once()
    assert nodes["n2"].common() == n1.common()
    assert layout.decode_register(nodes["n2"].common()[layout.register_key(CLINIC.id)])[0] == 2


async def test_a_peer_that_goes_away_again_keeps_what_it_is_owed(nodes: Cluster) -> None:
    n1 = nodes["n1"]
    await nodes.cut_off("n3")
    for first in range(0, 48, 3):  # as many hints as one handoff takes: a failure behind them does not keep them
        await n1.coordinator.tokenize(CLINIC, values(first, first + 3))
        await n1.healer.handoff.once()
    await n1.coordinator.tokenize(REGISTRY, values(0, 4))
    nodes.bring_back("n3")
    n1.ways["n3"].drops = lambda request: isinstance(request, WriteBack) and request.owner_name == REGISTRY.name
    await n1.healer.handoff.once()
    assert n1.healer.handoff.owed("n3").records == 4
    n1.ways["n3"].drops = lambda request: False
    await n1.healer.handoff.once()
    assert (n1.healer.handoff.owed("n3").records, nodes["n3"].records()) == (0, n1.records())


async def test_a_peer_that_takes_nothing_does_not_stand_in_the_way_of_the_other(nodes: Cluster) -> None:
    n1 = nodes["n1"]
    for away in ("n2", "n3"):
        await nodes.cut_off(away)
        await n1.coordinator.tokenize(CLINIC, values(0, 3) if away == "n2" else values(3, 6))
        nodes.bring_back(away)
    n1.ways["n2"].drops = lambda request: isinstance(request, WriteBack)
    await n1.healer.handoff.once()
    assert (n1.healer.handoff.owed("n2").records, n1.healer.handoff.owed("n3").records) == (3, 0)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [HealingSettings(share=1.0, hints=25)])
async def test_more_than_the_limit_is_dropped_and_counted_until_everything_is_compared(nodes: Cluster) -> None:
    n1 = nodes["n1"]
    await nodes.compare_all()
    await nodes.cut_off("n3")
    for first in range(0, 60, 10):
        await n1.coordinator.tokenize(CLINIC, values(first, first + 10))
        await n1.healer.handoff.once()
    assert (n1.healer.handoff.owed("n3").records, n1.hints()) == (60, [])
    nodes.bring_back("n3")
    await n1.healer.handoff.once()
    assert nodes["n3"].records() == {}
    await n1.healer.anti_entropy.once()
    assert (nodes["n3"].common(), n1.healer.handoff.owed("n3")) == (n1.common(), Owed(0, 0.0))
    await nodes.cut_off("n3")
    await n1.coordinator.tokenize(CLINIC, values(100, 110))
    nodes.bring_back("n3")
    await n1.healer.handoff.once()
    assert nodes["n3"].records() == n1.records()


async def test_what_is_owed_to_a_disk_that_is_gone_is_deleted(nodes: Cluster) -> None:
    n1 = nodes["n1"]
    await nodes.cut_off("n3")
    await n1.coordinator.tokenize(CLINIC, values(0, 3))
    await n1.healer.handoff.once()
    missed = Put(RoundId(b"", b"", 0), VIEW.id, CLINIC.id, 1, "m1", b"", [bytes(20)], [b""], CLINIC.name)
    assert (n1.healer.handoff.owed("n3").records, len(n1.hints())) == (3, 1)
    n1.healer.handoff.missed("n3", b"another disk at all"[:16], missed)
    assert n1.healer.handoff.owed("n3").records == 1
    await n1.healer.handoff.once()
    assert (n1.healer.handoff.owed("n3").records, n1.hints()) == (0, [])


async def test_what_an_earlier_process_kept_for_a_disk_that_is_gone_is_deleted(nodes: Cluster) -> None:
    n1 = nodes["n1"]
    n1.store.write({layout.hint_key(b"another disk at all"[:16], 7): b"whatever"})
    await n1.healer.handoff.once()
    assert n1.hints() == []


@pytest.mark.slow
async def test_hints_that_cannot_be_read_are_left_to_a_comparison(nodes: Cluster, stores: dict[str, FaultyStore]) -> None:
    n1 = nodes["n1"]
    await nodes.compare_all()
    await nodes.cut_off("n3")
    await n1.coordinator.tokenize(CLINIC, values(0, 10))
    await n1.healer.handoff.once()
    stores["n1"].corrupt.update(n1.hints())
    nodes.bring_back("n3")
    await n1.healer.handoff.once()
    assert n1.healer.handoff.owed("n3").records == 10
    await n1.healer.anti_entropy.once()
    assert (n1.healer.handoff.owed("n3"), nodes["n3"].records()) == (Owed(0, 0.0), n1.records())
    stores["n1"].corrupt.clear()
    await n1.healer.handoff.once()
