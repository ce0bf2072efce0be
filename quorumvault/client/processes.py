"""The state of a client that no two processes may share: its connections, and what it learnt about the nodes.

A forked process starts with copies of its parent's sockets, so either process could read an answer meant for the other. Each
process therefore uses only state of its own: a forked process makes its state at its first request. No lock guards this: a lock
that a thread of the parent held at the fork would stay locked in the child forever.
"""

import os
from collections.abc import Callable
from typing import Generic, NoReturn, TypeAlias, TypeVar

OwnT = TypeVar("OwnT")

#: A process's id and its number of forks. A forked process may have the id of a parent that is gone, or of one in another
#: namespace. A process forked in C code, which Python does not notice, has another id.
_Process: TypeAlias = tuple[int, int]
_forks = [0]


def _count_fork() -> None:
    _forks[0] += 1


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_count_fork)


def _this_process() -> _Process:
    return os.getpid(), _forks[0]


class EachProcess(Generic[OwnT]):
    """One ``OwnT`` for each process: ``first`` in the process that makes this object, a result of ``make`` in each forked one.

    State of another process is kept, but neither used nor closed. Closing it would need locks that may be held forever, and with
    asyncio would take the other process's sockets out of the epoll instance that both share. The copies of those sockets end with
    their process.
    """

    def __init__(self, first: OwnT, make: Callable[[], OwnT]) -> None:
        self._make = make
        self._owned: dict[_Process, OwnT] = {_this_process(): first}
        self._ended = False

    def get(self) -> OwnT:
        """Returns the state of this process; makes it if there is none. Raises as ``make`` does; RuntimeError after ``end``."""
        process = _this_process()
        own = self._owned.get(process)
        if own is not None:
            return own
        if self._ended:
            raise RuntimeError("this client was closed before the process was forked off: make another one")
        # Threads that ask at the same time may each make one. ``setdefault`` is atomic, so all of them use the same.
        return self._owned.setdefault(process, self._make())

    def end(self) -> OwnT | None:
        """Returns the state of this process, for the caller to close, or None. From now on forked processes make no state."""
        self._ended = True
        return self._owned.get(_this_process())


def refuse_transport() -> NoReturn:
    """The ``make`` of a client that was given its transport: no other process can have another one."""
    raise RuntimeError("a client with a transport of its caller's works in the process that made it: make another one here")


def refuse_copy(kind: type) -> NoReturn:
    """Raises TypeError for copy and pickle: connections cannot be copied, and an API key has no place in a pickle."""
    raise TypeError(f"a {kind.__name__} cannot be pickled or copied: make one in each process, as in the initializer of a pool")
