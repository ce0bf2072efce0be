"""A backup from running nodes has what two of them hold together, whichever node lags, rots or goes away."""

import io
import os
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumvault.config.addresses import plan_nodes
from quorumvault.config.cluster import NodeConfig, load_node
from quorumvault.crypto.keys import fingerprint
from quorumvault.errors import Busy, NoQuorum
from quorumvault.model import NODE_NAMES, Owner
from quorumvault.protocol.messages import Copy, ProposeView, RoundId
from quorumvault.protocol.views import NO_VIEW, successor
from quorumvault.server.backup.format import Broken, Header, Piece, Reader, Trailer
from quorumvault.server.backup.take import Backups, Taking
from quorumvault.server.healing.throttle import Throttle
from quorumvault.server.offline.restore import Given, restore
from quorumvault.server.storage import layout
from quorumvault.server.storage.gaps import Gaps, gap_of
from quorumvault.server.storage.memory import MemoryStore
from quorumvault.server.storage.store import Store
from quorumvault.server.telemetry.event_log import Event
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.healing import CLINIC, REGISTRY, Cluster, Node, in_cluster, values
from tests.rigs.made import NOW, flip, made
from tests.rigs.trio import KEYRING, VIEW

HEADER = Header("c1", 1, "m1", "", "", "")
#: The size of about three records, so that there are many pieces.
PIECE_BYTES = 300


@pytest.fixture
def copy_bytes() -> int:
    return PIECE_BYTES


def taking(node: Node, known: Iterable[Owner] = ()) -> Taking:
    peers = [each for each in NODE_NAMES if each != node.name]
    return Taking(node.healer.replicas, peers, Throttle(1.0), VIEW, HEADER, KEYRING, bytes(32), known)


def parse(backup: bytes) -> tuple[dict[bytes, bytes], Trailer]:
    reader = Reader(io.BytesIO(backup), "FILE")
    pairs: dict[bytes, bytes] = {}
    while isinstance((frame := reader.next()).message, Piece):
        pairs |= zip(frame.message.keys, frame.message.values, strict=True)
    return pairs, frame.message


async def backup(node: Node, known: Iterable[Owner] = ()) -> tuple[dict[bytes, bytes], Trailer]:
    return parse(b"".join([chunk async for chunk in taking(node, known).chunks()]))


async def union(nodes: Cluster) -> dict[bytes, bytes]:
    await nodes.settled()
    return {key: value for node in nodes.values() for key, value in sorted(node.common().items())}


async def test_each_node_saves_what_others_have_and_it_has_not(nodes: Cluster) -> None:
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 50))
    for number, away in enumerate(NODE_NAMES):
        await nodes.cut_off(away)
        writer = nodes[NODE_NAMES[number - 1]]
        await writer.coordinator.tokenize(CLINIC, values(100 * (number + 1), 100 * (number + 1) + 20))
        await writer.coordinator.tokenize(REGISTRY, values(number, number + 1))
        nodes.bring_back(away)
    await nodes["n1"].coordinator.rotate(CLINIC, 1)
    whole = await union(nodes)
    for node in nodes.values():
        assert len(node.records()) < len([key for key in whole if key.startswith(layout.RECORD)])
        pairs, trailer = await backup(node)
        assert (pairs, trailer.counts.records, trailer.counts.owners, trailer.counts.registers) == (whole, 113, 2, 2)
        assert trailer.sources == sorted({node.name, "n2" if node.name == "n1" else "n1"})


class Sealed:
    """Sealed records of the first numbers, as texts."""

    pairs: Mapping[bytes, bytes]

    def __init__(self, count: int) -> None:
        stores = {node: MemoryStore() for node in NODE_NAMES}

        async def write(nodes: Cluster) -> None:
            await nodes["n1"].coordinator.tokenize(CLINIC, values(0, count))
            await nodes.settled()

        in_cluster(write, stores)
        self.pairs = dict(stores["n1"].scan(layout.RECORD))
        self.others = {key: value for prefix in (b"e", layout.OWNER) for key, value in stores["n1"].scan(prefix)}


