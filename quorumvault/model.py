"""The basic types of the vault: owner and version. They are frozen and comparable, and their ``repr`` shows no secret.

Rules kept here: owner isolation.
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import NamedTuple

OWNER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

#: The epoch in which an owner starts; a register that was never written means this epoch.
FIRST_EPOCH = 1
#: Epochs are stored as u32, and ten decimal digits keep a token within 64 characters.
MAX_EPOCH = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Owner:
    """The tenant that tokens belong to. An owner comes only from authentication.

    ``id`` is 16 bytes, a function of the name alone. It is part of every record key; its fixed length keeps keys unambiguous.
    """

    name: str
    id: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not OWNER_NAME.fullmatch(self.name):
            raise ValueError("an owner's name is 1 to 64 characters out of a-z 0-9 . _ -, the first a letter or digit")
        digest = hashlib.blake2b(self.name.encode(), digest_size=16, person=b"qv owner id").digest()
        object.__setattr__(self, "id", digest)


class Version(NamedTuple):
    """The version of a record: a hybrid logical clock (48 bits of milliseconds, 16 of counter) and the coordinator's node number.

    Versions are ordered; the lower version is the first writer's. A version never decides which value a token has.
    """

    clock: int
    node: int


NODE_NAMES = ("n1", "n2", "n3")
REPLICAS = len(NODE_NAMES)
#: The number of replicas that must agree. Any two quorums share a replica, since 2 + 2 > 3.
QUORUM = 2


def node_number(name: str) -> int:
    """1 for n1, and so on: the form of a node's name in a version."""
    return NODE_NAMES.index(name) + 1
