"""What can be done to the network between nodes, however that is done (links.py, namespaces.py)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from chaos.nemesis import Wire


@dataclass(frozen=True, slots=True)
class Weather:
    """Seconds that bytes are late, and up to how many more; the share of what is sent that is lost, or comes twice."""

    delay: float = 0.0
    spread: float = 0.0
    loss: float = 0.0
    twice: float = 0.0


class Network(Protocol):
    """Wires are cut or disturbed, never both."""

    async def cut(self, wires: Collection[Wire], *, loses: bool) -> None:
        """Nothing passes any more. Connections stay, and hang; what was sent on them meanwhile may be lost for good."""
        ...

    async def disturb(self, wires: Collection[Wire], weather: Weather) -> None: ...

    async def mend(self, wires: Collection[Wire]) -> None: ...

    async def move(self, node: str, address: tuple[str, int] | None) -> None:
        """Who dials this node gets to that host and port; None: to its own. Raises Unavailable."""
        ...
