"""What an operator may give up on a running node: nothing that another disk could still supply."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec import structs

from quorumvault.protocol.views import Mode
from quorumvault.server.http.admin.schemas import Repaired
from quorumvault.server.node.operator import Operator
from tests.rigs.healing import Cluster, in_cluster
from tests.unit.server.healing.test_gaps import CONTENT, counted, gaps, stores
from tests.unit.server.peers.test_facts import N2

pytestmark = pytest.mark.slow

ACTIVE, JOINING = N2, structs.replace(N2, mode=Mode.JOINING, view=None)


async def gives_up(nodes: Cluster, **facts: object) -> Repaired:
    """n1's answer to `repair --accept-loss` while its peers report these facts. The facts of a peer that is down are None."""
    n1 = nodes["n1"]
    links = {node: SimpleNamespace(up=told is not None, facts=told) for node, told in facts.items()}
    report = SimpleNamespace(config=SimpleNamespace(node="n1"), links=links, facts=lambda: SimpleNamespace(gaps=len(gaps(n1))))
    return await Operator.repair(cast("Operator", SimpleNamespace(report=report, healer=lambda: n1.healer)), accept_loss=True)


def test_nothing_is_given_up_that_a_node_could_tell_which_was_not_compared() -> None:
    """Only n3 has the record in n1's gap, and n3 is down; or no peer is there.

    Proves: what is not known is not absent.
    """
    made = stores({"n1": [8], "n2": [8]})

    async def test(nodes: Cluster) -> None:
        await counted(nodes)
        await nodes.cut_off("n3")
        refused = await gives_up(nodes, n2=ACTIVE, n3=None)
        assert refused.given_up == 0
        assert refused.gaps == 1
        assert "n3" in str(refused.refusal)
        await nodes.cut_off("n2")
        assert (await gives_up(nodes, n2=JOINING, n3=JOINING)).given_up == 0
        nodes.bring_back("n2")
        nodes.bring_back("n3")
        done = await gives_up(nodes, n2=ACTIVE, n3=ACTIVE)
        assert (done.given_up, done.gaps, done.refusal) == (1, 0, None)
        assert nodes["n1"].records() == CONTENT

    in_cluster(test, made)


def test_a_node_that_waits_with_an_empty_disk_has_nothing_to_tell() -> None:
    """The waiting node's new disk can join only when these gaps are gone."""

    async def test(nodes: Cluster) -> None:
        await counted(nodes)
        await nodes.cut_off("n3")
        assert (await gives_up(nodes, n2=ACTIVE, n3=JOINING)).given_up == 1
        await nodes["n1"].healer.anti_entropy.compare("n2")
        assert nodes["n1"].records() == CONTENT

    in_cluster(test, stores({"n1": [8]}))


def test_a_node_that_waits_beside_a_store_that_it_does_not_use_has_something_to_tell() -> None:
    """The node's store does not open, or was set aside, and may be the last one that has what n1 does not know.

    Proves: what is not known is not absent.
    """

    async def test(nodes: Cluster) -> None:
        await counted(nodes)
        await nodes.cut_off("n3")
        refused = await gives_up(nodes, n2=ACTIVE, n3=structs.replace(JOINING, keeps=True))
        assert (refused.given_up, refused.gaps) == (0, 1)
        assert "n3 keeps a store that it does not use" in str(refused.refusal)

    in_cluster(test, stores({"n1": [8]}))


def test_what_both_others_have_is_read_before_anything_is_given_up() -> None:
    """Here that read was impossible, although the comparisons finished. Proves: what is not known is not absent."""

    async def test(nodes: Cluster) -> None:
        await counted(nodes)
        filling = nodes["n1"].healer.anti_entropy.gaps
        filling.replicas = replace(filling.replicas, newest_view=lambda: None)
        refused = await gives_up(nodes, n2=ACTIVE, n3=ACTIVE)
        assert (refused.given_up, refused.gaps) == (0, 1)
        assert "once more" in str(refused.refusal)

    in_cluster(test, stores({"n1": [8]}))