SEALED = Sealed(12)


@settings(max_examples=40)
@given(st.lists(st.sampled_from([*NODE_NAMES, None]), min_size=12, max_size=12), st.sampled_from(NODE_NAMES))
def test_what_is_on_any_two_disks_is_in_it(missing: list[str | None], via: str) -> None:
    stores: dict[str, Store] = {node: MemoryStore() for node in NODE_NAMES}
    for node, store in stores.items():
        lacks = {key for key, away in zip(SEALED.pairs, missing, strict=True) if away == node}
        store.write({key: value for key, value in SEALED.pairs.items() if key not in lacks} | SEALED.others)

    async def test(nodes: Cluster) -> None:
        pairs, _ = await backup(nodes[via])
        assert pairs == {**SEALED.pairs, **SEALED.others}

    in_cluster(test, stores, copy_bytes=200)


async def test_where_one_peer_ends_the_other_one_goes_on(nodes: Cluster) -> None:
    for away in NODE_NAMES[1:]:
        await nodes.cut_off(away)
        await nodes["n1"].coordinator.tokenize(CLINIC, [*values(0, 5), *values(len(away), 300)])
        nodes.bring_back(away)
    n1, asked = nodes["n1"], 0

    def lost_after_some(request: object) -> bool:
        nonlocal asked
        asked += isinstance(request, Copy)
        return asked > 20

    n1.ways["n2"].drops = lost_after_some
    whole = await union(nodes)
    pairs, trailer = await backup(n1)
    assert (pairs, trailer.sources) == (whole, ["n1", "n2", "n3"])
    assert asked == 21  # from then on the other node is asked first


async def test_with_one_disk_alone_it_does_not_begin(nodes: Cluster) -> None:
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 5))
    await nodes.cut_off("n2", "n3")
    one = taking(nodes["n1"])
    with pytest.raises(NoQuorum, match="one other, both active in one view: n2 does not answer; n3 does not answer"):
        await anext(one.chunks())
    assert one.outcome == "no-quorum"


def broken(chunks: list[bytes]) -> Broken:
    with pytest.raises(Broken) as error:
        parse(b"".join(chunks))
    return error.value


async def test_with_one_disk_left_it_ends_as_one_that_was_broken_off(nodes: Cluster) -> None:
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 100))
    one, chunks = taking(nodes["n1"]), []
    async for chunk in one.chunks():
        chunks.append(chunk)
        if len(chunks) == 10:
            await nodes.cut_off("n2", "n3")
    assert (broken(chunks).code, one.outcome) == ("no-quorum", "no-quorum")


async def test_a_view_that_follows_in_the_middle_ends_it(nodes: Cluster) -> None:
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 100))
    chunks: list[bytes] = []
    async for chunk in taking(nodes["n1"]).chunks():
        chunks.append(chunk)
        if len(chunks) == 10:
            following = successor(VIEW, "n3", b"a new disk of n3")
            for node in ("n1", "n2"):
                nodes[node].commit.submit(ProposeView(RoundId(b"", b"", 0), NO_VIEW, following), lambda reply: None)
            nodes["n1"].coordinator.learn(following)
    assert "view 1 has ended, in which the backup began" in broken(chunks).why


#: By name: the records that each store cannot read, as places in the order of keys.
UNREADABLE: dict[str, dict[str, list[int]]] = {
    "one of one": {"n1": [50]},
    "many of one": {"n2": [0, 1, 2, 3, 50, 98, 99]},
    "different ones of two": {"n1": [10, 11, 70], "n2": [12, 60]},
    "different ones of three": {"n1": [10, 70], "n2": [12, 60], "n3": [99]},
}


