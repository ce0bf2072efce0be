"""The facts that a node tells its peers in greetings, pings and pongs, and the reasons to refuse a node because of its facts.

Rules kept here: a node is whom its certificate names.
"""

from collections.abc import Collection, Mapping

import msgspec

from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.views import Mode, View


class NodeFacts(msgspec.Struct, frozen=True):
    """``secrets`` maps each secret's id to its fingerprint; ``fields`` and ``keys`` are fingerprints of those files' contents.

    ``boot`` is a nonce of this start of the process. ``established``: the process may vote. ``withdrawn``: it never votes again,
    and is about to end (standing.py). ``full``: it refuses writes for lack of room. ``damaged``: its store cannot be read in full
    (healing/scrub.py). ``gaps``: the number of gaps in its store (storage/gaps.py). ``sequence``: the number of writes of its
    disk. ``marks``: its rollback marks of other disks. ``keeps``: it is joining, and has an old store that may hold the only copy
    of some records. A map on the wire: a later version may add a fact with a default, and older versions skip it.
    """

    cluster_id: str
    protocol: int
    version: str
    node: str
    disk: bytes
    incarnation: int
    mode: Mode
    view: View | None
    secrets: dict[str, str]
    fields: str
    keys: str
    boot: bytes = b""
    established: bool = True
    full: bool = False
    damaged: bool = False
    sequence: int = 0
    marks: dict[bytes, Mark] = {}
    withdrawn: bool = False
    gaps: int = 0
    keeps: bool = False


class Greeting(msgspec.Struct, frozen=True):
    """The first message in either direction. ``to`` names the node that the sender wants to reach."""

    to: str
    facts: NodeFacts


_encoder = msgspec.msgpack.Encoder()
_facts_decoder = msgspec.msgpack.Decoder(NodeFacts)
_greeting_decoder = msgspec.msgpack.Decoder(Greeting)


def encode(said: NodeFacts | Greeting) -> bytes:
    return _encoder.encode(said)


def decode_facts(data: bytes | memoryview) -> NodeFacts:
    """Raises ValueError or RecursionError if the bytes are not exactly facts."""
    return _facts_decoder.decode(data)


def decode_greeting(data: bytes | memoryview) -> Greeting:
    """Raises ValueError or RecursionError if the bytes are not exactly a greeting."""
    return _greeting_decoder.decode(data)


def refusal(mine: NodeFacts, greeting: Greeting, expected: Collection[str], certified: str) -> str | None:
    """Returns why the two nodes must not be connected: what is wrong and what to do, for both sides' logs. None if they may.

    ``expected`` has the names that the other side may have; ``certified`` is the name in its certificate. Different fields or API
    keys are no reason, so that a change of those files can roll through the cluster.
    """
    theirs = greeting.facts
    both = f"{mine.node} and {theirs.node}"
    if theirs.cluster_id != mine.cluster_id:
        return (
            f"{mine.node} is of cluster {mine.cluster_id!r}, {theirs.node} of cluster {theirs.cluster_id!r}: "
            f"check cluster_id and the peer addresses in cluster.yaml on both"
        )
    if abs(theirs.protocol - mine.protocol) > 1:
        return (
            f"{mine.node} speaks protocol version {mine.protocol}, {theirs.node} version {theirs.protocol}, "
            f"and a version speaks only with its neighbours: upgrade one version at a time"
        )
    if greeting.to != mine.node or theirs.node not in expected:
        return (
            f"{theirs.node} means to speak with {greeting.to}, but this is {mine.node}, which speaks with "
            f"{' or '.join(sorted(expected))}: check --node and the peer addresses in cluster.yaml on both"
        )
    if theirs.node != certified:
        return (
            f"what greets as {theirs.node} has the certificate of {certified}: give each node its own (peers.certificate in "
            f"cluster.yaml); if nobody has mixed them up, revoke that of {certified}"
        )
    if theirs.disk == mine.disk:
        return f"{both} run with the same disk identity: one data directory is a copy; remove the copy and let that node rejoin"
    return _secrets_refusal(both, mine.secrets, theirs.secrets)


def _secrets_refusal(both: str, mine: Mapping[str, str], theirs: Mapping[str, str]) -> str | None:
    """Check the secrets: a node without a secret, or with another under its id, could not read values that its peer sealed."""
    for secret in sorted(mine.keys() | theirs.keys()):
        if secret not in mine or secret not in theirs:
            return f"only one of {both} has the master secret {secret!r}: copy its file to the other and name it in cluster.yaml"
        if mine[secret] != theirs[secret]:
            return f"{both} hold different master secrets under the id {secret!r}: copy the file of the right one to the other"
    return None
