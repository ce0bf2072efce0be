"""After everything is mended, reads all known tokens back: through each node, and from each two of the three disks.

While one node is down, the two others have to agree: at least one of them has every record that two nodes acknowledged.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from chaos.nemesis import others
from chaos.recorder import Recorder
from chaos.summary import FinalReads
from chaos.testbed.checkers import UNAVAILABLE
from chaos.testbed.cluster import NODES, READY_SECONDS, Cluster, ClusterError
from chaos.testbed.history import READER, Action, Outcome
from chaos.workload import OWNERS, Asked, Workload

#: Items in a request, which by the contract takes at least 10,000; and the number of current values to tokenize once more.
_BATCH, _AGAIN = 2_000, 500
_ATTEMPTS = 4
#: The longest that a node may take to be back: twice the longest time of a start.
BACK_SECONDS = 2 * READY_SECONDS


async def ready(cluster: Cluster, *names: str, reachable: int) -> str | None:
    """Waits until these nodes are ready. Returns None, or the reason why they are not."""
    try:
        await asyncio.to_thread(cluster.wait_ready, *names, reachable=reachable, seconds=BACK_SECONDS)
    except ClusterError as error:
        return str(error)
    return None


async def read_back(
    cluster: Cluster, workload: Workload, recorder: Recorder, order: Sequence[str]
) -> tuple[FinalReads, list[str]]:
    """Reads everything back. ``order``: the order in which nodes are taken down.

    Returns what was read, and the nodes that did not come back in time.
    """
    tokens = {owner: list(known.every) for owner, known in workload.known.items()}
    count = sum(map(len, tokens.values()))
    ways: list[str] = []
    problems: list[str] = []
    async for way, through in _ways(cluster, order, problems):
        recorder.note(f"reading everything back: {way}")
        ways.append(way)
        for owner in OWNERS:
            for first in range(0, len(tokens[owner]), _BATCH):
                await _insist(workload, Asked(Action.DETOKENIZE, owner, tuple(tokens[owner][first : first + _BATCH])), through)
            await _insist(workload, Asked(Action.TOKENIZE, owner, workload.values(owner, _AGAIN)), through)
            await _insist(workload, Asked(Action.EPOCH, owner), through)
    return FinalReads(count, count * len(ways), tuple(ways)), problems


async def _insist(workload: Workload, asked: Asked, through: str) -> None:
    """Asks a few times until everything is answered, since other work may make a node late. The last try must succeed."""
    for attempt in range(1, _ATTEMPTS + 1):
        told = await workload.ask(asked, through, client=READER, final=attempt == _ATTEMPTS)
        if told.outcome is Outcome.OK and UNAVAILABLE not in told.answers:
            return


async def _ways(cluster: Cluster, order: Sequence[str], problems: list[str]) -> AsyncIterator[tuple[str, str]]:
    """Yields (words, the node to ask) for each state of the cluster, in that state. Ends early if a node does not come back."""
    for down in order:
        cluster.kill(down)
        for through in others(down):
            if problem := await ready(cluster, *others(down), reachable=2):
                problems.append(problem)
                return
            yield f"through {through}, {down} down", through
        cluster.start(down)
        if problem := await ready(cluster, reachable=len(NODES)):
            problems.append(problem)
            return
    for through in NODES:
        yield f"through {through}, all three up", through
