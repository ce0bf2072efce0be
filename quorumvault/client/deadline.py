"""The time by which one exchange must have got further. Pure.

The HTTP library's timeouts begin anew with each read and each write, so a node that sends a byte now and then would hold a call
for ever. A Deadline bounds the exchange as a whole: client/transport.py and client/asynchronous.py keep to it.
"""

from typing import Any

from quorumvault.client.plan import Clock, Send
from quorumvault.client.policy import ClientPolicy

#: Names of the events that the HTTP library reports to a request's extension "trace".
_CONNECTING, _SENDING = "connection.connect_tcp.started", "http11.send_request_headers.started"
_SENT, _HEAD = "http11.send_request_body.complete", "http11.receive_response_headers.complete"


class Deadline:
    """``by``: when the present stage of an exchange ends at the latest, by ``clock``. The exchange itself has ``left`` seconds.

    A node has ``send.silence`` to take the request, and longer for a long body. It has ``send.silence`` again until the head of
    its answer is complete: 1xx responses do not count. The wait for a connection of the pool is no stage of an exchange.
    """

    def __init__(self, send: Send, policy: ClientPolicy, left: float, clock: Clock) -> None:
        self._clock = clock
        self._until = self.by = clock() + left
        self._silence = send.silence
        self._upload = send.silence + len(send.body or b"") / policy.failover_bytes

    def left(self) -> float:
        """Returns how many seconds are left; 0 or less if the time is up."""
        return self.by - self._clock()

    def advance(self, event: str) -> bool:
        """Takes the name of an event. Returns whether a stage began with it, so that ``by`` is another."""
        if event == _SENDING:
            self.by = min(self._until, self._clock() + self._upload)
        elif event == _SENT:
            self.by = min(self._until, self._clock() + self._silence)
        elif event in (_CONNECTING, _HEAD):
            self.by = self._until
        else:
            return False
        return True

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """The extension "trace" of a blocking request."""
        self.advance(event)
