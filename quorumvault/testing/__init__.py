"""For tests of programs that use QuorumVault. A pytest plugin offers both classes as fixtures, ``vault`` and ``vault_cluster``.

    FakeVault      the API of a node over a vault in memory: same tokens, same answers, no start-up time
    VaultCluster   three real nodes in a temporary folder

    def test_a_report_has_no_names(vault):
        report = make_report(vault, names=["Ada Lovelace"])     # vault is a quorumvault.Client
        assert vault.detokenize(report.tokens)[0].value == "Ada Lovelace"

Each is a ``quorumvault.Client``. Its ``environment`` has the variables for a program that makes its own client.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorumvault.testing.cluster import VaultCluster as VaultCluster
    from quorumvault.testing.fake import FakeVault as FakeVault

#: Each is imported at its first use, since every run of pytest loads the plugin.
__all__ = ["FakeVault", "VaultCluster"]

_HOMES = {"FakeVault": "quorumvault.testing.fake", "VaultCluster": "quorumvault.testing.cluster"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
