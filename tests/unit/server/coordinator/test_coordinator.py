"""The coordinator over three replicas in one process. Only the stores (in memory) and the peers, which can fail, are not real."""

import asyncio

import pytest

from quorumvault.config.limits import Timeouts
from quorumvault.crypto import canonical
from quorumvault.crypto.tokens import format_token, parse_tokens
from quorumvault.errors import Busy, EpochAhead, NoQuorum
from quorumvault.model import Owner
from quorumvault.protocol.messages import (
    Ack,
    AnyRequest,
    Get,
    Outgoing,
    ProposeView,
    Put,
    RaiseEpoch,
    ReadEpoch,
    RoundId,
    WriteBack,
)
from quorumvault.protocol.peer import NoReply
from quorumvault.protocol.views import NO_VIEW, View
from quorumvault.server.coordinator import coordinator
from quorumvault.server.coordinator.coordinator import Coordinator
from quorumvault.server.coordinator.hedging import Hedge
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.storage import layout
from tests.rigs.trio import ACME, DISKS, KEYRING, NODES, OTHER, VALUES, VIEW, Trio, tokens_of


@pytest.mark.parametrize("away", [None, *NODES])
async def test_what_one_node_tokenizes_every_node_resolves_though_one_is_away(three: Trio, away: str | None) -> None:
    there = [node for node in NODES if node != away]
    if away is not None:
        three.peers[away].up = False
    tokens = tokens_of((await three.coordinators[there[0]].tokenize(ACME, VALUES)).tokens)
    for node in there:
        assert await three.coordinators[node].detokenize(ACME, tokens) == VALUES
        assert (await three.coordinators[node].tokenize(ACME, VALUES)).tokens == tokens


async def test_order_and_repeats_are_kept(three: Trio) -> None:
    one, two = VALUES[:2]
    written = await three.coordinators["n1"].tokenize(ACME, [one, two, one, one, two])
    first, second, *rest = tokens_of(written.tokens)
    assert rest == [first, first, second]
    assert await three.coordinators["n2"].detokenize(ACME, [second, first, second]) == [two, one, two]
    puts = [request for request in three.peers["n2"].asked if isinstance(request, Put)]
    assert [len(put.digests) for put in puts] == [2]


async def test_an_owner_finds_nothing_of_another_one(three: Trio) -> None:
    """Proves: owner isolation."""
    mine = tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
    theirs = tokens_of((await three.coordinators["n1"].tokenize(OTHER, VALUES)).tokens)
    assert not set(mine) & set(theirs)
    assert await three.coordinators["n1"].detokenize(OTHER, mine) == [Missing.NOT_FOUND] * len(mine)


async def test_two_nodes_away_is_no_quorum_and_never_not_found(three: Trio) -> None:
    three.peers["n2"].up = three.peers["n3"].up = False
    coordinator = three.coordinators["n1"]
    with pytest.raises(NoQuorum, match="n2: down; n3: down") as written:
        await coordinator.tokenize(ACME, VALUES)
    assert written.value.outcome == "none"
    assert not list(three.stores["n1"].scan(layout.RECORD))
    with pytest.raises(NoQuorum) as read:
        await coordinator.detokenize(ACME, ["no token", format_token(1, bytes(20))])
    assert read.value.outcome is None
    for operation in (coordinator.epoch(ACME), coordinator.rotate(ACME, 1)):
        with pytest.raises(NoQuorum):
            await operation


@pytest.mark.parametrize("timeouts", [Timeouts(request=0.3, round=0.2, hedge=0.01)])
async def test_replicas_that_hang_make_an_unknown_outcome_in_time(three: Trio) -> None:
    """Proves: unknown is an outcome."""
    three.peers["n2"].hangs = three.peers["n3"].hangs = True
    with pytest.raises(NoQuorum, match="no answer in time") as written:
        await three.coordinators["n1"].tokenize(ACME, VALUES)
    assert written.value.outcome == "unknown"
    three.peers["n2"].hangs = False
    tokens = tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
    assert await three.coordinators["n2"].detokenize(ACME, tokens) == VALUES


