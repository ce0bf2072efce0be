"""The HTTP connections of a node: bounds their number, in all and per client address, and closes idle ones to admit new ones.

Connections share the process's file descriptors with LevelDB, which fails for good if it cannot open a file. So the number of
connections is bounded, and no client can use up the bound by holding connections open:

    ordinary   nine in ten of limits.connections. When all are taken, or an address has its share, a new connection closes the one
               that has been idle for longest. A connection is idle while every request on it has been answered
    health     the rest. When no ordinary one is idle, a new connection gets one answer about the node's health, and no other
"""

import socket
from collections import Counter
from enum import Enum
from typing import Protocol, TypeAlias

from quorumvault.config.limits import Limits
from quorumvault.server.telemetry.connection_refusals import HttpRefusals, Refusal

#: One in so many connections is reserved for questions about health.
_HEALTH_SHARE = 10
#: Bytes of an IPv6 address that name a network (/64): a client that has one address of it has all.
_NETWORK_BYTES = 8

Address: TypeAlias = str | bytes | None


def client_address(peername: object) -> Address:
    """Return the client of a connection, for the limit per client: an IPv4 address, or the network (/64) of an IPv6 one.

    Returns None for a Unix socket: the mode of its file decides who may connect.
    """
    if not isinstance(peername, tuple) or not peername:
        return None
    host = str(peername[0])
    if ":" not in host:
        return host
    if host.startswith("::ffff:"):
        return host.removeprefix("::ffff:")
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:_NETWORK_BYTES]


class Room(Enum):
    """The permitted use of a new connection."""

    ALL = "all"
    HEALTH = "health"
    NONE = "none"


class Member(Protocol):
    """The part of a connection that is needed here."""

    #: The loop's time since which bytes wait that the other side does not read; None if none wait.
    unsent_since: float | None

    def abort(self) -> None:
        """Close it at once."""

    def check(self, now: float) -> None:
        """End it if one of its deadlines is over."""


class _Group:
    """Connections that share a bound, with their addresses; the idle ones also in the order in which they became idle."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.members: dict[Member, Address] = {}
        self.idle: dict[Member, None] = {}

    @property
    def is_full(self) -> bool:
        return len(self.members) >= self.most

    def longest_idle(self, address: Address = None) -> Member | None:
        """Return the longest idle connection, of this address or of all, or None. One that still reads its answer is busy."""
        for member in self.idle:
            if member.unsent_since is None and (address is None or self.members[member] == address):
                return member
        return None

    def longest_unread(self, *, answered: bool) -> Member | None:
        """Return the connection that has left its answer unread for longest, or None. ``answered``: only if owed no other one."""
        unread = [member for member in (self.idle if answered else self.members) if member.unsent_since is not None]
        return min(unread, key=lambda member: member.unsent_since or 0.0, default=None)


class Connections:
    """Used on the event loop's thread."""

    def __init__(self, limits: Limits, refusals: HttpRefusals) -> None:
        for_health = limits.connections // _HEALTH_SHARE
        self._per_address = limits.connections_per_address
        self._refusals = refusals
        self._ordinary = _Group(limits.connections - for_health)
        self._health = _Group(for_health)
        self._by_address: Counter[Address] = Counter()

    def __len__(self) -> int:
        return len(self._ordinary.members) + len(self._health.members)

    def admit(self, connection: Member, address: Address) -> Room:
        """Give a new connection a place, perhaps another one's. It begins idle, and must ``leave`` unless the room is NONE."""
        if self._make_ordinary_room(address):
            self._ordinary.members[connection] = address
            self._ordinary.idle[connection] = None
            if address is not None:
                self._by_address[address] += 1
            return Room.ALL
        self._refusals.add(Refusal.NO_ROOM)
        if self._make_health_room():
            self._health.members[connection] = address
            self._health.idle[connection] = None
            return Room.HEALTH
        return Room.NONE

    def begin(self, connection: Member) -> None:
        """Count the connection as busy: it has sent the head of a request, and waits for the answer."""
        self._ordinary.idle.pop(connection, None)
        self._health.idle.pop(connection, None)

    def rest(self, connection: Member) -> None:
        """Count the connection as idle: every request on it has its answer."""
        for group in (self._ordinary, self._health):
            if connection in group.members:
                group.idle[connection] = None

    def leave(self, connection: Member) -> None:
        """Forget a connection that was closed. Further calls do nothing."""
        self._health.members.pop(connection, None)
        self._health.idle.pop(connection, None)
        self._ordinary.idle.pop(connection, None)
        if connection in self._ordinary.members:
            address = self._ordinary.members.pop(connection)
            if address is not None:
                self._by_address[address] -= 1
                if not self._by_address[address]:
                    del self._by_address[address]

    def check(self, now: float) -> None:
        """Call ``check`` of all connections."""
        for connection in [*self._ordinary.members, *self._health.members]:
            connection.check(now)

    def _make_ordinary_room(self, address: Address) -> bool:
        if (
            address is not None
            and self._by_address[address] >= self._per_address
            and not self._close(self._ordinary.longest_idle(address))
        ):
            return False
        ordinary = self._ordinary
        if not ordinary.is_full or self._close(ordinary.longest_idle()):
            return True
        return self._close(ordinary.longest_unread(answered=True))

    def _make_health_room(self) -> bool:
        health = self._health
        return not health.is_full or self._close(health.longest_idle()) or self._close(health.longest_unread(answered=False))

    def _close(self, connection: Member | None) -> bool:
        if connection is None:
            return False
        self._refusals.add(Refusal.CLOSED_FOR_ROOM)
        self.leave(connection)
        connection.abort()
        return True
