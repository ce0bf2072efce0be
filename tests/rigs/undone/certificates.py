"""Checks of connecting peers, left out one at a time: then a node admits a peer that it has to refuse."""

import ssl
from collections.abc import Callable
from typing import Any, Final

from quorumvault.config import certificates
from quorumvault.crypto.x509 import node_named, peer_name
from quorumvault.server.peers import connection
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.tls import TlsSession
from tests.rigs.certificates import CLUSTER, DAY, authority, ca_pem, node_pem
from tests.rigs.undone.mutant import Intruder, Mutant, Patch

RULES: Final = ("a node is whom its certificate names",)
#: X509_V_FLAG_NO_CHECK_TIME.
_NO_DATES: Final = 0x200000

_real_context, _real_refusal = certificates._peer_context, saying.refusal


def revoked_pem() -> bytes:
    """The only certificate that has been revoked."""
    return node_pem("n1", days=77)


def _contexts(change: Callable[[ssl.SSLContext], None]) -> Patch:
    def context(*given: Any) -> ssl.SSLContext:
        made = _real_context(*given)
        change(made)
        return made

    return certificates, "_peer_context", context


def _trust_others(context: ssl.SSLContext) -> None:
    context.load_verify_locations(cadata=ca_pem(authority("other")).decode())
    context.verify_flags &= ~ssl.VERIFY_CRL_CHECK_LEAF


def _without_dates(context: ssl.SSLContext) -> None:
    context.verify_flags |= _NO_DATES


def _without_list(context: ssl.SSLContext) -> None:
    context.verify_flags &= ~ssl.VERIFY_CRL_CHECK_LEAF


def _any_cluster(names: list[str], cluster_id: str) -> str:
    return names[0].rpartition("/")[2]


def _as_expected(names: list[str], cluster_id: str) -> str:
    node = node_named(names, cluster_id)
    return "n1" if node == "n4" else node


def _whoever_greets(mine: NodeFacts, greeting: Any, expected: Any, certified: str) -> str | None:
    return _real_refusal(mine, greeting, expected, greeting.facts.node)


class Plain:
    """Takes and sends bytes unchanged, in place of a TlsSession, as if the other side had shown the expected certificate."""

    #: Sent before everything else: both ends wait for the other's first bytes.
    _FIRST = b"QVPEER\x00\x01"
    established = True

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        name = peer_name(CLUSTER, "n1" if server_side else "n2")
        self._unsent = self._unheard = self._FIRST
        self.certificate = {"subjectAltName": (("URI", name),), "serialNumber": "01"}

    def start(self) -> None:
        """Does nothing: there is no handshake."""

    def take(self, data: bytes) -> bytes:
        first, self._unheard = self._unheard, b""
        return data.removeprefix(first)

    def seal(self, data: bytes) -> bytes:
        return data

    def outgoing(self) -> bytes:
        unsent, self._unsent = self._unsent, b""
        return unsent


def plain_dialler(context: ssl.SSLContext, *, server_side: bool) -> Any:
    """Makes a dialler without TLS, and a listener with TLS."""
    return TlsSession(context, server_side=True) if server_side else Plain(context, server_side=False)


MUTANTS = (
    Mutant(
        "any-ca",
        RULES,
        "a certificate of any CA is taken",
        (_contexts(_trust_others),),
        intruder=Intruder(lambda: node_pem("n1", ca="other")),
    ),
    Mutant(
        "expired-taken",
        RULES,
        "the end of a certificate's validity is not checked",
        (_contexts(_without_dates),),
        intruder=Intruder(lambda: node_pem("n1", begins=-9 * DAY, days=3)),
    ),
    Mutant(
        "begins-later",
        RULES,
        "the start of a certificate's validity is not checked",
        (_contexts(_without_dates),),
        intruder=Intruder(lambda: node_pem("n1", begins=DAY)),
    ),
    Mutant(
        "revoked-taken",
        RULES,
        "the list of revoked certificates is not checked",
        (_contexts(_without_list),),
        intruder=Intruder(revoked_pem),
    ),
    Mutant(
        "any-cluster",
        RULES,
        "the cluster in a certificate's name is not checked",
        ((connection, "node_named", _any_cluster),),
        intruder=Intruder(lambda: node_pem("n1", cluster="b")),
    ),
    Mutant(
        "any-node",
        RULES,
        "the node in a certificate's name is not checked",
        ((connection, "node_named", _as_expected),),
        intruder=Intruder(lambda: node_pem("n4")),
    ),
    Mutant(
        "another-s-greeting",
        RULES,
        "a node may greet under any name, whatever its certificate says",
        ((saying, "refusal", _whoever_greets),),
        intruder=Intruder(lambda: node_pem("n3")),
    ),
    Mutant(
        "plain-peer",
        RULES,
        "a peer that speaks no TLS is believed",
        ((connection, "TlsSession", Plain),),
        intruder=Intruder(None),
    ),
)
