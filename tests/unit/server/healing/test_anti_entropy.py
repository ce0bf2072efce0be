"""Anti-entropy: whatever two replicas hold, a comparison finds exactly what differs, and makes the replicas equal."""

import asyncio
from collections.abc import Generator, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumvault.config.limits import Timeouts
from quorumvault.crypto.keys import Keyring
from quorumvault.model import Owner, Version
from quorumvault.protocol import anti_entropy, messages, records
from quorumvault.protocol.anti_entropy import AskOne, Compared, Step, compare, verify
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.messages import AskListing, Fetch, RoundId
from quorumvault.protocol.views import View
from quorumvault.server.healing.anti_entropy import merge_records, merge_registers
from quorumvault.server.healing.requests import on_storage_thread
from quorumvault.server.storage import layout
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.healing import CLINIC, REGISTRY, Cluster, Node, values
from tests.rigs.made import flip
from tests.rigs.trio import KEYRING, VIEW, make_replica

pytestmark = pytest.mark.slow

ROUND = RoundId(bytes(16), b"boot", 1)


class Side:
    """One replica, asked directly."""

    def __init__(self, node: str, content: dict[bytes, bytes], keyring: Keyring = KEYRING, view: View = VIEW) -> None:
        self.store = FaultyStore(MemoryStore())
        self.store.write(content)
        self.store.write({layout.owner_key(owner.id): owner.name.encode() for owner in (CLINIC, REGISTRY)})
        self.view = view
        self.replica = make_replica(self.store, node, keyring, view, reply_bytes=1 << 20)
        self.count()

    def count(self) -> None:
        first = 0
        while first < BUCKETS:
            first = self.replica.inventory.count(first)

    def ask(self, step: AskOne) -> object:
        (reply,) = self.replica.handle([step.request.sent_in(ROUND, self.view.id)])
        return reply

    def common(self) -> dict[bytes, bytes]:
        return dict(self.store.scan(layout.RECORD)) | dict(self.store.scan(layout.REGISTER))


def drive(steps: Generator[Step, object, Any], mine: Side, theirs: Side, taken: list[Step] | None = None) -> Any:
    """Run the steps as the event loop does. ``taken`` collects them."""
    result: object = None
    try:
        while True:
            step = steps.send(result)
            if taken is not None:
                taken.append(step)
            match step:
                case AskOne():
                    result = (theirs if step.of_peer else mine).ask(step)
                case anti_entropy.MergeRegisters():
                    result = merge_registers(mine.replica, step.registers)
                case anti_entropy.MergeRecords():
                    result = merge_records(mine.replica, step)
                case anti_entropy.GiveRegister(owner=owner):
                    held = mine.store.get([layout.register_key(owner)])[0]
                    assert isinstance(held, bytes)
                    theirs.replica.handle([messages.RaiseEpoch(ROUND, VIEW.id, owner, *layout.decode_register(held))])
                    result = None
                case anti_entropy.WriteBackRecords(places=places):
                    result = write_back(mine, theirs, places)
    except StopIteration as end:
        return end.value


def write_back(mine: Side, theirs: Side, places: list[bytes]) -> int:
    taken = 0
    for owner, found in mine.replica.inventory.collect(places).records.items():
        keys = [layout.parse_place(place) for place in found]
        columns = [epoch for _, epoch, _ in keys], [digest for *_, digest in keys], list(found.values())
        (ack,) = theirs.replica.handle([messages.WriteBack(ROUND, VIEW.id, owner.name, *columns)])
        taken += len(found) - len(ack.refused)
    return taken


def record(owner: Owner, epoch: int, number: int, clock: int, keyring: Keyring = KEYRING) -> tuple[bytes, bytes]:
    """The key and the record of a number's text."""
    keys = keyring.epoch_keys(owner, epoch)
    (digest,) = keys.digests(values(number, number + 1))
    (sealed,) = keys.sealer.seal(values(number, number + 1), [digest])
    (key,) = layout.record_keys(owner.id, [epoch], [digest])
    return key, records.header(Version(clock, 1)) + sealed


def content_of(rows: Iterable[tuple[Owner, int, int, int]]) -> dict[bytes, bytes]:
    return dict(record(*row) for row in rows)


rows = st.tuples(st.sampled_from([CLINIC, REGISTRY]), st.integers(1, 2), st.integers(0, 40), st.integers(1, 3))
epochs = st.dictionaries(st.sampled_from([CLINIC, REGISTRY]), st.integers(1, 5))
contents = st.builds(
    lambda rows, epochs: (
        content_of(rows) | {layout.register_key(owner.id): layout.encode_register(epoch, "m1") for owner, epoch in epochs.items()}
    ),
    st.lists(rows, max_size=30),
    epochs,
)


