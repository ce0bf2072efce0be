"""The addresses at which a node listens, while the machine around it starts.

At boot a service can start before its host's name resolves, or before the network has given the host its address.
"""

import logging
import socket
from collections.abc import Callable
from pathlib import Path

from quorumvault.config.addresses import Address
from quorumvault.config.cluster import NodePlace
from quorumvault.errors import Unavailable
from quorumvault.server.http.server import listening_socket

logger = logging.getLogger("quorumvault.node")

#: Seconds between two tries, and tries between two log lines that say what the node waits for.
_TRY_SECONDS = 0.5
_TRIES_A_LINE = 10


#: ``listening_socket``
Listen = Callable[[Path, str, Address], socket.socket]


def await_addresses(
    place: NodePlace, clock: Callable[[], float], sleep: Callable[[float], None], listen: Listen = listening_socket
) -> None:
    """Return once each address can be bound. ``clock`` and ``sleep`` are in seconds.

    Raises Unavailable if one is not there after ``startup.wait`` seconds, ConfigError if waiting does not help.
    """
    end = clock() + place.cluster.startup.wait
    tries = 0
    while True:
        try:
            _try_to_listen(place, listen)
        except Unavailable as missing:
            if clock() >= end:
                raise
            if tries % _TRIES_A_LINE == 0:
                logger.warning("%s; waiting for it, %.0f s more", missing, end - clock())
            tries += 1
            sleep(_TRY_SECONDS)
        else:
            return


def _try_to_listen(place: NodePlace, listen: Listen) -> None:
    for name, address in (("api", place.endpoints.listen_api), ("peer", place.endpoints.listen_peer)):
        listen(place.cluster.file, f"nodes.{place.node}.{name}", address).close()
