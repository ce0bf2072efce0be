"""The state of a client that no two processes may share: its connections, and what it learnt about the nodes.

A forked process starts with copies of its parent's sockets, so either process could read an answer meant for the other. Each
process therefore uses only state of its own: a forked process makes its state at its first request. No lock guards this: a lock
that a thread of the parent held at the fork would stay locked in the child forever.
"""

import os
from collections.abc import Callable
from typing import Generic, NoReturn, TypeAlias, TypeVar

OwnT = TypeVar("OwnT")

#: Its id, and how many forks lie behind it. A fork may have the id of a parent that is gone, or of one in another namespace; and
#: what forks in C without telling Python has another id.
_Process: TypeAlias = tuple[int, int]
_forks = [0]


def _count_fork() -> None:
    _forks[0] += 1


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_count_fork)


def _this_process() -> _Process:
    return os.getpid(), _forks[0]


class EachProcess(Generic[OwnT]):
    """One ``OwnT`` for each process: ``first`` for the one that makes this, what ``make`` returns for each that is forked off it.

    What belongs to another process is kept, and neither used nor closed. To close it would need locks that may be held for good,
    and for asyncio would take the other process's sockets out of the epoll instance that both have. The copies of those sockets
    end with the process that has them.
    """

    def __init__(self, first: OwnT, make: Callable[[], OwnT]) -> None:
        self._make = make
        self._owned: dict[_Process, OwnT] = {_this_process(): first}
        self._ended = False

    def get(self) -> OwnT:
        """Returns the state of this process, made now if there is none. Raises as ``make`` does; RuntimeError after ``end``."""
        process = _this_process()
        own = self._owned.get(process)
        if own is not None:
            return own
        if self._ended:
            raise RuntimeError("this client was closed before the process was forked off: make another one")
        # Threads that ask at once may each make one. This step cannot be divided, so all of them go on with the same.
        return self._owned.setdefault(process, self._make())

    def end(self) -> OwnT | None:
        """Returns what this process has, to be closed, or None. From now on forked processes make nothing."""
        self._ended = True
        return self._owned.get(_this_process())


def refuse_transport() -> NoReturn:
    """The ``make`` of a client that was given its transport: there is no other one for another process."""
    raise RuntimeError("a client with a transport of its caller's works in the process that made it: make another one here")


def refuse_copy(kind: type) -> NoReturn:
    """Raises TypeError for copy and pickle: connections cannot be copied, and an API key has no place in a pickle."""
    raise TypeError(f"a {kind.__name__} cannot be pickled or copied: make one in each process, as in the initializer of a pool")