@pytest.mark.parametrize("timeouts", [Timeouts()])
async def test_a_read_goes_past_a_replica_that_hangs(three: Trio) -> None:
    tokens = tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
    for hung in ("n2", "n3"):
        three.peers[hung].hangs = True
        for _ in range(4):
            assert await three.coordinators["n1"].detokenize(ACME, tokens) == VALUES
        three.peers[hung].hangs = False


@pytest.mark.parametrize("node", NODES)
async def test_reads_take_turns_between_the_peers_whatever_is_written_in_between(three: Trio, node: str) -> None:
    coordinator = three.coordinators[node]
    tokens = tokens_of((await coordinator.tokenize(ACME, VALUES)).tokens)
    for _ in range(8):
        await coordinator.detokenize(ACME, tokens)
        await coordinator.tokenize(ACME, VALUES)
    asked = {name: sum(isinstance(request, Get) for request in peer.asked) for name, peer in three.peers.items()}
    assert asked == {name: 8 if name == node else 4 for name in NODES}


@pytest.mark.parametrize("timeouts", [Timeouts()])
async def test_a_peer_that_hangs_is_not_waited_for_twice(three: Trio) -> None:
    tokens = tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
    three.peers["n2"].hangs = True
    for _ in range(20):
        assert await three.coordinators["n1"].detokenize(ACME, tokens) == VALUES
    assert three.diary.hedges.count(Hedge.PASSED_OVER) == 1
    assert set(three.diary.hedges) <= {Hedge.PASSED_OVER, Hedge.TRIED}


async def test_a_peer_that_cannot_answer_is_replaced_before_the_other_has_answered(three: Trio) -> None:
    """The rig's timeouts are a minute, so nothing here waits for a hedge. The coordinator asks no replica alone first."""
    three.coordinators["n1"].reads_settled = False
    tokens = tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
    three.peers["n1"].hangs = True
    three.peers["n2"].drops = lambda request: isinstance(request, Get)
    reading = asyncio.ensure_future(three.coordinators["n1"].detokenize(ACME, tokens))
    await asyncio.sleep(0)
    assert isinstance(three.peers["n3"].asked[-1], Get)
    three.peers["n1"].hangs = False
    for request, on_reply in three.peers["n1"].unanswered:
        three.peers["n1"].send(Outgoing(request), on_reply)
    assert await reading == VALUES
    assert not three.diary.hedges


async def test_what_one_replica_holds_alone_is_written_to_a_second_before_the_answer(three: Trio) -> None:
    """Proves: read repair before the answer."""
    token = await three.written_to_n1_alone()
    assert await three.coordinators["n1"].detokenize(ACME, [token]) == VALUES[:1]
    assert sum(count for _, count in three.diary.repairs) == 1
    three.peers["n1"].up = False
    assert await three.coordinators["n2"].detokenize(ACME, [token]) == VALUES[:1]


async def test_without_a_second_replica_to_repair_there_is_no_answer(three: Trio) -> None:
    """Proves: read repair before the answer."""
    three.peers["n2"].drops = lambda request: isinstance(request, Put | WriteBack)
    three.peers["n3"].up = False
    with pytest.raises(NoQuorum):
        await three.coordinators["n1"].tokenize(ACME, VALUES[:1])
    token = format_token(1, KEYRING.epoch_keys(ACME, 1).digests(VALUES[:1])[0])
    with pytest.raises(NoQuorum):
        await three.coordinators["n1"].detokenize(ACME, [token])


async def test_rotation_is_monotonic_and_idempotent_on_every_node(three: Trio) -> None:
    """Proves: the epoch is a max-register."""
    old = tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
    assert await three.coordinators["n2"].rotate(ACME, 1) == 2
    for node in NODES:
        assert await three.coordinators[node].rotate(ACME, 1) == 2
        assert await three.coordinators[node].epoch(ACME) == 2
        written = await three.coordinators[node].tokenize(ACME, VALUES)
        assert written.epoch == 2
        assert not set(old) & set(tokens_of(written.tokens))
        assert await three.coordinators[node].detokenize(ACME, old) == VALUES
    with pytest.raises(EpochAhead) as ahead:
        await three.coordinators["n1"].rotate(ACME, 7)
    assert ahead.value.active_epoch == 2
    assert await three.coordinators["n3"].epoch(OTHER) == 1


