"""Every limit of the client, with its reason. Times in seconds, by the monotonic clock."""

from __future__ import annotations

import msgspec


class ClientPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How patient a client is, and how much load its retries may add."""

    #: One request with all its tries: outlasts the restart of a node, or the wait for a second one.
    request: float = 30.0
    #: Until a connection stands: two retransmissions of a lost packet fit.
    connect: float = 4.0
    #: Silence within one try. Nodes answer within 5 s (Timeouts.request); one that does not is stopped, or cut off.
    silence: float = 7.0
    #: The same for a question about health, which a node answers without any other.
    health_silence: float = 2.0
    #: A node that refused a connection or stayed silent is asked after the others for this long: twice what finding it out costs.
    set_back: float = 15.0
    #: The first and the longest wait once every node was tried; doubled in between, the upper half of each random.
    backoff_first: float = 0.1
    backoff_last: float = 2.0
    #: Retries that all calls of one client may have saved up, and what refills them: some for one caller that waits out an
    #: outage, and a tenth of the requests, so that many callers at once do not multiply the load on a cluster in trouble.
    retries_saved: float = 20.0
    retries_per_second: float = 2.0
    retries_per_request: float = 0.1
    #: An idle connection is dropped after this long, before uvicorn does so after 5 s, perhaps as a request is sent.
    keep_alive: float = 4.0
    #: Connections at once: a client's threads or tasks beyond that wait for each other. A node takes 64 requests at once.
    connections: int = 64
    #: Times that parts of one call are tokenized again because the epoch was rotated meanwhile.
    epoch_passes: int = 8
    #: A reply. Values of the largest size, as many as one request may ask for, fit.
    reply_bytes: int = 1 << 30