def cannot_read(nodes: Cluster, stores: Mapping[str, FaultyStore], places: Mapping[str, Iterable[int]]) -> None:
    keys = sorted(nodes["n1"].records())
    for node, numbers in places.items():
        stores[node].corrupt |= {keys[number] for number in numbers}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_any_two_of_three_disks_can_read_is_in_it(name: str, nodes: Cluster, stores: dict[str, FaultyStore]) -> None:
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 100))
    await nodes.settled()
    whole = nodes["n1"].common()
    cannot_read(nodes, stores, UNREADABLE[name])
    for node in nodes.values():
        pairs, trailer = await backup(node)
        assert (pairs, trailer.counts.unknown) == (whole, 0)
        assert set(trailer.sources) >= UNREADABLE[name].keys() - {"n2"} | {node.name}


async def test_what_only_one_disk_can_read_is_in_it_and_what_none_can_is_unknown(
    nodes: Cluster, stores: dict[str, FaultyStore], tmp_path: Path
) -> None:
    """Proves: what is not known is not absent."""
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 100))
    await nodes.settled()
    whole, keys = nodes["n1"].common(), sorted(nodes["n1"].records())
    cannot_read(nodes, stores, {"n1": [7, 20], "n2": [20, 50], "n3": [7, 20]})
    for node in nodes.values():
        pairs, trailer = await backup(node)
        gaps = Gaps(gap_of(key, value) for key, value in pairs.items() if key.startswith(layout.GAP))
        assert gaps.count == trailer.counts.unknown == 2
        assert {key: value for key, value in pairs.items() if not key.startswith(layout.GAP)} == {
            key: value for key, value in whole.items() if key != keys[20]
        }
        assert [number for number, key in enumerate(keys) if gaps.covers(key[1:])] == [7, 20]


async def test_with_a_bad_block_and_the_third_disk_away_none_is_made(nodes: Cluster, stores: dict[str, FaultyStore]) -> None:
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 100))
    await nodes.settled()
    cannot_read(nodes, stores, {"n1": [50]})
    await nodes.cut_off("n3")
    error = broken([chunk async for chunk in taking(nodes["n1"]).chunks()])
    assert "all three, where one cannot read its store, all active in one view: n3 does not answer" in error.why


async def test_bytes_that_are_not_what_was_sealed_give_way_and_alone_they_are_unknown(nodes: Cluster) -> None:
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 20))
    await nodes.settled()
    whole = nodes["n3"].common()
    key = sorted(nodes["n1"].records())[10]
    nodes["n1"].store.write({key: flip(whole[key])})
    assert (await backup(nodes["n1"]))[0] == whole
    nodes["n2"].store.write({}, [key])
    for node in nodes.values():
        assert (await backup(node))[0] == whole
    nodes["n3"].store.write({key: flip(whole[key], 30)})
    for name in ("n1", "n3"):
        pairs, trailer = await backup(nodes[name])
        assert trailer.counts.unknown == 1
        assert pairs.pop(layout.GAP + key[1:]) == key[1:] + b"\0"
        assert pairs == {each: value for each, value in whole.items() if each != key}


async def test_names_that_stores_lack_come_from_the_node(nodes: Cluster) -> None:
    for node in nodes.values():
        node.store.write(SEALED.pairs)
    pairs, trailer = await backup(nodes["n2"], [CLINIC, REGISTRY])
    assert pairs == {**SEALED.pairs, **{layout.owner_key(owner.id): owner.name.encode() for owner in (CLINIC, REGISTRY)}}
    assert trailer.counts.owners == 2
    assert "whose name is not known" in broken([chunk async for chunk in taking(nodes["n2"]).chunks()]).why


async def test_a_token_in_which_two_values_met_stays_one(nodes: Cluster) -> None:
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 3))
    await nodes.settled()
    key = min(nodes["n1"].records())
    nodes["n2"].store.write({key: b"\x01c"})
    pairs, trailer = await backup(nodes["n1"])
    assert (pairs[key], trailer.counts.conflicts, trailer.counts.records) == (b"\x01c", 1, 3)