async def test_the_fence_holds_where_the_rotate_was_not_heard(three: Trio) -> None:
    await three.coordinators["n1"].tokenize(ACME, VALUES)
    three.peers["n1"].up = False
    assert await three.coordinators["n2"].rotate(ACME, 1) == 2
    three.peers["n1"].up = True
    for pair in ("n2", "n3"):
        three.peers[pair].up = False
        assert (await three.coordinators["n1"].tokenize(ACME, VALUES)).epoch == 2
        three.peers[pair].up = True
    assert three.diary.fence_retries == 1


async def test_a_tokenize_of_nothing_reads_the_epoch_by_quorum(three: Trio) -> None:
    """Proves: the fence."""
    assert await three.coordinators["n2"].rotate(ACME, 1) == 2
    written = await three.coordinators["n1"].tokenize(ACME, [])
    assert (written.epoch, written.tokens) == (2, [])
    three.peers["n2"].up = three.peers["n3"].up = False
    with pytest.raises(NoQuorum):
        await three.coordinators["n1"].tokenize(ACME, [])


async def test_tokens_of_several_epochs_move_to_the_active_one(three: Trio) -> None:
    old = []
    for epoch in (1, 2, 3):
        old += tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
        assert await three.coordinators["n2"].rotate(ACME, epoch) == epoch + 1
    new = tokens_of((await three.coordinators["n3"].tokenize(ACME, VALUES)).tokens)
    absent = format_token(2, bytes(20))
    for node in NODES:
        moved = await three.coordinators[node].retokenize(ACME, [*old, absent, *new, "no token", new[0]])
        assert moved.epoch == 4
        assert moved.tokens == [*new * 3, Missing.NOT_FOUND, *new, Missing.NOT_FOUND, new[0]]


async def test_what_is_derived_is_what_tokenize_gives_in_each_epoch_and_is_stored_nowhere(three: Trio) -> None:
    issued = []
    for epoch in (1, 2, 3):
        issued.append(tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens))
        await three.coordinators["n1"].rotate(ACME, epoch)
    for peer in three.peers.values():
        peer.asked.clear()
    derived = await three.coordinators["n3"].derive(ACME, VALUES, 3)
    assert derived == [list(tokens) for tokens in zip(*issued, strict=True)]
    assert await three.coordinators["n3"].derive(ACME, [], 3) == []
    ((token,),) = await three.coordinators["n3"].derive(OTHER, VALUES[:1], 1)
    assert all(peer.asked == [] for peer in three.peers.values())
    assert await three.coordinators["n3"].detokenize(OTHER, [token]) == [Missing.NOT_FOUND]


async def test_whatever_a_rotate_overtakes_each_retokenize_has_one_epoch(three: Trio) -> None:
    old = tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
    for epoch in range(1, 9):
        rotation = asyncio.create_task(three.coordinators[NODES[epoch % 3]].rotate(ACME, epoch))
        moves = (three.coordinators[NODES[n % 3]].retokenize(ACME, old) for n in range(6))
        for moved in await asyncio.gather(*moves):
            assert moved.epoch in (epoch, epoch + 1)
            tokens = [token for token in moved.tokens if isinstance(token, str)]
            assert [parsed and parsed[0] for parsed in parse_tokens(tokens)] == [moved.epoch] * len(VALUES)
            assert await three.coordinators["n3"].detokenize(ACME, tokens) == VALUES
        await rotation


async def test_a_retokenize_after_a_rotate_never_has_an_older_epoch(three: Trio) -> None:
    old = tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
    three.peers["n1"].up = False
    assert await three.coordinators["n2"].rotate(ACME, 1) == 2
    three.peers["n1"].up = True
    for tokens in (old, [], ["no token"]):
        assert (await three.coordinators["n1"].retokenize(ACME, tokens)).epoch == 2


