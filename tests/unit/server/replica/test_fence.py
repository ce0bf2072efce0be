"""The fence at one replica."""

from quorumvault.model import Owner, Version
from quorumvault.protocol import messages, records
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.trio import DISKS, VIEW, make_replica

OWNER = Owner("acme")
HEAD = (messages.RoundId(DISKS["n2"], b"boot", 1), VIEW.id)


def put(secret: str) -> messages.Put:
    return messages.Put(*HEAD, OWNER.id, 1, secret, records.header(Version(1, 1)), [b"d" * 20], [b"sealed"], OWNER.name)


def test_an_epoch_is_of_one_secret() -> None:
    """Proves: one secret per epoch."""
    store = MemoryStore()
    first, other = make_replica(store).handle([put("m1"), put("m2")])
    assert isinstance(first, messages.Ack)
    assert other == messages.Stale(*HEAD, DISKS["n1"], 1, "m1")
    assert make_replica(store).handle([put("m2")]) == [other]
