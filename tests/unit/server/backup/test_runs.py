"""What a node does with a backup: one at a time, an event for each, and none without a disk."""

from __future__ import annotations

import io
import os
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quorumvault.config.addresses import plan_nodes
from quorumvault.config.cluster import NodeConfig, load_node
from quorumvault.crypto.keys import fingerprint
from quorumvault.errors import Busy, NoQuorum
from quorumvault.server.backup.format import Piece, Reader
from quorumvault.server.backup.take import Backups
from quorumvault.server.offline.init import init
from quorumvault.server.offline.restore import Given, restore
from quorumvault.server.telemetry.event_log import Event
from tests.rigs.healing import CLINIC, Cluster, in_cluster, values

NODES = plan_nodes(["127.0.0.1"], 9000)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: That of the nodes in memory.
SECRET = bytes(range(32))


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    init(tmp_path / "vault", NODES, [CLINIC], now=NOW, entropy=os.urandom)
    (tmp_path / "vault/secrets/master-s1.key").write_text(SECRET.hex())
    return replace(load_node(tmp_path / "vault" / "cluster.yaml", "n1"), master_secret=SECRET)


def test_what_it_gives_can_be_restored_and_is_noted(config: NodeConfig, tmp_path: Path) -> None:
    noted: list[Event] = []

    async def test(nodes: Cluster) -> None:
        await nodes["n2"].coordinator.tokenize(CLINIC, values(0, 30))
        await nodes.settled()
        backups = Backups(config, "7.8", lambda: nodes["n1"].healer, lambda: [CLINIC], noted.append)
        (tmp_path / "b.qvb").write_bytes(b"".join([chunk async for chunk in backups.take()]))

    in_cluster(test)
    ((event, items, outcome),) = [(event.event, event.items, event.outcome) for event in noted]
    assert (event, items, outcome) == ("backup", 30, "ok")
    header = Reader(io.BytesIO((tmp_path / "b.qvb").read_bytes()), "FILE").header
    assert (header.cluster_id, header.view, header.version) == (config.cluster.cluster_id, 1, "7.8")
    assert (header.secret, header.fingerprint) == ("s1", fingerprint(SECRET))
    given = Given(tmp_path / "vault/secrets/master-s1.key", config.cluster.fields, None)
    made = restore(tmp_path / "b.qvb", tmp_path / "new", NODES, given, now=NOW, entropy=os.urandom, tell=lambda words: None)
    assert made.counts.records == 30


def test_one_at_a_time_and_the_next_one_when_that_was_left(config: NodeConfig) -> None:
    noted: list[Event] = []

    async def test(nodes: Cluster) -> None:
        backups = Backups(config, "", lambda: nodes["n1"].healer, list, noted.append)
        async with aclosing(backups.take()) as first:
            await anext(first)
            with pytest.raises(Busy, match="a backup is being taken through n1 already"):
                await anext(backups.take())
        assert [event.outcome for event in noted] == ["interrupted"]
        reader = Reader(io.BytesIO(b"".join([chunk async for chunk in backups.take()])), "FILE")
        assert isinstance(reader.next().message, Piece)
        nodes.cut_off("n2")
        nodes.cut_off("n3")
        with pytest.raises(NoQuorum):
            await anext(backups.take())
        assert [event.outcome for event in noted] == ["interrupted", "ok", "no-quorum"]

    in_cluster(test)


def test_none_without_a_disk(config: NodeConfig) -> None:
    async def test(nodes: Cluster) -> None:
        backups = Backups(config, "", lambda: None, list, lambda event: None)
        for _ in range(2):
            with pytest.raises(NoQuorum, match="n1 has no disk"):
                await anext(backups.take())

    in_cluster(test)