async def test_a_retokenize_reads_and_meets_the_fence_or_with_nothing_found_reads_the_epoch_by_quorum(three: Trio) -> None:
    active = tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
    for tokens, kind, count in (
        ([], ReadEpoch, 2),
        (["no token"], ReadEpoch, 2),
        ([format_token(1, bytes(20))], ReadEpoch, 2),
        (active, Put, 3),
    ):
        for peer in three.peers.values():
            peer.asked.clear()
        moved = await three.coordinators["n1"].retokenize(ACME, tokens)
        assert moved.epoch == 1
        assert moved.tokens == (tokens if kind is Put else [Missing.NOT_FOUND] * len(tokens))
        asked = [type(request) for node in NODES for request in three.peers[node].asked]
        assert (asked.count(Get), asked.count(kind)) == (2, count)
    three.peers["n2"].up = three.peers["n3"].up = False
    with pytest.raises(NoQuorum) as refused:
        await three.coordinators["n1"].retokenize(ACME, ["no token"])
    assert refused.value.outcome == "none"


@pytest.mark.parametrize("digest_bits", [8])
async def test_values_that_meet_in_the_new_epoch_stay_behind_and_the_others_move(three: Trio) -> None:
    forms = [canonical.from_str(str(number)) for number in range(200)]
    written = await three.coordinators["n1"].tokenize(ACME, forms)
    old = {token: form for token, form in zip(written.tokens, forms, strict=True) if token is not None}
    await three.coordinators["n1"].rotate(ACME, 1)
    moved = await three.coordinators["n2"].retokenize(ACME, list(old))
    kept = {token: form for token, form in zip(moved.tokens, old.values(), strict=True) if isinstance(token, str)}
    assert 0 < len(kept) == len(old) - moved.tokens.count(Missing.COLLISION) < len(old)
    assert await three.coordinators["n3"].detokenize(ACME, list(kept)) == list(kept.values())


async def test_a_round_that_is_not_committed_is_told_to_have_left_something_over(three: Trio) -> None:
    n1 = three.coordinators["n1"]
    tokens = tokens_of((await n1.tokenize(ACME, VALUES)).tokens)
    await n1.detokenize(ACME, tokens)
    await n1.rotate(ACME, 1)
    assert three.diary.left == 0
    three.peers["n2"].up = three.peers["n3"].up = False
    with pytest.raises(NoQuorum):
        await n1.tokenize(ACME, VALUES)
    assert three.diary.left == 0  # nothing was sent
    three.peers["n2"].up = three.peers["n3"].up = True
    three.peers["n2"].drops = three.peers["n3"].drops = lambda request: isinstance(request, Put | RaiseEpoch)
    for write in (n1.tokenize(ACME, VALUES), n1.rotate(ACME, 2)):
        with pytest.raises(NoQuorum):
            await write
    await three.settled()
    assert three.diary.left == 2


async def test_a_batch_that_all_three_refuse_leaves_nothing_over(three: Trio) -> None:
    n1 = three.coordinators["n1"]
    await n1.tokenize(ACME, VALUES)
    await three.coordinators["n2"].rotate(ACME, 1)
    await three.settled()
    assert (await n1.tokenize(ACME, VALUES)).epoch == 2
    await three.settled()
    assert (three.diary.fence_retries, three.diary.left) == (1, 0)


async def test_what_a_node_s_own_replica_missed_is_told_as_left_over(three: Trio) -> None:
    three.full.add("n1")
    await three.coordinators["n1"].tokenize(ACME, VALUES)
    await three.settled()
    assert (three.diary.left, three.diary.missed) == (1, [])
    await three.coordinators["n1"].detokenize(ACME, [])


async def test_the_epoch_of_a_token_raises_no_register(three: Trio) -> None:
    """Proves: owner isolation."""
    await three.coordinators["n1"].detokenize(ACME, [format_token(9, bytes(20))])
    assert await three.coordinators["n1"].epoch(ACME) == 1


