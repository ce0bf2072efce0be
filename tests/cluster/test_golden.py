"""Data directories that earlier versions wrote (tests/golden/): this version reads, heals and goes on writing to them."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.testbed.api import Api
from chaos.testbed.cluster import HOST, NODES, PORT_OFFSETS, Cluster, free_base_port, wait_for
from chaos.testbed.cluster import check as check_command
from quorumvault.server.storage.layout import STORE_FORMAT
from tests import ROOT
from tests.golden.make import EXPECTED_FILE
from tests.rigs.clusters import SECONDS, identical, sample_becomes

GOLDEN = sorted(path.parent for path in (ROOT / "tests" / "golden").glob(f"*/{EXPECTED_FILE}"))


@dataclass(frozen=True)
class Golden:
    """A cluster with no node started yet, and its known content. ``deriving``: by owner, an API key that may derive tokens."""

    cluster: Cluster
    records: int
    owed: int
    owners: dict[str, Any]
    deriving: dict[str, str]


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Golden]:
    directory = tmp_path / "vault"
    shutil.copytree(request.param, directory)
    # Git keeps only one bit of a file's mode.
    for path in (directory / "secrets", *(directory / node for node in NODES)):
        path.chmod(0o700)
    for path in (directory / "secrets").iterdir():
        path.chmod(0o600)
    if not (directory / "secrets" / "ca.pem").exists():  # version 0.1 had no CA
        check_command("certs", "issue", str(directory))
    expected = json.loads((directory / EXPECTED_FILE).read_text())
    keys = {owner: contents["api_key"] for owner, contents in expected["owners"].items()}
    with Cluster(directory, _moved(directory / "cluster.yaml"), keys) as cluster:
        deriving = {owner: cluster.make_key(owner, "derive") for owner in keys}
        yield Golden(cluster, expected["records"], expected["owed_by_n1_to_n3"], expected["owners"], deriving)


def _moved(file: Path) -> dict[str, str]:
    """Gives the nodes ports that are free on this machine. Returns the addresses of their APIs, by node."""
    text, port = file.read_text(), free_base_port()
    old = yaml.safe_load(text)["nodes"]
    places = [*(old[node]["api"] for node in NODES), *(old[node]["peer"] for node in NODES)]
    addresses = [f"{HOST}:{port + offset}" for offset in PORT_OFFSETS]
    for before, after in zip(places, addresses, strict=True):
        assert text.count(f'"{before}"') == 1
        text = text.replace(f'"{before}"', f"'{after}'")
    file.write_text(text)
    return dict(zip(NODES, addresses, strict=False))


def check(golden: Golden, node: str, *, met: str = "collision") -> None:
    """Every token has its old meaning, epochs are unchanged, and a value gets the tokens that it had.

    ``met``: the status of a token in which two values collide. Three replicas are needed to tell that they do.
    """
    for owner, contents in golden.owners.items():
        api, epoch = golden.cluster.api(node, owner), contents["epoch"]
        assert api.get("/epoch").body["active_epoch"] == epoch
        tokens = [token for token, _ in contents["tokens"]]
        values = [value for _, value in contents["tokens"]]
        results = api.detokenize(tokens).body["results"]
        assert [(type(result["value"]), result["value"]) for result in results] == [(type(value), value) for value in values]
        marked = api.detokenize([token for token, _ in contents["collisions"]])
        assert [result["status"] for result in marked.body["results"]] == [met] * len(contents["collisions"])
        derived = (
            Api(golden.cluster.nodes[node].address, golden.deriving[owner]).post("/tokens", {"values": values}).body["tokens"]
        )
        assert all(token in of_value for token, of_value in zip(tokens, derived, strict=True))
        active = [(token, value) for token, value in contents["tokens"] if token.startswith(f"qv_{epoch}_")]
        assert active
        assert api.tokenize([value for _, value in active]).body["tokens"] == [token for token, _ in active]


def test_what_an_earlier_version_wrote_is_read_healed_and_gone_on_with(golden: Golden) -> None:
    cluster = golden.cluster
    cluster.bring_up()
    # n1 still has the hints of the earlier process: n3 gets what it had missed before anybody reads.
    assert sample_becomes(cluster, "n1", 'quorumvault_handoff_records_total{peer="n3"}', golden.owed)
    assert wait_for(lambda: cluster.owed("n1", "n3") == 0, SECONDS)
    assert wait_for(lambda: identical(cluster, golden.records), SECONDS)
    for node in NODES:
        check(golden, node)
    assert any(contents["collisions"] for contents in golden.owners.values())
    for owner, contents in golden.owners.items():
        raised = cluster.api("n2", owner).post("/rotate-epoch", {"from_epoch": contents["epoch"]})
        assert raised.body["active_epoch"] == contents["epoch"] + 1
        later = cluster.api("n3", owner).tokenize([value for _, value in contents["tokens"]])
        assert (later.status, later.body["epoch"]) == (200, contents["epoch"] + 1)


@pytest.mark.parametrize("away", NODES)
def test_any_two_of_the_old_disks_have_all_of_it(golden: Golden, away: str) -> None:
    pair = [node for node in NODES if node != away]
    golden.cluster.start(*pair)
    golden.cluster.wait_ready(*pair)
    for node in pair:
        check(golden, node, met="unavailable")


def test_there_is_a_directory_of_the_format_that_is_written_now() -> None:
    formats = {json.loads((path / EXPECTED_FILE).read_text())["store_format"] for path in GOLDEN}
    assert formats == set(range(1, STORE_FORMAT + 1))
