"""Two replica sets of three nodes, as designed in docs/scale.md and not built.

Within a set everything is the real core. What spans sets exists only here: a place (owner, epoch, digest) belongs to the set
that its digest selects, and an owner's epoch belongs to both. A node of the first set carries requests out, with a coordinator
of each set. The rules that this node relies on, and how it keeps them:

    a rotation is acknowledged when a quorum of *each* set has the next epoch; the rotation raises the sets in order
    a write asks the fence of each set that takes a part of it; it is answered only if all parts are of one epoch
    an epoch that was met on one set is on a quorum of each set before an answer shows it, like a write-back within a set
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from chaos.testbed.checkers import check
from chaos.testbed.violation import Violation
from quorumvault.crypto.tokens import format_token, parse_token
from quorumvault.errors import EpochAhead, NoQuorum
from quorumvault.model import FIRST_EPOCH, NODE_NAMES, QUORUM, Owner, Version, node_number
from quorumvault.protocol import operations, records
from quorumvault.protocol.fence import Register
from quorumvault.protocol.rounds import ViewRefused
from quorumvault.protocol.steps import ATTEMPTS, QuorumLost, Steps
from quorumvault.protocol.write import Adopt, Committed
from quorumvault.server.coordinator.coordinator import Coordinator
from quorumvault.server.coordinator.vault import Missing, Retokenized, Tokenized
from quorumvault.server.storage import layout
from tests.simulation.disks import Disk
from tests.simulation.nodes import Process
from tests.simulation.world import Run, Scenario, World, check_disks, judged, scenario

ResultT = TypeVar("ResultT")
SETS = (0, 1)
#: The second set has the faults of another seed: the seed plus this number.
_FURTHER = 1_000_000


def set_of(digest: bytes) -> int:
    return digest[0] % len(SETS)


def set_of_token(token: str) -> int:
    parsed = parse_token(token)
    return SETS[0] if parsed is None else set_of(parsed[1])


class Sets:
    """Both sets. ``vault_at`` returns the vault that clients use at a process of the first set."""

    def __init__(self, first: World, second: World) -> None:
        self._worlds = (first, second)
        self._rng = Random(f"sets {first.chosen.seed}")
        self.keyring = first.keyring
        self.branches = first.branches
        #: By process and owner: the epoch that the process showed last, as a hint.
        self.believed: dict[tuple[Process, Owner], int] = {}
        for node in first.cluster.values():
            node.vault = self.vault_at

    def vault_at(self, process: Process) -> "Request":
        return Request(self, process)

    def coordinator(self, number: int, process: Process) -> Coordinator:
        """The process's own coordinator, or the coordinator of a process of the second set. Raises NoQuorum if none runs."""
        if number == 0:
            return process.coordinator
        running = [other for name in NODE_NAMES if (other := self._worlds[number].cluster[name].at_hand) is not None]
        if not running:
            raise NoQuorum("no node of the set is there", outcome="none")
        return self._rng.choice(running).coordinator

    def check_disks(self) -> None:
        """Each set holds the records that belong to it, and its disks agree."""
        history = self._worlds[0].history()
        for number, world in enumerate(self._worlds):
            check_disks(history, world.cluster, lambda token, number=number: set_of_token(token) == number)  # type: ignore[misc]

    def check_registers(self) -> None:
        """In calm, a quorum of each set has the largest epoch that any client was shown."""
        for name, epoch in self._worlds[0].epochs.items():
            for number, world in enumerate(self._worlds):
                held = [_epoch_on(node.disk, Owner(name)) for node in world.cluster.values()]
                if sum(on is None or on >= epoch for on in held) < QUORUM and epoch > FIRST_EPOCH:
                    raise Violation("fence", f"a client was shown epoch {epoch} of {name}, and set {number} has {held}")