def merged(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The content on which two replicas converge, computed from the rules alone."""
    both = one | other
    for key in one.keys() & other.keys():
        is_register = key.startswith(layout.REGISTER)
        both[key] = max(one[key], other[key]) if is_register else records.merge(one[key], other[key])
    return both


@settings(max_examples=5)
@given(contents, contents)
def test_two_replicas_of_any_content_become_one(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    """Proves: anti-entropy."""
    n1, n2 = Side("n1", one), Side("n2", other)
    drive(compare(), n1, n2)
    assert n1.common() == n2.common() == merged(one, other)
    again = drive(compare(), n1, n2)
    assert again == Compared()
    for side in (n1, n2):
        before = [side.replica._sums[bucket] for bucket in range(BUCKETS)]
        side.count()
        assert [side.replica._sums[bucket] for bucket in range(BUCKETS)] == before


@settings(max_examples=5)
@given(contents, contents)
def test_what_is_fetched_and_given_is_what_differs_and_nothing_else(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    taken: list[Step] = []
    n1, n2 = Side("n1", one), Side("n2", other)
    drive(compare(), n1, n2, taken)
    fetched = {place for step in taken if isinstance(step, AskOne) for place in _fetched(step)}
    given = {place for step in taken if isinstance(step, anti_entropy.WriteBackRecords) for place in step.places}
    ours, theirs = ({key[1:]: each[key] for key in each if key.startswith(layout.RECORD)} for each in (one, other))
    assert fetched == {place for place, record in theirs.items() if ours.get(place) != record}
    assert given == {place for place, record in ours.items() if theirs.get(place) != record}


def _fetched(step: AskOne) -> list[bytes]:
    request = step.request.sent_in(ROUND, VIEW.id)
    return request.places if isinstance(request, Fetch) else []


def test_replicas_that_are_equal_compare_a_page_of_registers_and_the_sums_of_groups() -> None:
    content = content_of((CLINIC, 1, number, 1) for number in range(2000))
    taken: list[Step] = []
    assert drive(compare(), Side("n1", content), Side("n2", content), taken) == Compared()
    asked = [type(step.request.sent_in(ROUND, VIEW.id)).__name__ for step in taken if isinstance(step, AskOne)]
    assert asked == ["AskRegisters", "AskRegisters", "AskSums", "AskSums"]


def test_one_record_among_many_is_found_by_one_bucket() -> None:
    content = content_of((CLINIC, 1, number, 1) for number in range(2000))
    n1, n2 = Side("n1", content), Side("n2", dict(list(content.items())[1:]))
    taken: list[Step] = []
    assert drive(compare(), n1, n2, taken) == Compared(buckets=1, given=1)
    requests = [step.request.sent_in(ROUND, VIEW.id) for step in taken if isinstance(step, AskOne)]
    assert [request.end - request.first for request in requests if isinstance(request, AskListing)] == [1, 1]
    assert n2.common() == content


def test_many_differences_in_a_row_are_listed_slice_by_slice() -> None:
    content = content_of((CLINIC, 1, number, 1) for number in range(1200))
    n1, n2 = Side("n1", {}), Side("n2", content)
    compared = drive(compare(), n1, n2)
    assert (compared.taken, compared.given, n1.common()) == (1200, 0, content)


def test_two_values_in_one_token_stay_where_they_are() -> None:
    """Each read settles such values among three replicas. A conflict mark here would silence two replicas that agree."""
    narrow = Keyring("m1", bytes(range(32)), digest_bits=8)
    first = record(CLINIC, 1, 0, 1, narrow)
    other = next(each for number in range(1, 2000) if (each := record(CLINIC, 1, number, 1, narrow))[0] == first[0])
    n1, n2 = Side("n1", dict([first]), narrow), Side("n2", dict([other]), narrow)
    assert drive(compare(), n1, n2) == drive(compare(), n2, n1) == Compared(buckets=1)
    assert (n1.common(), n2.common()) == (dict([first]), dict([other]))


def test_rotten_bytes_are_neither_taken_nor_given_nor_make_a_mark() -> None:
    key, good = record(CLINIC, 1, 7, 1)
    n1, n2 = Side("n1", {key: good}), Side("n2", {key: flip(good)})
    # The tag is unchanged, so the sums agree: only a listing or the scrub can find the difference.
    assert drive(compare(), n1, n2) == Compared()
    n2 = Side("n2", {key: flip(good, 12)})
    assert (drive(compare(), n1, n2), n1.common()) == (Compared(buckets=1), {key: good})
    assert (drive(compare(), n2, n1), n2.common()) == (Compared(buckets=1, taken=1, given=1), {key: good})


def test_a_record_under_a_foreign_key_is_not_taken() -> None:
    (key, _), (_, other) = record(CLINIC, 1, 7, 1), record(CLINIC, 1, 8, 1)
    n1, n2 = Side("n1", {}), Side("n2", {key: other})
    assert (drive(compare(), n1, n2), n1.common()) == (Compared(buckets=1), {})


def test_what_can_be_read_of_a_bucket_is_mended_and_what_cannot_is_left_alone() -> None:
    content = content_of((CLINIC, 1, number, 1) for number in range(200))
    bad = min(content)
    n1 = Side("n1", {})
    n2 = Side("n2", content)
    n2.store.corrupt.add(bad)
    compared = drive(compare(), n1, n2)
    assert compared.unreadable == 1
    assert n1.common().keys() == content.keys() - {bad}
    n1.store.write({bad: content[bad]})
    compared = drive(compare(), n2, n1)
    assert (compared.taken, compared.given, compared.unreadable) == (0, 0, 1)


def test_buckets_that_neither_side_can_read_are_not_settled_by_their_sums() -> None:
    """Such a bucket has no sum. That both sums are missing says nothing about the records that can be read there."""
    content = content_of((CLINIC, 1, number, 1) for number in range(20))
    key = min(content)
    n1, n2 = Side("n1", content), Side("n2", {})
    for side in (n1, n2):
        side.store.corrupt.add(key[:-1] + b"\0")
        side.store.write({key[:-1] + b"\0": b"?"})
        side.count()
    n2.store.write({other: held for other, held in content.items() if other != key})
    for side in (n1, n2):
        side.count()
    steps: list[Step] = []
    drive(compare(), n1, n2, steps)
    for step in steps:
        if isinstance(step, anti_entropy.SettleBuckets):
            n1.replica.settle(step.view, step.buckets, step.sequence)
    assert n1.replica.settled.select([key]) == []
    assert n1.replica.settled.select([max(content)]) == [0]


def test_registers_that_cannot_be_read_end_the_comparison() -> None:
    n1, n2 = Side("n1", {}), Side("n2", {layout.register_key(CLINIC.id): layout.encode_register(2, "m1")})
    n2.store.corrupt.add(layout.register_key(CLINIC.id))
    with pytest.raises(anti_entropy.CannotCompare, match="registers that cannot be used"):
        drive(compare(), n1, n2)


def test_nothing_is_compared_before_all_is_counted() -> None:
    n1, n2 = Side("n1", {}), Side("n2", content_of([(CLINIC, 1, 1, 1)]))
    n2.replica._sums.complete = False
    with pytest.raises(anti_entropy.CannotCompare, match="the peer is still counting"):
        drive(compare(), n1, n2)
    with pytest.raises(anti_entropy.CannotCompare, match="this node is still counting"):
        drive(compare(), n2, n1)


@settings(max_examples=5)
@given(contents, contents)
def test_verify_counts_what_differs_by_the_bytes_and_changes_nothing(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    n1, n2 = Side("n1", one), Side("n2", other)
    found, first = drive(anti_entropy.verify_registers(), n1, n2), 0
    while first < BUCKETS:
        first, slice_ = drive(verify(first), n1, n2)
        found += slice_
    ours, theirs = ({key for key in each if key.startswith(layout.RECORD)} for each in (one, other))
    assert found == anti_entropy.Differences(
        records=len(ours | theirs),
        only_here=len(ours - theirs),
        only_there=len(theirs - ours),
        unequal=sum(one[key] != other[key] for key in ours & theirs),
        registers=sum(one.get(key) != other.get(key) for key in (one.keys() | other.keys()) - ours - theirs),
    )
    assert (n1.common(), n2.common()) == (one, other)


def test_verify_sees_a_flipped_bit_that_no_sum_shows() -> None:
    key, good = record(CLINIC, 1, 7, 1)
    n1, n2 = Side("n1", {key: good}), Side("n2", {key: flip(good)})
    first, unequal = 0, 0
    while first < BUCKETS:
        first, found = drive(verify(first), n1, n2)
        unequal += found.unequal
    assert unequal == 1


@pytest.mark.parametrize(
    ("first", "end"), [(5, 5), (6, 5), (-1, 3), (BUCKETS, BUCKETS), (BUCKETS, BUCKETS + 5), (BUCKETS + 1, BUCKETS + 9)]
)
def test_a_listing_of_no_buckets_is_empty(first: int, end: int) -> None:
    """A peer may ask for any range."""
    side = Side("n1", content_of([(CLINIC, 1, 1, 1)]))
    (listing,) = side.replica.handle([AskListing(ROUND, VIEW.id, first, end)])
    assert (listing.next, listing.places, listing.unreadable) == (first, [], [])


# On running nodes.


def let_pass(seconds: float) -> None:
    """From here on the event loop's clock shows so much more."""
    loop = asyncio.get_running_loop()
    before = loop.time
    loop.time = lambda: before() + seconds  # type: ignore[method-assign]


async def store_alone(node: Node, count: int) -> None:
    """Stores so many records on this node's disk only, without a round, and so without a hint."""
    records = content_of((CLINIC, 1, number, 1) for number in range(count))
    records[layout.owner_key(CLINIC.id)] = CLINIC.name.encode()
    await on_storage_thread(node.commit, lambda replica: replica.merge(list(records), list(records.values())))


async def test_nodes_that_lost_hints_become_the_same_by_one_comparison_each(nodes: Cluster) -> None:
    for away in nodes:
        await nodes.cut_off(away)
        via = nodes[next(node for node in nodes if node != away)]
        await via.coordinator.tokenize(CLINIC, values(len(via.records()), len(via.records()) + 30))
        await via.coordinator.rotate(REGISTRY, 1)
        nodes.bring_back(away)
    for node in nodes.values():
        node.restart_healing()
    await nodes.compare_all()
    assert nodes["n1"].common() == nodes["n2"].common() == nodes["n3"].common()


async def test_it_is_due_at_the_start_and_then_when_the_time_has_come(nodes: Cluster) -> None:
    n1 = nodes["n1"]
    await nodes.compare_all()
    assert [node for node, _ in n1.diary.comparisons] == ["n2", "n3"]
    await n1.healer.anti_entropy.once()
    assert len(n1.diary.comparisons) == 2
    assert n1.healer.anti_entropy._due["n2"] != n1.healer.anti_entropy._due["n3"]


async def test_what_a_node_wrote_alone_while_it_was_cut_off_reaches_all_soon_after_the_link_is_back(nodes: Cluster) -> None:
    """The write was never acknowledged, so no node has a hint for it. The comparisons at the start came before the write."""
    await nodes.compare_all()
    for node in nodes.values():
        await node.healer.anti_entropy.repair()
    loop, n1, n3 = asyncio.get_running_loop(), nodes["n1"], nodes["n3"]
    await store_alone(n3, 20)
    healers = [node.healer.anti_entropy for node in nodes.values()]
    for healer in healers:
        assert all(due > loop.time() + healer.seconds / 2 for due in healer._due.values())
        healer.link_changed()
        assert all(due == pytest.approx(loop.time() + Timeouts().round, abs=0.1) for due in healer._due.values())
    let_pass(Timeouts().round)
    n3.diary.comparisons.clear()
    await n3.healer.anti_entropy.once()
    assert n3.diary.comparisons[:2] == [("n1", Compared(buckets=20, given=20)), ("n2", Compared(buckets=20, given=20))]
    assert n1.records() == nodes["n2"].records() == n3.records()
    # A link that keeps changing causes at most one comparison in the timeout of a round.
    n3.healer.anti_entropy.link_changed()
    done = len(n3.diary.comparisons)
    await n3.healer.anti_entropy.once()
    assert len(n3.diary.comparisons) == done


async def test_what_the_fence_left_on_one_disk_reaches_all_soon_though_no_link_changed(nodes: Cluster) -> None:
    """n1 has missed a rotation: its own replica takes a batch of the old epoch, which both others refuse."""
    n1, n3 = nodes["n1"], nodes["n3"]
    await n1.coordinator.tokenize(CLINIC, values(0, 5))
    await nodes.compare_all()
    await n1.healer.anti_entropy.repair()
    await nodes.cut_off("n1")
    await nodes["n2"].coordinator.rotate(CLINIC, 1)
    nodes.bring_back("n1")
    healer, loop = n1.healer.anti_entropy, asyncio.get_running_loop()
    assert all(due > loop.time() + healer.seconds / 2 for due in healer._due.values())
    assert (await n1.coordinator.tokenize(CLINIC, values(5, 25))).epoch == 2
    await nodes.settled()
    assert len(n1.records()) == len(n3.records()) + 20
    let_pass(Timeouts().round)
    await healer.once()
    assert n1.common() == nodes["n2"].common() == n3.common()


async def test_what_one_peer_gives_reaches_the_other_at_once(nodes: Cluster) -> None:
    """n1 compares itself with n2 first; a record that only n3 has reaches n2 through n1."""
    await nodes.compare_all()
    n1, n3 = nodes["n1"], nodes["n3"]
    await store_alone(n3, 3)
    n1.healer.anti_entropy.left_over()
    let_pass(Timeouts().round)
    await n1.healer.anti_entropy.once()
    assert n1.records() == nodes["n2"].records() == n3.records()


@pytest.mark.parametrize(("seconds", "share"), [(0.5, 1 / (1 + 4)), (5.0, 10 / (10 + 5))])
async def test_comparisons_for_what_is_left_over_all_the_time_rest_in_between(
    nodes: Cluster, seconds: float, share: float
) -> None:
    """More is left over while each comparison lasts. The rest is four times as long, and at most 5 s."""
    healer, loop = nodes["n1"].healer.anti_entropy, asyncio.get_running_loop()
    await nodes.compare_all()
    await healer.repair()
    compare, before = healer.compare, loop.time
    passed = comparing = 0.0

    async def compare_for_long(node: str) -> Compared | str:
        nonlocal passed, comparing
        passed, comparing = passed + seconds, comparing + seconds
        healer.left_over()
        return await compare(node)

    loop.time = lambda: before() + passed  # type: ignore[method-assign]
    healer.compare = compare_for_long  # type: ignore[method-assign]
    while passed < healer.seconds / 2:
        healer.left_over()
        await healer.once()
        passed += 0.5
    assert share * 0.8 <= comparing / passed <= share
    healer.link_changed()
    passed += Timeouts().round
    done = comparing
    await healer.once()
    assert comparing == done + 2 * seconds


async def test_a_peer_that_could_not_be_compared_is_asked_again_and_what_it_gives_then_reaches_the_other(nodes: Cluster) -> None:
    await nodes.compare_all()
    n1, n3 = nodes["n1"], nodes["n3"]
    healer = n1.healer.anti_entropy
    await healer.repair()
    await store_alone(n3, 3)
    n1.ways["n3"].drops = lambda request: True
    healer.left_over()
    let_pass(Timeouts().round)
    await healer.once()
    assert isinstance(n1.diary.comparisons[-1][1], str)
    n1.ways["n3"].drops = lambda request: False
    let_pass(10)
    await healer.once()
    assert n1.records() == nodes["n2"].records() == n3.records()


async def test_one_that_came_to_nothing_is_tried_again_soon(nodes: Cluster) -> None:
    """After all nodes start, the first to finish its count finds the others still counting."""
    n1 = nodes["n1"].healer.anti_entropy
    await n1.once()
    assert [outcome for _, outcome in nodes["n1"].diary.comparisons if isinstance(outcome, Compared)] == []
    soon = asyncio.get_running_loop().time() + n1.seconds / 10
    assert all(due < soon for due in n1._due.values())


async def test_an_operator_gets_it_at_once_and_hears_of_a_peer_that_is_away(nodes: Cluster) -> None:
    n1 = nodes["n1"]
    await nodes.compare_all()
    await nodes.cut_off("n3")
    await nodes["n2"].coordinator.tokenize(CLINIC, values(0, 20))
    n1.store.write({})
    outcomes = await n1.healer.anti_entropy.repair()
    assert isinstance(outcomes["n2"], Compared)
    assert outcomes["n3"] == "n3 does not answer"
    nodes.bring_back("n3")
    outcomes = await n1.healer.anti_entropy.repair()
    assert (outcomes["n3"], nodes["n3"].common()) == (Compared(given=20, raised=1), n1.common())
    assert not await n1.healer.anti_entropy.verify("n3")


async def test_what_a_third_node_alone_has_reaches_all_by_one_repair(nodes: Cluster) -> None:
    await nodes.compare_all()
    await nodes["n3"].settled()
    await store_alone(nodes["n3"], 10)
    outcomes = await nodes["n1"].healer.anti_entropy.repair()
    assert outcomes == {"n2": Compared(given=10), "n3": Compared(taken=10)}
    assert nodes["n1"].records() == nodes["n2"].records() == nodes["n3"].records() != {}
