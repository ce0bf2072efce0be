"""QuorumVault: a replicated token vault. From Python:

    import quorumvault as qv

    with qv.Client("http://n1:8700,http://n2:8700,http://n3:8700") as vault:
        tokens = vault.tokenize(["123-45-6789", None])

    qv.tokenize(df, columns="ssn")  # pandas, Polars, pyarrow, DuckDB; extra: analytics
    qv.detokenize(duckdb.connect(), "from 'claims.parquet'", columns="ssn")
    qv.spark.detokenize(df, columns="ssn")  # extra: spark

The names here are the public ones; each is imported when it is first used, so that a node does not load the client.
"""

import importlib.util
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from quorumvault.analytics import spark as spark
    from quorumvault.analytics.duckdb import register as register
    from quorumvault.analytics.tables import detokenize as detokenize
    from quorumvault.analytics.tables import tokenize as tokenize
    from quorumvault.client import AsyncClient as AsyncClient
    from quorumvault.client import AsyncClusters as AsyncClusters
    from quorumvault.client import Client as Client
    from quorumvault.client import ClientPolicy as ClientPolicy
    from quorumvault.client import Clusters as Clusters
    from quorumvault.client import Result as Result
    from quorumvault.client import Status as Status
    from quorumvault.client import TokenizedRecords as TokenizedRecords
    from quorumvault.client import TokenResult as TokenResult
    from quorumvault.client import tokens_all_epochs as tokens_all_epochs
    from quorumvault.errors import AlreadyTokenized as AlreadyTokenized
    from quorumvault.errors import ColumnError as ColumnError
    from quorumvault.errors import EpochAhead as EpochAhead
    from quorumvault.errors import EpochMoved as EpochMoved
    from quorumvault.errors import NoQuorum as NoQuorum
    from quorumvault.errors import NotPermitted as NotPermitted
    from quorumvault.errors import NotText as NotText
    from quorumvault.errors import NotTokenizable as NotTokenizable
    from quorumvault.errors import QuorumVaultError as QuorumVaultError
    from quorumvault.errors import RateLimited as RateLimited
    from quorumvault.errors import TokenCollision as TokenCollision
    from quorumvault.errors import TokensNotFound as TokensNotFound
    from quorumvault.errors import Unauthenticated as Unauthenticated
    from quorumvault.errors import UnexpectedAnswer as UnexpectedAnswer
    from quorumvault.errors import Unreachable as Unreachable
    from quorumvault.errors import ValueTooLarge as ValueTooLarge

__version__: Final = "0.9.0"

_CLIENT = (
    *("AsyncClient", "AsyncClusters", "Client", "ClientPolicy", "Clusters", "Result", "Status", "TokenizedRecords"),
    *("TokenResult", "tokens_all_epochs"),
)
_ERRORS = (
    *("AlreadyTokenized", "ColumnError", "EpochAhead", "EpochMoved", "NoQuorum", "NotPermitted", "NotText", "NotTokenizable"),
    *("QuorumVaultError", "RateLimited", "TokenCollision", "TokensNotFound", "Unauthenticated", "UnexpectedAnswer"),
    *("Unreachable", "ValueTooLarge"),
)
_ANALYTICS = {
    "detokenize": "quorumvault.analytics.tables",
    "register": "quorumvault.analytics.duckdb",
    "tokenize": "quorumvault.analytics.tables",
}
_HOMES = dict.fromkeys(_CLIENT, "quorumvault.client") | dict.fromkeys(_ERRORS, "quorumvault.errors") | _ANALYTICS
#: Names that are modules, by the extra that they need.
_MODULES = {"spark": "quorumvault.analytics.spark"}

#: Without those of an extra that may not be installed.
__all__ = sorted(_HOMES.keys() - set(_ANALYTICS))  # noqa: PLE0605 - computed from the one list


def __getattr__(name: str) -> Any:
    home = _MODULES.get(name) or _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        if not home.startswith("quorumvault.analytics."):
            raise
        extra = name if name in _MODULES else "analytics"
        # The client alone is another distribution with the same extras (release/client.py).
        installed = "quorumvault" if importlib.util.find_spec("quorumvault.server") else "quorumvault-client"
        words = f"quorumvault.{name} needs {error.name}: pip install '{installed}[{extra}]'"
        if sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap":
            # ``from quorumvault import name``, which would say of an AttributeError only that there is no such name.
            raise ModuleNotFoundError(words, name=error.name) from None
        raise AttributeError(words, name=name) from None  # as hasattr, help and inspect.getmembers expect
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    """The public names, those of extras too, and what every module has."""
    return sorted({*_HOMES, *_MODULES, *(name for name in globals() if name.startswith("__"))})