async def test_no_more_is_read_than_is_taken(nodes: Cluster) -> None:
    await nodes["n1"].coordinator.tokenize(CLINIC, values(0, 200))
    await nodes.settled()
    n1 = nodes["n1"]
    async with aclosing(taking(n1).chunks()) as chunks:
        for taken in range(1, 20):
            await anext(chunks)
            await nodes.settled()
            for way in n1.ways.values():
                assert sum(isinstance(request, Copy) for request in way.asked) <= taken


async def test_what_is_written_meanwhile_breaks_nothing(nodes: Cluster) -> None:
    await nodes["n2"].coordinator.tokenize(CLINIC, values(0, 100))
    before = await union(nodes)
    chunks, number = [], 1000
    async for chunk in taking(nodes["n1"]).chunks():
        chunks.append(chunk)
        await nodes["n2"].coordinator.tokenize(CLINIC, values(number, number + 3))
        number += 3
    pairs, _ = parse(b"".join(chunks))
    after = await union(nodes)
    assert before.items() <= pairs.items() <= after.items()
    assert len(after) > len(before) + 50


# A node takes one backup at a time, logs an event for each, and takes none without a disk

NODES = plan_nodes(["127.0.0.1"], 9000)
#: The master secret of the nodes in memory.
SECRET = bytes(range(32))


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    made(tmp_path / "vault")
    (tmp_path / "vault/secrets/master-s1.key").write_text(SECRET.hex())
    return replace(load_node(tmp_path / "vault" / "cluster.yaml", "n1"), master_secret=SECRET)


async def test_what_it_gives_can_be_restored_and_is_noted(nodes: Cluster, config: NodeConfig, tmp_path: Path) -> None:
    noted: list[Event] = []
    await nodes["n2"].coordinator.tokenize(CLINIC, values(0, 30))
    await nodes.settled()
    backups = Backups(config, "7.8", lambda: nodes["n1"].healer, lambda: [CLINIC], noted.append)
    (tmp_path / "b.qvb").write_bytes(b"".join([chunk async for chunk in backups.take()]))
    ((event, items, outcome),) = [(event.event, event.items, event.outcome) for event in noted]
    assert (event, items, outcome) == ("backup", 30, "ok")
    header = Reader(io.BytesIO((tmp_path / "b.qvb").read_bytes()), "FILE").header
    assert (header.cluster_id, header.view, header.version) == (config.cluster.cluster_id, 1, "7.8")
    assert (header.secret, header.fingerprint) == ("s1", fingerprint(SECRET))
    files = Given(tmp_path / "vault/secrets/master-s1.key", config.cluster.fields, None)
    restored = restore(tmp_path / "b.qvb", tmp_path / "new", NODES, files, now=NOW, entropy=os.urandom, tell=lambda words: None)
    assert restored.counts.records == 30


async def test_one_at_a_time_and_the_next_one_when_that_was_left(nodes: Cluster, config: NodeConfig) -> None:
    noted: list[Event] = []
    backups = Backups(config, "", lambda: nodes["n1"].healer, list, noted.append)
    async with aclosing(backups.take()) as first:
        await anext(first)
        with pytest.raises(Busy, match="a backup is being taken through n1 already"):
            await anext(backups.take())
    assert [event.outcome for event in noted] == ["interrupted"]
    assert isinstance(Reader(io.BytesIO(b"".join([chunk async for chunk in backups.take()])), "FILE").next().message, Piece)
    await nodes.cut_off("n2", "n3")
    with pytest.raises(NoQuorum):
        await anext(backups.take())
    assert [event.outcome for event in noted] == ["interrupted", "ok", "no-quorum"]


async def test_none_without_a_disk(config: NodeConfig) -> None:
    backups = Backups(config, "", lambda: None, list, lambda event: None)
    for _ in range(2):
        with pytest.raises(NoQuorum, match="n1 has no disk"):
            await anext(backups.take())