@pytest.mark.parametrize("digest_bits", [8])
@pytest.mark.parametrize("batch", [1, 600])
async def test_two_values_that_meet_in_one_token_collide_and_neither_is_overwritten(three: Trio, batch: int) -> None:
    """The values may come one by one, through all nodes, or in one batch. Proves: write-once."""
    forms = [canonical.from_str(str(number)) for number in range(600)]
    tokens: list[str | None] = []
    for first in range(0, 600, batch):
        coordinator = three.coordinators[NODES[first % 3]]
        tokens += (await coordinator.tokenize(ACME, forms[first : first + batch])).tokens
    known = {token: form for token, form in zip(tokens, forms, strict=True) if token is not None}
    assert len(known) == 600 - tokens.count(None) <= 256
    assert await three.coordinators["n2"].detokenize(ACME, list(known)) == list(known.values())


async def test_many_at_once_make_one_record_a_value(three: Trio) -> None:
    answers = await asyncio.gather(*(three.coordinators[NODES[n % 3]].tokenize(ACME, VALUES) for n in range(32)))
    assert len({tuple(tokens_of(written.tokens)) for written in answers}) == 1
    await three.settled()
    for store in three.stores.values():
        assert len(list(store.scan(layout.RECORD))) == len(VALUES)


#: The view in which n3 has a new disk.
NEWER = View(VIEW.number + 1, b"n3's new" + bytes(8), {**VIEW.disks, "n3": b"n3's new" + bytes(8)})


async def entered(three: Trio, node: str) -> None:
    done = asyncio.get_running_loop().create_future()
    three.peers[node].send(Outgoing(ProposeView(RoundId(b"", b"", 0), NO_VIEW, NEWER)), done.set_result)
    assert (await done).current == NEWER


async def test_while_one_replica_has_entered_a_view_and_the_other_not_yet_a_moment_s_patience_answers(three: Trio) -> None:
    """n3 has lost its disk, and its new disk is not there yet."""
    tokens = tokens_of((await three.coordinators["n1"].tokenize(ACME, VALUES)).tokens)
    three.peers["n3"].up = False
    await three.settled()
    await entered(three, "n1")
    three.diary.unacknowledged = lambda node, disk, request: None  # type: ignore[method-assign]
    n2, again = three.peers["n2"], asyncio.Event()

    def each_has_asked_twice(request: AnyRequest) -> bool:
        if len(n2.asked) >= 6:
            again.set()
        return False

    n2.drops = each_has_asked_twice
    for node in ("n1", "n2"):  # n2's coordinator learns the view from n1's replica
        n2.asked.clear()
        asked = asyncio.gather(
            three.coordinators[node].tokenize(ACME, [b"s" + node.encode()]),
            three.coordinators[node].detokenize(ACME, [*tokens, "none"]),
            three.coordinators[node].epoch(ACME),
        )
        if node == "n1":
            await again.wait()
            await entered(three, "n2")
        written, read, epoch = await asked
        assert (read, epoch) == ([*VALUES, Missing.NOT_FOUND], 1)
        assert None not in written.tokens


async def test_a_replica_that_does_not_enter_the_view_is_not_waited_for_for_long(
    three: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "_VIEW_SPREADS", 0.1)
    three.peers["n3"].up = False
    await entered(three, "n1")
    with pytest.raises(NoQuorum, match="n2: in another view") as refused:
        await three.coordinators["n1"].tokenize(ACME, VALUES)
    assert refused.value.outcome == "unknown"
    assert 2 <= len(three.peers["n2"].asked) <= 6


