"""Every limit of the client, with its reason. Times are in seconds of the monotonic clock."""

from typing import Final

import msgspec

#: Times that tokens of one call, column or file are asked for again because the epoch was rotated meanwhile. A rotation is rare
#: and a pass takes seconds: whoever meets eight of them has rotations in a loop.
EPOCH_PASSES: Final = 8
#: The longest Retry-After in seconds that counts. Nodes ask for seconds; a proxy's mistake must not keep a node unasked for good.
RETRY_AFTER: Final = 3600.0


class ClientPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The patience of a client, and the load that its retries may add. Times are seconds.

        qv.Client(policy=qv.ClientPolicy(request=5.0))

    ``request``: how long an item is asked for until a node answers, in all tries. Outlasts the restart of a node, or the wait for
    a second one.
    ``batch``: most items of one request; None: as many as a node takes. Requests get smaller by themselves while answers are
    late.
    ``connect``: until a connection stands. Two retransmissions of a lost packet fit.
    ``failover``: silence within one try while another node is there to ask and the retry budget allows it. A node answers in
    milliseconds, or in a second if its disk has trouble; one that hangs (it is stopped, or cut off) costs a call this long.
    ``failover_bytes``: large requests take longer. For each so many bytes of a body, failover comes a second later.
    ``silence``: silence within one try with no other node to turn to. Nodes answer within 5 s.
    ``health_silence``: silence within one question about health, which a node answers without asking any other.
    ``set_back``: a node that refused a connection or stayed silent is asked after the others for this long; then one call tries
    it. The longest that a node which is back waits for work, and some three times what finding out that it is not back costs.
    ``backoff_first``, ``backoff_last``: the first and the longest wait once every node was tried; doubled in between, the upper
    half of each random.
    ``retries_saved``, ``retries_per_second``, ``retries_per_request``: retries that all calls of one client may have saved up,
    and what refills them. As many as it has connections, since a node that dies takes all calls at it along; some for one caller
    that waits out an outage; and a tenth of the requests, so that many callers at once do not multiply the load on a cluster in
    trouble. A call that wants another waits for it.
    ``keep_alive``: an idle connection is closed after this long. A node closes one after 75 s, and a proxy may after 5 s: if the
    other end closes first, it may do so just as a request is sent.
    ``connections``: connections at once. A client's threads or tasks beyond that wait for each other; a node takes 64 requests
    at once.
    ``reply_bytes``: most bytes of a reply. As many values of the largest size as one request may ask for fit.
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
