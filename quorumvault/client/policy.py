"""Every limit of the client, with its reason. Times are in seconds of the monotonic clock."""

from typing import Final

import msgspec

#: How often the tokens of one call, column or file are asked for again because of a rotation meanwhile. Rotations are rare and a
#: pass takes seconds: eight rotations during one call mean that something rotates in a loop.
EPOCH_PASSES: Final = 8
#: The longest Retry-After in seconds that counts. Nodes ask for seconds; a proxy's mistake must not keep a node unasked for good.
RETRY_AFTER: Final = 3600.0


class ClientPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The patience of a client, and the load that its retries may add. Times are seconds.

        qv.Client(policy=qv.ClientPolicy(request=5.0))

    ``request``: time until a node answers for an item, over all tries. It outlasts the restart of a node, or the wait for a
    second node.
    ``batch``: most items of one request; None: as many as a node takes. The client sends smaller requests by itself while answers
    are late.
    ``connect``: time to connect. Two retransmissions of a lost packet fit.
    ``failover``: most silence within one try while another node can be asked and the retry budget allows it. A node answers in
    milliseconds, or in a second if its disk has trouble; a node that hangs (stopped, or cut off) costs a call this long.
    ``failover_bytes``: large requests take longer. Failover comes one second later for each this many bytes of a body.
    ``silence``: most silence within one try while no other node can be asked. Nodes answer within 5 s.
    ``health_silence``: most silence within one request for health, which a node answers without asking another.
    ``set_back``: a node that refused a connection or stayed silent is asked after the others for this long; then one call tries
    it. It is the longest that a recovered node waits for work, and about three times the cost of finding the node still away.
    ``backoff_first``, ``backoff_last``: the first and the longest pause after every node was tried. Pauses double in between, and
    the upper half of each is random.
    ``retries_saved``, ``retries_per_second``, ``retries_per_request``: the retry budget that all calls of one client share, and
    what refills it. It holds as many retries as the client has connections, since a node that dies fails all calls at it. Time
    refills it for one caller that waits out an outage. Requests refill a tenth of their number, so that many callers do not
    multiply the load on a cluster in trouble. A call without a retry left waits for one.
    ``keep_alive``: the client closes an idle connection after this long. A node closes one after 75 s, a proxy perhaps after 5 s:
    if the other end closes first, it may do so just as a request is sent.
    ``connections``: most connections at once. Further threads or tasks of the client wait; a node takes 64 requests at once.
    ``reply_bytes``: most bytes of a reply: enough for as many values of the largest size as one request may ask for.
    """

    request: float = 30.0
    batch: int | None = None
    connect: float = 4.0
    failover: float = 1.5
    failover_bytes: int = 128 * 1024
    silence: float = 7.0
    health_silence: float = 2.0
    set_back: float = 5.0
    backoff_first: float = 0.1
    backoff_last: float = 2.0
    retries_saved: float = 64.0
    retries_per_second: float = 2.0
    retries_per_request: float = 0.1
    keep_alive: float = 4.0
    connections: int = 64
    reply_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ValueError("batch: expected 1 or more items a request, or None")
