"""Each check of a certificate, left out by itself: then who has to be refused is let in, so the tests of it would notice."""

import ssl
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

import pytest

from quorumvault.config import certificates
from quorumvault.config.certificates import PeerCredentials
from quorumvault.crypto.x509 import node_named
from quorumvault.server.peers import connection
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers.facts import NodeFacts
from tests.rigs import links
from tests.rigs.certificates import CLUSTER, DAY, authority, ca_pem, node_pem, serial

pytestmark = pytest.mark.usefixtures("run")

#: X509_V_FLAG_NO_CHECK_TIME.
_NO_DATES = 0x200000

_real_context, _real_refusal = certificates._peer_context, saying.refusal


def _changed(change: Callable[[ssl.SSLContext], None]) -> object:
    def context(*given: Any) -> ssl.SSLContext:
        made = _real_context(*given)
        change(made)
        return made

    return context


def _trust_others(context: ssl.SSLContext) -> None:
    context.load_verify_locations(cadata=ca_pem(authority("other")).decode())
    context.verify_flags &= ~ssl.VERIFY_CRL_CHECK_LEAF


def _without_dates(context: ssl.SSLContext) -> None:
    context.verify_flags |= _NO_DATES


def _without_list(context: ssl.SSLContext) -> None:
    context.verify_flags &= ~ssl.VERIFY_CRL_CHECK_LEAF


def _any_cluster(names: list[str], cluster_id: str) -> str:
    return names[0].rpartition("/")[2]


def _whoever_greets(mine: NodeFacts, greeting: Any, expected: Any, certified: str) -> str | None:
    return _real_refusal(mine, greeting, expected, greeting.facts.node)


def _as_expected(names: list[str], cluster_id: str) -> str:
    node = node_named(names, cluster_id)
    return "n1" if node == "n4" else node


class Check(NamedTuple):
    """One check. ``pem``: the certificate of a dialler that it keeps out; ``greets``: the name in its greeting.

    ``undone`` takes the check away: an object, the name of its attribute, and what stands there instead.
    """

    pem: Callable[[], bytes]
    undone: tuple[object, str, object]
    greets: str = "n1"


CHECKS = {
    "the CA": Check(lambda: node_pem("n1", ca="other"), (certificates, "_peer_context", _changed(_trust_others))),
    "its end": Check(lambda: node_pem("n1", begins=-9 * DAY, days=3), (certificates, "_peer_context", _changed(_without_dates))),
    "its begin": Check(lambda: node_pem("n1", begins=DAY), (certificates, "_peer_context", _changed(_without_dates))),
    "revoked": Check(lambda: node_pem("n1", days=77), (certificates, "_peer_context", _changed(_without_list))),
    "the cluster": Check(lambda: node_pem("n1", cluster="b"), (connection, "node_named", _any_cluster)),
    "the node": Check(lambda: node_pem("n4"), (connection, "node_named", _as_expected)),
    "who greets": Check(lambda: node_pem("n3"), (saying, "refusal", _whoever_greets)),
}


def _credentials(own: bytes) -> PeerCredentials:
    """Made anew, by what is there now."""
    of = authority(CLUSTER)
    revoked = {serial(node_pem("n1", days=77)): of.certificate.not_valid_before_utc}
    return certificates.peer_credentials(own, ca_pem(of), of.revoke(revoked, of.certificate.not_valid_before_utc))


@pytest.mark.parametrize("undone", [False, True], ids=["kept", "left out"])
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
async def test_a_check_that_is_left_out_is_noticed(check: Check, undone: bool) -> None:
    """Proves: a node is whom its certificate names."""
    shown = _credentials(check.pem())
    facts = links.facts_of(check.greets)
    with ExitStack() as patches:
        if undone:
            patches.enter_context(mock.patch.object(*check.undone))
        trusting = _credentials(node_pem("n2"))
        async with (
            links.serving(links.StubReplica(), credentials=lambda: trusting) as server,
            links.linking(server.address, facts=lambda: facts, credentials=lambda: shown) as linked,
        ):
            await links.eventually(lambda: linked.link.up or linked.link.last_error)
            assert linked.changes == ([True] if undone else [])
            assert set(server.connected) == ({"n1"} if undone else set())
