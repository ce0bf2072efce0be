"""Background loops that rest in proportion to their work, and that an exception does not end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from quorumvault.server.healing.requests import NoAnswer

logger = logging.getLogger("quorumvault.healing")

#: The shortest rest, in seconds: enough for a turn of the event loop.
_TURN = 1e-4


class Throttle:
    """Rests after each piece of work, so that work takes up at most ``share`` of the time (0 to 1). Under load a piece takes
    longer, and so does the rest. Loops may share a throttle: each keeps its own ``began``."""

    def __init__(self, share: float) -> None:
        self._ratio = (1 - share) / share

    def begin(self) -> float:
        """Returns the time at which a piece of work begins, for ``rest`` at its end."""
        return asyncio.get_running_loop().time()

    async def rest(self, began: float) -> None:
        """Rest after the work that began at ``began``, for at least a turn of the event loop."""
        await pause((asyncio.get_running_loop().time() - began) * self._ratio)


async def pause(seconds: float) -> None:
    """Sleep, for at least a turn of the event loop: a loop that is always behind must let others run."""
    await asyncio.sleep(max(seconds, _TURN))


class Background:
    """The loops of a node: started once, stopped at shutdown."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, once: Callable[[], Awaitable[None]], seconds: Callable[[], float]) -> None:
        """Call ``once`` again and again, ``seconds()`` apart."""
        self._tasks.append(asyncio.get_running_loop().create_task(_again(name, once, seconds), name=name))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task


async def _again(name: str, once: Callable[[], Awaitable[None]], seconds: Callable[[], float]) -> None:
    while True:
        try:
            await once()
        except NoAnswer as error:
            logger.debug("%s: %s", name, error)
        except Exception as error:  # nothing may end the loop; the exception's text could contain a key
            logger.error("%s failed, and goes on: %s", name, type(error).__name__)
        await pause(seconds())
