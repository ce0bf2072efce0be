"""Safeties of replica sets, which are designed and not built, undone one at a time: only the simulator has replica sets."""

from quorumvault.model import Owner
from quorumvault.protocol import operations
from quorumvault.protocol.fence import Register
from tests.rigs.undone.mutant import TWO_SETS, Mutant
from tests.simulation.two_sets import SETS, Request, _raised

_FENCE, _REGISTER = "the fence", "the epoch is a max-register"


async def _raise_the_first(self: Request, owner: Owner, register: Register) -> None:
    await self._run(SETS[0], _raised(owner, register))


async def _raise_nobody(self: Request, owner: Owner, register: Register) -> None:
    """Raises nothing: the next write to a set raises it, as within a set."""


async def _read_the_first(self: Request, owner: Owner) -> int:
    return (await self._run(SETS[0], operations.read_epoch(owner, self._keyring))).epoch


MUTANTS = (
    Mutant(
        "rotated-on-one-set",
        (_FENCE,),
        "a rotation counts as done once one set has it",
        ((Request, "_raise_everywhere", _raise_the_first),),
        TWO_SETS,
        1,
    ),
    Mutant(
        "adopted-on-one-set",
        (_FENCE,),
        "an epoch that was met on one set is shown before the others have it",
        ((Request, "_raise_others", _raise_nobody),),
        TWO_SETS,
        7,
    ),
    Mutant(
        "epoch-of-one-set",
        (_REGISTER,),
        "the epoch is read from one set, and is not written back to the other",
        ((Request, "epoch", _read_the_first),),
        TWO_SETS,
        1,
    ),
)
