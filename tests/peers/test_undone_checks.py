"""Each check of a connecting peer, left out by itself: an intruder is then let in, so the tests of that check would notice."""

from contextlib import ExitStack
from unittest import mock

import pytest

from quorumvault.config import certificates
from quorumvault.config.certificates import PeerCredentials
from quorumvault.server.peers import connection
from tests.rigs import links
from tests.rigs.certificates import CLUSTER, authority, ca_pem, node_pem, serial
from tests.rigs.undone import UNDONE
from tests.rigs.undone.certificates import plain_dialler, revoked_pem
from tests.rigs.undone.mutant import applied

pytestmark = pytest.mark.usefixtures("run")

NOTICED_HERE = [mutant.name for mutant in UNDONE.values() if mutant.intruder is not None]


def _credentials(own: bytes) -> PeerCredentials:
    """Made anew, so that a patched check applies."""
    of = authority(CLUSTER)
    revoked = {serial(revoked_pem()): of.certificate.not_valid_before_utc}
    return certificates.peer_credentials(own, ca_pem(of), of.revoke(revoked, of.certificate.not_valid_before_utc))


@pytest.mark.parametrize("undone", [False, True], ids=["kept", "left out"])
@pytest.mark.parametrize("name", NOTICED_HERE)
async def test_a_check_that_is_left_out_is_noticed(name: str, undone: bool) -> None:
    """Proves: a node is whom its certificate names."""
    intruder = UNDONE[name].intruder
    assert intruder is not None
    shown = _credentials(node_pem("n1") if intruder.pem is None else intruder.pem())
    facts = links.facts_of(intruder.greets)
    with ExitStack() as patches:
        if intruder.pem is None:
            patches.enter_context(mock.patch.object(connection, "TlsSession", plain_dialler))
        if undone:
            patches.enter_context(applied(UNDONE[name]))
        trusting = _credentials(node_pem("n2"))
        async with (
            links.serving(links.StubReplica(), credentials=lambda: trusting) as server,
            links.linking(server.address, facts=lambda: facts, credentials=lambda: shown) as linked,
        ):
            await links.eventually(lambda: linked.link.up or linked.link.last_error)
            assert linked.changes == ([True] if undone else [])
            assert set(server.connected) == ({"n1"} if undone else set())