async def test_who_did_not_acknowledge_what_was_committed_is_told_now_or_later(three: Trio) -> None:
    vault, diary = three.coordinators["n1"], three.diary
    await vault.tokenize(ACME, VALUES[:2])
    assert diary.missed == []
    three.peers["n2"].up = False
    await vault.tokenize(ACME, VALUES[:3])
    assert diary.missed == [("n2", 3)]
    three.peers["n2"].up, three.peers["n2"].hangs = True, True
    await vault.tokenize(ACME, VALUES[:1])
    await vault.tokenize(ACME, VALUES[:4])
    assert diary.missed == [("n2", 3)]  # n2 may merely be slow
    (asked, acknowledged), (_, lost) = three.peers["n2"].unanswered
    acknowledged(Ack(asked.round, asked.view, DISKS["n2"], 1, 1, {}))
    lost(NoReply(sent=True))
    assert diary.missed == [("n2", 3), ("n2", 4)]


async def test_what_was_not_committed_is_owed_to_nobody_and_a_node_owes_itself_nothing(three: Trio) -> None:
    three.peers["n1"].up = False
    await three.coordinators["n1"].tokenize(ACME, VALUES)
    three.peers["n2"].drops = lambda request: isinstance(request, Put)
    with pytest.raises(NoQuorum):
        await three.coordinators["n1"].tokenize(ACME, VALUES)
    assert three.diary.missed == []


LARGE = [canonical.from_str(f"{number}".ljust(60_000, "x")) for number in range(40)]


async def issued_large(three: Trio) -> list[str]:
    return tokens_of((await three.coordinators["n1"].tokenize(ACME, LARGE)).tokens)


async def waiting_for_large_reads(three: Trio, coordinator: Coordinator, by_owner: dict[Owner, int]) -> None:
    """Wait until this many reads of each owner are queued."""
    while {owner: len(line) for owner, line in coordinator._large_reads._waiting.items()} != by_owner:
        await three.settled()


async def test_reads_of_large_values_go_two_at_a_time_and_small_ones_pass_them_by(three: Trio) -> None:
    coordinator, tokens = three.coordinators["n1"], await issued_large(three)
    small = tokens_of((await coordinator.tokenize(ACME, VALUES)).tokens)
    for _ in range(2):
        await coordinator._large_reads.enter(ACME, 1)
    waiting = asyncio.create_task(coordinator.detokenize(ACME, tokens))
    assert await coordinator.detokenize(ACME, small) == VALUES
    await three.settled()
    assert not waiting.done()
    coordinator._large_reads.leave(1)
    assert await waiting == LARGE
    coordinator._large_reads.leave(1)
    assert coordinator._large_reads.under_way == 0


async def test_an_owner_s_read_of_large_values_waits_for_one_of_another_owner_s_and_not_for_all(three: Trio) -> None:
    coordinator, tokens = three.coordinators["n1"], await issued_large(three)
    others = tokens_of((await coordinator.tokenize(OTHER, LARGE)).tokens)
    done: list[Owner] = []

    async def read(owner: Owner, asked: list[str]) -> None:
        assert await coordinator.detokenize(owner, asked) == LARGE
        done.append(owner)

    for _ in range(2):
        await coordinator._large_reads.enter(ACME, 1)
    tasks = [asyncio.create_task(read(ACME, tokens)) for _ in range(6)]
    await waiting_for_large_reads(three, coordinator, {ACME: 6})
    tasks.append(asyncio.create_task(read(OTHER, others)))
    await waiting_for_large_reads(three, coordinator, {ACME: 6, OTHER: 1})
    coordinator._large_reads.leave(1)
    await asyncio.gather(*tasks)
    coordinator._large_reads.leave(1)
    assert done == [ACME, OTHER, *[ACME] * 5]


@pytest.mark.parametrize("timeouts", [Timeouts(round=0.2, request=60)])
async def test_a_read_of_large_values_that_waits_too_long_is_told_that_the_node_is_busy(three: Trio) -> None:
    coordinator, tokens = three.coordinators["n1"], await issued_large(three)
    for _ in range(2):
        await coordinator._large_reads.enter(OTHER, 1)
    with pytest.raises(Busy, match="reading large values for others"):
        await coordinator.detokenize(ACME, tokens)
    for _ in range(2):
        coordinator._large_reads.leave(1)
    assert await coordinator.detokenize(ACME, tokens) == LARGE
