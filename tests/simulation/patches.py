"""A mutant: functions of the real code, or of what the simulator has in the place of threads and links, replaced for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: What can be played (plays.py): requests alone, while disks are lost, while they are put back too, and on nodes that heal.
REQUESTS, LOST_DISKS, PUT_BACK, HEALING_NODES = "requests", "lost-disks", "put-back", "healing"

Patch = tuple[object, str, object]


@dataclass(frozen=True)
class Mutant:
    """``undoes`` says which safety, with its rule of the protocol where it has one; ``play`` is what shows it (plays.py)."""

    name: str
    undoes: str
    patches: tuple[Patch, ...]
    play: str = REQUESTS


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    saved = [(owner, name, vars(owner).get(name)) for owner, name, _ in mutant.patches]
    try:
        for owner, name, replacement in mutant.patches:
            setattr(owner, name, replacement)
        yield
    finally:
        for owner, name, original in saved:
            if original is None:  # it was inherited
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def replaced(name: str, undoes: str, owner: object, attribute: str, replacement: object, play: str = REQUESTS) -> Mutant:
    return Mutant(name, undoes, ((owner, attribute, replacement),), play)
