"""Safeties of a group of requests that share one write, undone one at a time."""

from typing import Any

from quorumvault.protocol.fence import Register
from quorumvault.server.replica.replica import Replica
from tests.rigs.undone.mutant import REQUESTS, Mutant

_real_store_once = Replica._store_once
_real_register = Replica._register


def _the_later_wins(self: Replica, keys: list[bytes], incoming: list[bytes], staged: dict[bytes, bytes]) -> dict[int, bytes]:
    """Looks at what the store has, and ignores what the group is about to write."""
    fresh: dict[bytes, bytes] = {}
    refused = _real_store_once(self, keys, incoming, fresh)
    staged.update(fresh)
    return refused


def _of_the_store(self: Replica, owner: bytes, staged: Any) -> Register:
    return _real_register(self, owner, {})


MUTANTS = (
    Mutant("later-in-group-wins", ("write-once",), "when two values meet in one group, the later one is stored",
           ((Replica, "_store_once", _the_later_wins),), REQUESTS, seed=96, scopes=("two-values-get",)),
    # A replica must miss one rotate, and take the next in a group with a batch of the epoch between. The model has this case.
    Mutant("register-of-the-store", ("the fence", "the epoch is a max-register"), "a group does not see the register it raises",
           ((Replica, "_register", _of_the_store),), scopes=("rotate-put-put",)),
)  # fmt: skip
