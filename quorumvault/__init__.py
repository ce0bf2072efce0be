"""QuorumVault: a replicated token vault. From Python:

    import quorumvault as qv

    with qv.Client("http://n1:8700,http://n2:8700,http://n3:8700") as vault:
        tokens = vault.tokenize(["123-45-6789", None])

The names here are the public ones; each is imported when it is first used, so that a node does not load the client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorumvault.client import AsyncClient as AsyncClient
    from quorumvault.client import Client as Client
    from quorumvault.client import ClientPolicy as ClientPolicy
    from quorumvault.client import Result as Result
    from quorumvault.client import TokenizedRecords as TokenizedRecords
    from quorumvault.errors import AlreadyTokenized as AlreadyTokenized
    from quorumvault.errors import EpochAhead as EpochAhead
    from quorumvault.errors import EpochMoved as EpochMoved
    from quorumvault.errors import NoQuorum as NoQuorum
    from quorumvault.errors import NotPermitted as NotPermitted
    from quorumvault.errors import NotTokenizable as NotTokenizable
    from quorumvault.errors import QuorumVaultError as QuorumVaultError
    from quorumvault.errors import RateLimited as RateLimited
    from quorumvault.errors import TokenCollision as TokenCollision
    from quorumvault.errors import TokensNotFound as TokensNotFound
    from quorumvault.errors import Unauthenticated as Unauthenticated
    from quorumvault.errors import UnexpectedAnswer as UnexpectedAnswer
    from quorumvault.errors import Unreachable as Unreachable
    from quorumvault.errors import ValueTooLarge as ValueTooLarge

_CLIENT = ("AsyncClient", "Client", "ClientPolicy", "Result", "TokenizedRecords")
_ERRORS = (
    "AlreadyTokenized",
    "EpochAhead",
    "EpochMoved",
    "NoQuorum",
    "NotPermitted",
    "NotTokenizable",
    "QuorumVaultError",
    "RateLimited",
    "TokenCollision",
    "TokensNotFound",
    "Unauthenticated",
    "UnexpectedAnswer",
    "Unreachable",
    "ValueTooLarge",
)
_HOMES = dict.fromkeys(_CLIENT, "quorumvault.client") | dict.fromkeys(_ERRORS, "quorumvault.errors")

__all__ = sorted(_HOMES)  # noqa: PLE0605 - computed from the one list


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
