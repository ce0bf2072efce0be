"""Procedures without IO: generators that yield the steps they need, and are sent what came of each.

What a coordinator does (operations.py), how replicas are compared (anti_entropy.py) and how a disk joins (join.py) are written
so. ``exchange.drive`` runs them on the event loop; models and simulators take the same steps one by one.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from quorumvault.protocol.fence import Register
from quorumvault.protocol.messages import AnyRequest, RoundId
from quorumvault.protocol.rounds import Round
from quorumvault.protocol.views import View, ViewId

#: Most tries of an operation, or of one part of a read. Each further one means that the cluster changed under the last (a rotate,
#: a view, another writer): more in a row is no race but a fault, and the client is told to come back.
ATTEMPTS = 16

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Ask:
    """One round to hold: its request, which gets the round's id and view when it is sent, and what makes its decider.

    ``everyone``: all three replicas are asked at once; False: two, and the third only when those do not settle it or are slow.
    ``disk`` narrows the round to one replica, and ``view`` to the view in which that made sense.
    """

    request: AnyRequest
    round: Callable[[RoundId, View], Round[Any, Any]]
    everyone: bool = True
    disk: bytes | None = None
    view: ViewId | None = None


#: Yields rounds to hold, is sent their decisions, returns the result of the operation.
Steps = Generator[Ask, object, ResultT]


class QuorumLost(Exception):
    """The operation cannot be brought to an end: too few replicas took part."""


class SecretMissing(Exception):
    """The owner's epoch uses a master secret that is not configured here."""

    def __init__(self, register: Register) -> None:
        super().__init__(f"epoch {register.epoch} uses master secret {register.secret!r}, which this node does not have")
