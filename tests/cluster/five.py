"""Five tests as a user of QuorumVault would write them, with the fixtures of its pytest plugin."""

import asyncio
from collections.abc import Sequence

import pytest

import quorumvault as qv
from quorumvault.testing import FakeVault, VaultCluster


@pytest.fixture(scope="session")
def vault_fields() -> Sequence[str]:
    return ["$.mrn"]


def test_values_come_back(vault: FakeVault) -> None:
    assert [each.value for each in vault.detokenize(vault.tokenize(["Ada Lovelace", 42]))] == ["Ada Lovelace", 42]


def test_a_rotation_of_this_test(vault: FakeVault) -> None:
    assert vault.epoch() == 1
    assert vault.rotate(1) == 2


def test_what_is_done_without_a_quorum(vault: FakeVault) -> None:
    assert vault.epoch() == 1
    with vault.failing(qv.NoQuorum("two nodes are gone")), pytest.raises(qv.NoQuorum):
        vault.tokenize(["Ada Lovelace"])


def test_real_nodes_lose_one(vault_cluster: VaultCluster) -> None:
    (token,) = vault_cluster.tokenize(["Ada Lovelace"])
    with vault_cluster.paused("n2"):
        assert vault_cluster.detokenize([token])[0].value == "Ada Lovelace"


def test_a_client_of_one_s_own(vault_cluster: VaultCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in vault_cluster.environment.items():
        monkeypatch.setenv(name, text)

    async def ask() -> dict[str, int]:
        async with qv.AsyncClient() as client:
            return (await client.tokenize_records([{"mrn": "7"}])).replaced

    assert asyncio.run(ask()) == {"$.mrn": 1}