class Request:
    """Carries out one request. Implements Asked."""

    def __init__(self, sets: Sets, process: Process) -> None:
        self._sets = sets
        self._process = process
        self._keyring = sets.keyring
        #: Whether the request may have written something on a set.
        self._wrote = False

    async def tokenize(self, owner: Owner, canonicals: Sequence[bytes]) -> Tokenized:
        if not canonicals:
            return Tokenized(await self.epoch(owner), [])
        distinct = list(dict.fromkeys(canonicals))
        epoch = self._sets.believed.get((self._process, owner), FIRST_EPOCH)
        for _ in range(ATTEMPTS):
            tokens = await self._write(owner, epoch, distinct)
            if not isinstance(tokens, Adopt):
                written = {set_of_token(token) for token in tokens if token is not None}
                self._sets.branches["parts on both sets"] += written == set(SETS)
                self._sets.believed[self._process, owner] = epoch
                by_value = dict(zip(distinct, tokens, strict=True))
                return Tokenized(epoch, [by_value[canonical] for canonical in canonicals])
            self._sets.branches["adopted across sets"] += 1
            await self._raise_others(owner, Register(tokens.epoch, tokens.secret))
            epoch = tokens.epoch
        raise NoQuorum("the epoch moved too often", outcome="unknown")

    async def detokenize(self, owner: Owner, tokens: Sequence[str]) -> list[bytes | Missing]:
        found: dict[str, bytes | Missing] = {}
        for number in SETS:
            here = [token for token in dict.fromkeys(tokens) if set_of_token(token) == number]
            if here:
                values = await self._sets.coordinator(number, self._process).detokenize(owner, here)
                found.update(zip(here, values, strict=True))
        return [found[token] for token in tokens]

    async def retokenize(self, owner: Owner, tokens: Sequence[str]) -> Retokenized:
        values = await self.detokenize(owner, tokens)
        written = await self.tokenize(owner, [value for value in values if isinstance(value, bytes)])
        fresh = iter(written.tokens)
        moved = [(next(fresh) or Missing.COLLISION) if isinstance(value, bytes) else value for value in values]
        return Retokenized(written.epoch, moved)

    async def epoch(self, owner: Owner) -> int:
        """Returns the largest epoch of all sets, after all sets have it."""
        largest = max([await self._run(number, operations.read_epoch(owner, self._keyring)) for number in SETS])
        await self._raise_others(owner, largest)
        return largest.epoch

    async def rotate(self, owner: Owner, from_epoch: int) -> int:
        active = await self.epoch(owner)
        if active > from_epoch:
            return active
        if active < from_epoch:
            raise EpochAhead(f"the active epoch is {active}", active_epoch=active)
        await self._raise_everywhere(owner, Register(active + 1, self._keyring.secret_id))
        return active + 1

    async def _write(self, owner: Owner, epoch: int, distinct: Sequence[bytes]) -> list[str | None] | Adopt:
        """Returns the tokens of this epoch, committed on their sets; or a later epoch that one of these sets has."""
        digests = self._keyring.epoch_keys(owner, epoch).digests(distinct)
        tokens: list[str | None] = [format_token(epoch, digest) for digest in digests]
        for number in SETS:
            here = [index for index, digest in enumerate(digests) if set_of(digest) == number]
            if not here:
                continue
            decision = await self._run(number, self._put(number, owner, epoch, [distinct[index] for index in here]))
            if isinstance(decision, Adopt):
                return decision
            for index in decision.collided:
                tokens[here[index]] = None
        return tokens

    def _put(self, number: int, owner: Owner, epoch: int, part: list[bytes]) -> Steps[Committed | Adopt]:
        coordinator = self._sets.coordinator(number, self._process)
        version = Version(coordinator.clock.tick(coordinator.wall_ms()), node_number(coordinator.identity.node))
        keys = self._keyring.epoch_keys(owner, epoch)
        digests = keys.digests(part)
        register, header, own = Register(epoch, self._keyring.secret_id), records.header(version), coordinator._own_replica()
        for _ in range(ATTEMPTS):
            decision = yield from operations._put(owner, register, header, digests, keys.sealer.seal(part, digests), own)
            if isinstance(decision, Committed | Adopt):
                return decision
            if not isinstance(decision, ViewRefused):
                break
        raise QuorumLost

    async def _raise_others(self, owner: Owner, register: Register) -> None:
        """Raises all sets to an epoch that was met, before an answer shows it."""
        await self._raise_everywhere(owner, register)

    async def _raise_everywhere(self, owner: Owner, register: Register) -> None:
        for number in SETS:
            try:
                await self._run(number, _raised(owner, register))
            except NoQuorum:
                self._sets.branches["raised on the first set alone"] += number > SETS[0]
                raise

    async def _run(self, number: int, steps: Steps[ResultT]) -> ResultT:
        """Runs an operation on one set. Raises NoQuorum, with outcome "unknown" once the request may have written on any set."""
        try:
            coordinator = self._sets.coordinator(number, self._process)
            return await coordinator._run(steps, coordinator._deadline(), writes=True)
        except NoQuorum as error:
            self._wrote = self._wrote or error.outcome != "none"
            raise NoQuorum(str(error), outcome="unknown" if self._wrote else "none") from None
        finally:
            self._wrote = True


def _raised(owner: Owner, register: Register) -> Steps[None]:
    """Ensures that a quorum of a set has at least this register."""
    for _ in range(ATTEMPTS):
        if (yield from operations._advance_epoch(owner, register)):
            return
    raise QuorumLost


def _epoch_on(disk: Disk, owner: Owner) -> int | None:
    """The epoch in the owner's register: 0 without a register, None if it has rotted."""
    key = layout.register_key(owner.id)
    if key in disk.rotten:
        return None
    register = disk.stored.get(key)
    return 0 if register is None else layout.decode_register(register)[0]


def run_two_sets(chosen: Scenario) -> Run:
    """Runs as world.run does, with two sets, each with its own faults."""
    world = World(chosen)
    second = World(replace(chosen, faults=scenario(chosen.seed + _FURTHER).faults), beside=world)
    sets = Sets(world, second)
    checks = (lambda: check(world.history()), sets.check_disks, sets.check_registers)
    return judged(world, world.play, *checks, world.read_everything, *checks)
