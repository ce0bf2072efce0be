"""Which faults this machine and this user cannot have, and why. Found out before a plan is made, so that it has none of them."""

from __future__ import annotations

import os
from collections.abc import Collection

from chaos.disks import c_compiler
from chaos.nemesis import JOINS, Kind
from chaos.testbed.host import Unavailable

_NO_NETEM = "in network namespaces packets can be lost, and neither be late nor come twice; without --net namespaces they can"
_PUT_BACK = "disks are put back, and none is replaced: --lost-disks rejoin"
_ONE_HOME = "two processes of one node need a proxy that leads to the one or the other; without --net namespaces there is one"
_NOT_ROOT = "a small disk is a file system in memory, which root alone can mount"


def missing(kinds: Collection[Kind], net: str, *, rejoins: bool) -> dict[Kind, str]:
    """``rejoins``: nodes take new disks when theirs are lost."""
    found: dict[Kind, str] = {}
    if not rejoins:
        found |= dict.fromkeys(JOINS, _PUT_BACK)
    if net == "namespaces":
        found |= dict.fromkeys((Kind.SLOW_LINKS, Kind.REPEATED_BYTES), _NO_NETEM)
        found[Kind.REPLACED] = _ONE_HOME
    if os.geteuid() != 0:
        found[Kind.FULL_DISK] = _NOT_ROOT
    try:
        c_compiler()
    except Unavailable as why:
        found |= dict.fromkeys((Kind.SLOW_SYNCS, Kind.FAILING_SYNCS), str(why))
    return {kind: why for kind, why in found.items() if kind in kinds}
