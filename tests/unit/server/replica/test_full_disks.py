"""Disks without room refuse only what would have to be written; a store whose write fails stops for good."""

import asyncio
from itertools import combinations
from pathlib import Path
from unittest import mock

import pytest

from quorumvault.config.limits import Limits
from quorumvault.crypto import canonical
from quorumvault.errors import NoQuorum, StorageFailed
from quorumvault.model import Version
from quorumvault.protocol import messages, records
from quorumvault.protocol.views import Mode
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.replica.group_commit import GroupCommit
from quorumvault.server.storage.disk_identity import DiskIdentity, raise_incarnation, read_identity, write_identity
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.trio import ACME, DISKS, KEYRING, NODES, VALUES, VIEW, Trio, make_replica, tokens_of

ROUND = messages.RoundId(DISKS["n2"], b"boot", 1)
HEAD = (ROUND, VIEW.id)
HEADER = records.header(Version(5, 1))
IDENTITY = DiskIdentity("cluster", "n1", DISKS["n1"], 1, Mode.ACTIVE, VIEW)


class Single:
    """One replica, and the room on its disk."""

    def __init__(self) -> None:
        self.room = mock.Mock(return_value=True)
        self.store = FaultyStore(MemoryStore())
        self.replica = make_replica(self.store, has_room=self.room)

    def ask(self, *requests: messages.AnyRequest) -> list[messages.AnyReply]:
        return self.replica.handle(requests)


def put(*texts: str, epoch: int = 1, header: bytes = HEADER) -> messages.Put:
    keys = KEYRING.epoch_keys(ACME, epoch)
    canonicals = [canonical.from_str(text) for text in texts]
    digests = keys.digests(canonicals)
    return messages.Put(*HEAD, ACME.id, epoch, "m1", header, digests, keys.sealer.seal(canonicals, digests), ACME.name)


def get(stored: messages.Put) -> messages.Get:
    return messages.Get(*HEAD, ACME.id, [stored.epoch] * len(stored.digests), stored.digests)


def write_back(stored: messages.Put) -> messages.WriteBack:
    whole = [stored.header + sealed for sealed in stored.sealed]
    return messages.WriteBack(*HEAD, ACME.name, [stored.epoch] * len(whole), stored.digests, whole)


NO_ROOM = messages.NotVoting(*HEAD, DISKS["n1"], full=True)


def test_a_replica_without_room_refuses_what_has_to_be_written() -> None:
    one = Single()
    one.ask(put("old"))
    one.room.return_value = False
    refused: list[messages.AnyRequest] = [
        put("new"),
        put("old", "new"),
        put("old", epoch=2),
        put("old", header=records.header(Version(4, 1))),
        write_back(put("new")),
        messages.RaiseEpoch(*HEAD, ACME.id, 2, "m1"),
    ]
    assert one.ask(*refused) == [NO_ROOM] * len(refused)
    (held,) = one.ask(get(put("old", "new")))
    assert isinstance(held, messages.Holds)
    assert held.records == [HEADER + put("old").sealed[0], None]
    assert one.ask(messages.ReadEpoch(*HEAD, ACME.id)) == [messages.EpochIs(*HEAD, DISKS["n1"], 1, "m1")]


def test_a_replica_without_room_answers_what_needs_none() -> None:
    one = Single()
    one.ask(messages.RaiseEpoch(*HEAD, ACME.id, 2, "m1"), put("old", epoch=2))
    one.room.return_value = False
    sequence = one.replica.sequence
    answers = one.ask(
        put("old", epoch=2), write_back(put("old", epoch=2)), messages.RaiseEpoch(*HEAD, ACME.id, 2, "m1"), put("old")
    )
    assert answers == [*[messages.Ack(*HEAD, DISKS["n1"], 1, sequence, {})] * 3, messages.Stale(*HEAD, DISKS["n1"], 2, "m1")]


def test_room_is_asked_for_once_a_group_that_may_write() -> None:
    one = Single()
    one.ask(get(put("a")), messages.ReadEpoch(*HEAD, ACME.id))
    assert one.room.call_count == 0
    one.ask(put("a"), put("b"), get(put("a")))
    assert one.room.call_count == 1


