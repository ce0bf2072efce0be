"""The limits and deadlines of one node, each with its reason. cluster.yaml may set them (cluster.py)."""

from typing import Annotated

import msgspec
from msgspec import Meta

MiB = 1 << 20
KiB = 1 << 10


#: The largest size or number: the length of a frame between nodes has 32 bits.
_MOST = 2**31 - 1


def at_least(least: int) -> Meta:
    return Meta(ge=least, le=_MOST, description=f"a whole number from {least} to {_MOST}")


#: No wait in a node is longer than an hour: a larger number is probably in the wrong unit.
Seconds = Annotated[float, Meta(gt=0, le=3600, description="a number of seconds, more than 0 and at most 3600")]
LongSeconds = Annotated[float, Meta(gt=0, le=2_678_400, description="a number of seconds, more than 0 and at most 31 days")]
SecondsOrNone = Annotated[float, Meta(ge=0, le=3600, description="a number of seconds, from 0 to 3600")]
Count = Annotated[int, at_least(1)]
#: A size of many files together, which no frame ever holds: up to a pebibyte.
BytesOnDisk = Annotated[int, Meta(ge=64 * KiB, le=2**50, description=f"a whole number from {64 * KiB} to {2**50}")]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of what one node accepts. Served (in part) by GET /limits."""

    #: Items of one request. Contract: at least 10,000; a batch this size holds the storage thread for tens of milliseconds.
    items: Annotated[int, at_least(10_000)] = 10_000
    #: Configured values in all records of one request together: ten a record in a full one. A 16 MiB body could hold millions.
    record_values: Annotated[int, at_least(10_000)] = 100_000
    #: Record batches and dictionaries in one Arrow stream: each takes some fifty microseconds, even if it is empty.
    arrow_batches: Count = 1000
    #: Bad items listed in one refusal. Contract: up to 100.
    errors_listed: Count = 100
    #: A request body. Contract: at least 16 MiB.
    body_bytes: Annotated[int, at_least(16 * MiB)] = 16 * MiB
    #: One value in canonical form less its type byte. Contract: 64 KiB.
    value_bytes: Annotated[int, at_least(64 * KiB)] = 64 * KiB
    #: HTTP requests under way at once in one node; more are refused with 429 before their body is read.
    in_flight: Count = 64
    #: The share of the places and of ``memory_bytes`` that one owner may hold with all its API keys, in percent, so that an owner
    #: whose bodies arrive as slowly as the deadline allows leaves room for others.
    key_share: Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")] = 75
    #: HTTP connections, idle ones included. They share the file descriptors with the store, which fails for good without one.
    connections: Count = 1024
    #: Connections from one address, or from one IPv6 network (/64): half of all. This leaves room for others, and is more than a
    #: proxy opens, behind which all clients have one address.
    connections_per_address: Count = 512
    #: The request line and headers of one request; and the chunk extensions in a row, or the trailers, of a chunked one.
    head_bytes: Count = 64 * 1024
    #: Header fields of one request, and trailers likewise: each of them becomes several objects.
    headers: Count = 100
    #: The memory of all requests together: bodies, decoded bodies, records read, answers that have not left. The largest body,
    #: made of the shortest members, takes 250 MiB. A node at rest uses some 60 MiB itself, and LevelDB 100.
    memory_bytes: Annotated[int, at_least(64 * MiB)] = 320 * MiB
    #: One answer as encoded, repeated values counted each time: a node returns 10,000 values of 6 KiB in one request.
    answer_bytes: Annotated[int, at_least(MiB)] = 64 * MiB
    #: The bytes that a replica reads for one Get before it answers Overflow, and is asked for less. Such a read holds the storage
    #: thread, and the event loops of two nodes, for some 10 ms.
    reply_bytes: Count = MiB
    #: Settled records in memory, so that values that are asked for often need no look-up: nine in ten of 100,000 short ones. 0:
    #: none. It is as small as this because a node is to take under 150 MiB among ten million records.
    cache_bytes: Annotated[int, Meta(ge=0, le=2**40, description=f"a whole number from 0 to {2**40}")] = 24 * MiB
    #: One frame between nodes: the largest body, sealed, with room for its envelope.
    frame_bytes: Count = 48 * MiB
    #: Small messages to one peer share a frame up to this size. Here a frame's own cost is negligible; a larger one would delay
    #: its messages, because none is read before the whole frame has arrived.
    coalesce_bytes: Count = 64 * KiB
    #: Connections to the peer port that have not proved to be a node; one more drops the oldest. A real node is one briefly.
    peer_strangers: Count = 64
    #: Bytes of messages to one peer that are unsent or wait for a reply; beyond this the peer counts as unreachable for new ones.
    peer_queue_bytes: Count = 64 * MiB
    #: Requests to one peer that wait for a reply; beyond this likewise.
    peer_in_flight: Count = 4096
    #: Requests waiting for the storage thread: a bound that a healthy node never reaches.
    storage_queue: Count = 16_384
    #: Bytes of these: a node whose disk hangs holds this much of writes that the two others acknowledged long ago.
    storage_queue_bytes: Count = 128 * MiB
    #: Bytes of puts that share one sync: bounds the memory and the latency of a group commit.
    group_bytes: Count = 8 * MiB
    #: One piece of a copy for a joining disk: some 800 records, a millisecond or two of the source's storage thread.
    copy_bytes: Count = 64 * KiB
    #: Free space below which a node refuses writes. LevelDB must not run out of space with what is under way: a group
    #: and the largest message (56 MiB) in a log, two buffers of that size becoming tables, and a compaction, which writes its
    #: tables before it removes the old ones (up to 12 tables of level 0 and what they overlap, some 250 MiB).
    free_space_floor: Count = 512 * MiB


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In seconds, by the monotonic clock."""

    #: The head of a request, from the start of the connection or from the head's first byte on.
    head: Seconds = 10.0
    #: A request's body, from the end of its headers to its last byte: 16 MiB at 0.5 MB/s. It holds its place meanwhile.
    body: Seconds = 30.0
    #: Each 256 KiB of an answer, until the client has made room for them: at 25 KB/s. They are held meanwhile.
    send: Seconds = 10.0
    #: A client's request, from its body's last byte to the answer, over all its rounds; 1.5 s more after links were gone.
    request: Seconds = 5.0
    #: One round. Long enough for a slow sync, short enough for two in a request.
    round: Seconds = 2.0
    #: The least that a read waits for two answers before it may ask the third replica too (server/coordinator/hedging.py). A
    #: check of the fence waits a fifth of it (server/coordinator/fence_checks.py).
    hedge: SecondsOrNone = 0.05
    #: For secrets.master.command to print the secret, or for the writer to secrets.master.descriptor: a KMS over a network.
    secret: Seconds = 30.0
    #: From connect to the end of the handshake between nodes.
    handshake: Seconds = 2.0
    #: A link that is idle sends a ping this often.
    ping: Seconds = 0.5
    #: A link that heard nothing for this long is down: four pings lost, or a process stopped by SIGSTOP.
    silence: Seconds = 2.0
    #: First and last wait before a link is dialled again; doubled in between, with jitter.
    reconnect_first: Seconds = 0.05
    reconnect_last: Seconds = 1.0
    #: After SIGTERM: /readyz fails for this long while requests are still served, so that balancers notice.
    drain_notice: SecondsOrNone = 1.0
    #: Then new requests get 503 and those under way have this long to end.
    drain: SecondsOrNone = 10.0
