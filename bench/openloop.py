"""An open-loop load client: it sends requests when they are due, whether or not earlier ones have been answered.

A client that waits for an answer before it sends the next request slows down with the system it measures, so it never causes an
overload (Schroeder, Wierman, Harchol-Balter, "Open Versus Closed", NSDI '06; "coordinated omission"). Here each request has a due
time, and its latency counts from that time, even if the client itself was late.

The client does not retry: it only counts refused requests.
"""

import errno
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bench.http import Connection, LoadFailed

#: Connections to one node, which takes 1,024. A request that is due while all are busy is counted, and not sent.
_CONNECTIONS = 300
#: Seconds to wait after the last request was due: longer than a node takes to give up.
_GRACE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Answered:
    """An answered request. ``request``: its number. ``due``: seconds since the run began. ``seconds``: from due to answered."""

    request: int
    status: int
    due: float
    seconds: float
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Run:
    """``unsent``: requests without a free connection. ``broken``: requests whose connection ended without an answer."""

    seconds: float
    answered: list[Answered]
    unsent: int
    broken: int

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answered)

    def accepted(self) -> list[Answered]:
        """Returns the answers with 200. Raises LoadFailed if there are none, or for another status that is not a refusal."""
        for answer in self.answered:
            if answer.status not in (200, 429, 503):
                raise LoadFailed(f"status {answer.status}: {answer.body[:500].decode(errors='replace')}")
        if 200 not in self.statuses():
            raise LoadFailed("no request was answered with 200")
        return [answer for answer in self.answered if answer.status == 200]


class OpenLoop:
    """Sends to each of the nodes in turn, over as many connections as needed. Call ``close`` at the end."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._idle: list[deque[Connection]] = [deque() for _ in addresses]
        self._busy: dict[int, Connection] = {}
        self._open = [0] * len(addresses)
        self._poll = select.epoll()
        self._broken = 0

    def close(self) -> None:
        for connection in (*self._busy.values(), *(idle for of_node in self._idle for idle in of_node)):
            connection.socket.close()
        self._poll.close()

    def run(self, requests: Iterable[bytes], rate: float, ended: Callable[[], bool] = lambda: False) -> Run:
        """Sends ``rate`` requests a second, evenly, until ``ended()``. Returns when the last request is answered or given up.

        It takes each request from ``requests`` after sending the one before.
        """
        answered: list[Answered] = []
        unsent = number = self._broken = 0
        waiting = iter(requests)
        request = next(waiting, None)
        last = begun = time.perf_counter()
        while (sending := request is not None and not ended()) or (self._busy and time.perf_counter() < last + _GRACE_SECONDS):
            now = time.perf_counter()
            while sending and request is not None and (due := begun + number / rate) <= now:
                last = due
                unsent += not self._send(number, due, request)
                number, request = number + 1, next(waiting, None)
            until_next = begun + number / rate - time.perf_counter() if sending and request is not None else 0.1
            for fileno, events in self._poll.poll(max(0.0, until_next)):
                self._serve(self._busy[fileno], events, begun, answered)
        self._give_up()
        return Run(time.perf_counter() - begun, answered, unsent, self._broken)

    def _send(self, number: int, due: float, request: bytes) -> bool:
        node = number % len(self._addresses)
        if self._idle[node]:
            connection = self._idle[node].pop()  # the one used last: the node may have closed others as idle
        elif self._open[node] < _CONNECTIONS:
            connection = Connection(node, _connecting(self._addresses[node]))
            self._open[node] += 1
        else:
            return False
        self._busy[connection.fileno()] = connection
        try:
            connection.send(number, due, request)
        except ConnectionError:
            self._end(connection)
            return True
        self._poll.register(connection.fileno(), connection.events)
        return True

    def _serve(self, connection: Connection, events: int, begun: float, answered: list[Answered]) -> None:
        try:
            answer = connection.serve(events, self._poll)
        except ConnectionError:
            self._poll.unregister(connection.fileno())
            self._end(connection)
            return
        if answer is not None:
            took = connection.idle_since - connection.due
            answered.append(Answered(connection.request, answer[0], connection.due - begun, took, answer[1]))
            del self._busy[connection.fileno()]
            self._idle[connection.node].append(connection)

    def _end(self, connection: Connection) -> None:
        self._broken += 1
        self._open[connection.node] -= 1
        del self._busy[connection.fileno()]
        connection.socket.close()

    def _give_up(self) -> None:
        for connection in list(self._busy.values()):
            self._poll.unregister(connection.fileno())
            self._end(connection)


def _connecting(address: str) -> socket.socket:
    """Returns a socket without waiting until it is connected, which could delay due requests."""
    host, _, port = address.rpartition(":")
    opened = socket.socket()
    opened.setblocking(False)
    if opened.connect_ex((host, int(port))) not in (0, errno.EINPROGRESS):
        raise LoadFailed(f"{address}: cannot be connected to")
    return opened