@pytest.mark.parametrize("full", NODES)
async def test_one_full_disk_is_not_noticed(three: Trio, full: str) -> None:
    three.full.add(full)
    for node in NODES:
        values = [canonical.from_str(node), *VALUES]
        done = await three.coordinators[node].tokenize(ACME, values)
        for reader in NODES:
            assert await three.coordinators[reader].detokenize(ACME, tokens_of(done.tokens)) == values
    assert await three.coordinators["n1"].rotate(ACME, 1) == 2
    assert (await three.coordinators[full].tokenize(ACME, VALUES)).epoch == 2


@pytest.mark.parametrize("pair", list(combinations(NODES, 2)))
async def test_two_full_disks_refuse_what_is_new_and_serve_what_there_is(three: Trio, pair: tuple[str, str]) -> None:
    known = await three.coordinators["n1"].tokenize(ACME, VALUES)
    await three.settled()
    three.full.update(pair)
    for node in NODES:
        coordinator = three.coordinators[node]
        with pytest.raises(NoQuorum) as refused:
            await coordinator.tokenize(ACME, [canonical.from_str(node)])
        for full in pair:
            assert f"{full}: refuses writes: disk full" in refused.value.detail
        with pytest.raises(NoQuorum, match="disk full"):
            await coordinator.rotate(ACME, 1)
        assert await coordinator.detokenize(ACME, [*tokens_of(known.tokens), "none"]) == [*VALUES, Missing.NOT_FOUND]
    three.full.clear()
    assert await three.coordinators["n1"].rotate(ACME, 1) == 2


async def test_a_value_that_has_a_token_gets_it_though_two_disks_are_full(three: Trio) -> None:
    known = await three.coordinators["n1"].tokenize(ACME, VALUES)
    await three.settled()
    three.full.update(NODES)
    assert await three.coordinators["n1"].tokenize(ACME, VALUES) == known


@pytest.mark.parametrize("full", ["n2", "n3"])
async def test_a_read_that_finds_a_record_at_one_and_a_full_disk_without_it_asks_the_third(three: Trio, full: str) -> None:
    """Whichever of the other disks is full, the one with room gets the record before the answer."""
    token = await three.written_to_n1_alone()
    three.full.add(full)
    for node in NODES:
        assert await three.coordinators[node].detokenize(ACME, [token]) == VALUES[:1]
    repaired = ({"n2", "n3"} - {full}).pop()
    assert three.diary.repairs == [(repaired, 1)]


async def test_where_nobody_is_left_to_repair_the_answer_names_the_full_disk(three: Trio) -> None:
    token = await three.written_to_n1_alone()
    three.full.add("n2")
    three.peers["n3"].up = False
    with pytest.raises(NoQuorum, match="n2: refuses writes: disk full; n3: unreachable"):
        await three.coordinators["n1"].detokenize(ACME, [token])


async def test_a_write_that_fails_ends_the_storage_before_anything_else_is_acknowledged() -> None:
    """Requests of the same group, and those behind it, get no reply: the process is about to end with exit 3.

    Proves: a distrusted store stops.
    """
    one = Single()
    failed = asyncio.Event()
    failures: list[BaseException] = []
    loop = asyncio.get_running_loop()

    def on_failure(failure: BaseException) -> None:
        failures.append(failure)
        loop.call_soon_threadsafe(failed.set)

    commit = GroupCommit(one.replica, loop, Limits(), on_failure)
    replies: list[object] = []
    one.store.fail_write = True
    for text in ("a", "b", "c"):
        commit.submit(put(text), replies.append)
    async with asyncio.timeout(20):
        await failed.wait()
    commit.submit(get(put("a")), replies.append)
    assert await asyncio.to_thread(commit.close, 20)
    await asyncio.sleep(0)
    assert (len(failures), replies) == (1, [])
    assert isinstance(failures[0], StorageFailed)


@pytest.mark.parametrize("failing", ["open", "fsync", "replace"])
def test_an_identity_that_cannot_be_written_is_a_storage_failure_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "disk.json"
    write_identity(path, IDENTITY)

    def no_space(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    where = f"os.{failing}"
    with monkeypatch.context() as broken:
        broken.setattr(where, no_space)
        with pytest.raises(StorageFailed, match=r"disk\.json: the disk identity cannot be written: No space left on device"):
            raise_incarnation(path, IDENTITY)
    assert read_identity(path) == IDENTITY
    assert raise_incarnation(path, IDENTITY).incarnation == IDENTITY.incarnation + 1
