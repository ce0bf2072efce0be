"""Procedures without IO: generators that yield the steps they need, and are sent the outcome of each step.

A coordinator's operations (operations.py), the comparison of replicas (anti_entropy.py) and the joining of a disk (join.py) are
written this way. ``exchange.drive`` runs them on the event loop; models and simulators take the same steps one by one.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from quorumvault.protocol.fence import Register
from quorumvault.protocol.messages import AnyRequest, RoundId
from quorumvault.protocol.rounds import Round
from quorumvault.protocol.views import View, ViewId

#: Most attempts at an operation, or at one part of a read. Another attempt is needed only if the cluster changed during the last
#: one (a rotate, a view, another writer). More in a row are not a race but a fault, and the client is told to retry later.
ATTEMPTS = 16

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Ask:
    """One round to run: its request, which gets the round's id and view when it is sent, and the factory of its ``Round``.

    ``everyone``: ask all replicas at once; if False, ask as many as are needed, and one more only if these do not settle it or
    are slow.
    ``disk`` narrows the round to one replica. ``voted``: a disk that has given its vote already, and is not asked again. ``view``
    is the view in which that replica was chosen, or in which that vote was given; in another view the round is not held.
    """

    request: AnyRequest
    round: Callable[[RoundId, View], Round[Any, Any]]
    everyone: bool = True
    disk: bytes | None = None
    voted: bytes | None = None
    view: ViewId | None = None

    def asks(self, disk: bytes) -> bool:
        """True if the round may ask this disk."""
        return self.disk in (None, disk) and disk != self.voted


#: Yields rounds to run, is sent their decisions, returns the result of the operation.
Steps = Generator[Ask, object, ResultT]


class QuorumLost(Exception):
    """The operation cannot finish: too few replicas took part."""


class SecretMissing(Exception):
    """The owner's epoch uses a master secret that is not configured on this node."""

    def __init__(self, register: Register) -> None:
        super().__init__(f"epoch {register.epoch} uses master secret {register.secret!r}, which this node does not have")
