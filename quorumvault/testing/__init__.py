"""For tests of programs that use QuorumVault. The plugin of pytest brings both as fixtures, ``vault`` and ``vault_cluster``.

    FakeVault      the API of a node over a vault in memory: same tokens, same answers, nothing to wait for
    VaultCluster   three real nodes in a temporary folder

    def test_a_report_has_no_names(vault):
        report = make_report(vault, names=["Ada Lovelace"])     # vault is a quorumvault.Client
        assert vault.detokenize(report.tokens)[0].value == "Ada Lovelace"

Each is a ``quorumvault.Client``, and its ``environment`` is what a program that makes a client of its own has to find.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorumvault.testing.cluster import VaultCluster as VaultCluster
    from quorumvault.testing.fake import FakeVault as FakeVault

#: Each is imported when it is first used: every run of pytest loads the plugin.
__all__ = ["FakeVault", "VaultCluster"]

_HOMES = {"FakeVault": "quorumvault.testing.fake", "VaultCluster": "quorumvault.testing.cluster"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
