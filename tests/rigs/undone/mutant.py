"""A mutant undoes one safety: it replaces functions of the real code, or of the simulator's threads, links and disks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple
from unittest import mock

#: What the simulator plays (tests/simulation/plays.py): requests alone; disks that are lost; disks that are put back; healing;
#: keys that are revoked; two sets of nodes, for a design that is not built; real data directories; real links.
REQUESTS, LOST_DISKS, PUT_BACK, HEALING_NODES, REVOKED = "requests", "lost-disks", "put-back", "healing", "revoked-keys"
TWO_SETS, FILES, LINKS = "two-sets", "files", "links"

#: Object, name of its attribute, and what stands there instead.
Patch = tuple[object, str, object]


class Intruder(NamedTuple):
    """Who dials a node and has to be refused, but for the safety that is undone.

    ``pem``: makes its certificate and key, for a vault that trusts what tests/rigs/certificates.py says; None: it speaks no TLS.
    ``greets``: the node that it says it is.
    """

    pem: Callable[[], bytes] | None
    greets: str = "n1"


@dataclass(frozen=True)
class Mutant:
    """One undone safety, and who has to notice it.

    ``rules`` are names of docs/rules.md, and ``how`` says what is done instead.
    ``play`` is the simulator's play that shows it by some seed; the test suite tries from ``seed`` on, and leaves it to
    bin/simulate --mutants if that is None. ``scopes`` are small worlds that notice it (tests/model/). ``faults`` are the kinds or
    families of faults under which the harness notices it on real processes (bin/chaos mutants). ``intruder`` gets into a peer
    port (tests/peers/test_undone_checks.py). ``tests`` are unit tests that fail with it, where no world comes to what it takes.
    ``covered`` says why nobody can notice it: what else keeps what this safety keeps.
    """

    name: str
    rules: tuple[str, ...]
    how: str
    patches: tuple[Patch, ...]
    play: str | None = None
    seed: int | None = None
    scopes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    intruder: Intruder | None = None
    tests: tuple[str, ...] = ()
    covered: str = ""

    @property
    def undoes(self) -> str:
        return f"{', '.join(self.rules)}: {self.how}"


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """A context in which the safety is undone."""
    with ExitStack() as patches:
        for owner, name, replacement in mutant.patches:
            patches.enter_context(mock.patch.object(owner, name, replacement))
        yield
