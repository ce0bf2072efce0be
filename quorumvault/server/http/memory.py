"""One budget of bytes for all requests of a node.

A request pays for bytes before the node holds them, and gets them back when its answer has left:

    arrival    the body, as it arrives; all bodies together fill at most a quarter of the budget, to leave room for their work
    decoding   the Python objects that the body becomes
    the vault  the replies of two replicas, then the records found, sealed and opened
    sending    the values of the answer, which is encoded a piece at a time as it leaves

A request that can never fit is TooLarge (413). A request that does not fit now waits in line, and after a while is Busy (429).
An owner has a share of the budget (``limits.key_share``), so that some is left for others; a single request may exceed the
share. An owner that waits for its own share does not delay others.

A request pays in steps, and holds its bytes while it waits for more. So large requests could block each other with the whole
budget between them. To prevent this, they are processed one at a time (``enter_lane``); the loop has one thread anyway.

Invariant: ``held`` is the sum of all holds, and at most ``limits.memory_bytes``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from quorumvault.config.limits import Limits
from quorumvault.errors import Busy, TooLarge
from quorumvault.model import Owner

#: Bodies may fill one part of the budget in this many.
_PARTS_FOR_BODIES: Final = 4
#: Bytes of a decoded element, member or container: the object, its place in the list or table, its canonical form.
_PART_BYTES: Final = 176
#: Bytes of a value in the coordinator: digest, sealed record, token, and the headers of those objects.
_ITEM_BYTES: Final = 512
#: Bytes of a place in a record: its path, in which long names are cut, twice.
_PATH_BYTES: Final = 1024
#: Bytes of a piece of an answer while it is encoded. Texts may take six bytes a character as JSON.
_PIECE_BYTES: Final = 2 << 20
#: Replicas that answer a read, each with up to ``limits.reply_bytes``.
_REPLIES: Final = 2
#: A request is large once one of its steps takes more bytes than this.
LARGE: Final = 32 << 20
#: Large requests of one owner that may wait for the lane. An owner with dozens of them would keep all others waiting.
_LARGE_WAITING: Final = 2
#: A body smaller than so many bytes is never refused because of other arriving bodies.
_SMALL_BODY: Final = 64 << 10
#: Bytes: more than the allocator is told to keep for the next requests (cli/process.py).
_MUCH: Final = 32 << 20


@dataclass(slots=True)
class OfOwner:
    """The requests of one owner: their number, the bytes that they hold, and how many of them wait for the lane."""

    holds: int = 0
    held: int = 0
    held_for_bodies: int = 0
    large_waiting: int = 0


class Memory:
    """The budget of one node. Used on the event loop's thread only.

    ``on_idle`` is called when nothing is held any more, after a time in which much was held.
    """

    def __init__(self, limits: Limits, on_idle: Callable[[], None] = lambda: None) -> None:
        self._limits = limits
        self._on_idle = on_idle
        self._share = limits.memory_bytes * limits.key_share // 100
        self._owners: dict[Owner, OfOwner] = {}
        self._waiting: list[tuple[Hold, int, asyncio.Future[None]]] = []
        self._lane = asyncio.Semaphore(1)
        self.held = 0
        self.held_for_bodies = 0
        self._most_held = 0

    def hold(self, owner: Owner) -> Hold:
        """Return an empty hold for one request of this owner."""
        of_owner = self._owners.setdefault(owner, OfOwner())
        of_owner.holds += 1
        return Hold(self, owner, of_owner)

    def _has_room(self, hold: Hold, more: int) -> bool:
        within_share = hold.of_owner.held + more <= self._share or hold.of_owner.held == hold.held
        return within_share and self.held + more <= self._limits.memory_bytes

    def _require_possible(self, hold: Hold, more: int) -> None:
        if hold.held + more > self._limits.memory_bytes:
            most = self._limits.memory_bytes
            raise TooLarge(f"this takes more than the {most} bytes that this node has for requests; ask for fewer items at once")

    def _busy(self, hold: Hold, more: int) -> Busy:
        if self.held + more > self._limits.memory_bytes:
            return Busy(f"requests fill this node's {self._limits.memory_bytes} bytes; wait, or send the request to another node")
        name = hold.owner.name
        return Busy(f"owner {name} has as much of this node's memory as an owner may have; wait for one of its requests")

    def _give(self, hold: Hold, more: int) -> None:
        self.held += more
        if self.held > self._most_held:
            self._most_held = self.held
        hold.of_owner.held += more
        hold.held += more

    def _take_back(self, hold: Hold, less: int) -> None:
        self._give(hold, -less)
        if self._waiting:
            self._serve_waiting()
        if not self.held and self._most_held > _MUCH:
            self._most_held = 0
            self._on_idle()

    def _serve_waiting(self) -> None:
        """Serve waiting requests in order. One that waits for the node's memory, not for its owner's share, blocks later ones."""
        still: list[tuple[Hold, int, asyncio.Future[None]]] = []
        full = False
        for entry in self._waiting:
            hold, more, ready = entry
            if ready.done():
                continue
            if not full and self._has_room(hold, more):
                self._give(hold, more)
                ready.set_result(None)
                continue
            full = full or self.held + more > self._limits.memory_bytes
            still.append(entry)
        self._waiting = still


class Hold:
    """The bytes of the budget that one request holds. ``release`` must be called in the end."""

    __slots__ = ("_body", "_for_bodies", "_memory", "_open", "held", "in_lane", "of_owner", "owner")

    def __init__(self, memory: Memory, owner: Owner, of_owner: OfOwner) -> None:
        self._memory = memory
        self._body = 0
        #: Bytes of the body that count among all bodies that are arriving.
        self._for_bodies = 0
        self._open = True
        self.owner = owner
        self.of_owner = of_owner
        self.held = 0
        #: True for the large request that is being worked on.
        self.in_lane = False

    def grow_body(self, size: int) -> None:
        """Pay for a body up to this size, as far as it is not paid. Raises TooLarge, Busy."""
        more = size - self._body
        if more <= 0:
            return
        large = more if self._for_bodies else size if size > _SMALL_BODY else 0
        if large:
            self._require_room_among_bodies(large)
        self.take(more)
        self._body = size
        self._count_among_bodies(large)

    def _require_room_among_bodies(self, more: int) -> None:
        """Raises Busy if the arriving bodies leave no room. A body that is the only one needs none."""
        memory, of_owner = self._memory, self.of_owner
        most = memory._limits.memory_bytes // _PARTS_FOR_BODIES
        most_of_owner = most * memory._limits.key_share // 100
        others, others_of_owner = memory.held_for_bodies - self._for_bodies, of_owner.held_for_bodies - self._for_bodies
        if others_of_owner and of_owner.held_for_bodies + more > most_of_owner:
            name = self.owner.name
            raise Busy(f"bodies of owner {name} fill the {most_of_owner} bytes that an owner has for them; wait for one of them")
        if others and memory.held_for_bodies + more > most:
            raise Busy(f"bodies under way fill the {most} bytes that this node has for them; wait, or ask another node")

    def _count_among_bodies(self, more: int) -> None:
        self._for_bodies += more
        self._memory.held_for_bodies += more
        self.of_owner.held_for_bodies += more

    def body_is_decoded(self) -> None:
        """Make room for another body to arrive. The bytes of this one are still held."""
        self._count_among_bodies(-self._for_bodies)

    def take(self, more: int) -> None:
        """Pay at once. Raises TooLarge, Busy."""
        self._memory._require_possible(self, more)
        if not self._memory._has_room(self, more):
            raise self._memory._busy(self, more)
        self._memory._give(self, more)

    def take_at_once(self, more: int) -> bool:
        """Pay if there is room and no request waits for it. Returns whether it was paid."""
        memory = self._memory
        if memory._waiting or not memory._has_room(self, more):
            return False
        memory._give(self, more)
        return True

    async def wait_for(self, more: int, seconds: float) -> None:
        """Pay when there is room, in the order in which requests came. Raises TooLarge, and Busy if it takes longer."""
        memory = self._memory
        memory._require_possible(self, more)
        if self.take_at_once(more):
            return
        ready = asyncio.get_running_loop().create_future()
        memory._waiting.append((self, more, ready))
        memory._serve_waiting()
        try:
            async with asyncio.timeout(seconds):
                await ready
        except TimeoutError:
            raise memory._busy(self, more) from None
        finally:
            ready.cancel()

    async def enter_lane(self, seconds: float) -> None:
        """Wait until no other large request is being worked on. Raises Busy if it takes longer, or too many of the owner wait."""
        if self.in_lane:
            return
        if self.of_owner.large_waiting >= _LARGE_WAITING:
            name = self.owner.name
            raise Busy(f"{_LARGE_WAITING} large requests of owner {name} wait here; wait for them, or ask another node")
        self.of_owner.large_waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._memory._lane.acquire()
        except TimeoutError:
            raise Busy("this node is working on other large requests; wait, or send the request to another node") from None
        finally:
            self.of_owner.large_waiting -= 1
        self.in_lane = True

    def leave_lane(self) -> None:
        """Let the next large request in: the work is done, and only the answer has to leave."""
        if self.in_lane:
            self.in_lane = False
            self._memory._lane.release()

    def give_back(self, less: int) -> None:
        """Give back bytes that the request no longer holds."""
        self._memory._take_back(self, less)

    def release(self) -> None:
        """Give everything back at the end of the request. Further calls do nothing."""
        if not self._open:
            return
        self._open = False
        self.leave_lane()
        memory, of_owner = self._memory, self.of_owner
        self.body_is_decoded()
        of_owner.holds -= 1
        if not of_owner.holds:
            del memory._owners[self.owner]
        memory._take_back(self, self.held)


def cost_of_decoding(body: bytes, parts: int) -> int:
    """Return the bytes of the Python objects that a JSON body becomes. ``parts``: its commas, objects and arrays, or more.

    A text takes one byte a character, or four if it has one beyond Latin-1. The body's parts are copied twice: as they came and
    in canonical form.
    """
    widest = 1 if body.isascii() and b"\\u" not in body else 4
    return len(body) * (widest + 2) + (parts + 1) * _PART_BYTES


def cost_of_places(places: int) -> int:
    """Return the bytes held for values in records: the place of each, and its replacement."""
    return places * _ITEM_BYTES


def cost_of_paths(paths: int) -> int:
    """Return the bytes of the places that an answer lists, as objects and as JSON."""
    return paths * _PATH_BYTES


def cost_of_writing(items: int) -> int:
    """Return the bytes that the coordinator holds while it writes a batch, part by part, beside the canonical forms."""
    return items * _ITEM_BYTES + _PIECE_BYTES


def cost_of_reading(items: int, limits: Limits) -> int:
    """Return the bytes that a read holds until its records are known, and that their answer takes as it leaves."""
    return _REPLIES * min(items * limits.value_bytes, limits.reply_bytes) + items * _ITEM_BYTES + _PIECE_BYTES
