"""Requests are due whether earlier ones were answered or not. A request that could not be sent is recorded."""

import asyncio
import io

import msgspec

from chaos.asking import REFUSED, Names, NodeClient, Told
from chaos.recorder import Recorder
from chaos.testbed.history import Outcome, Record, Unsent
from chaos.testbed.spelling import Speller
from chaos.workload import Workload


class Silent(NodeClient):
    """A node that answers nothing until ``let_go`` is set."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def ask(self, *asked: object, **options: object) -> Told:
        await self.let_go.wait()
        return Told(Outcome.FAIL, why=REFUSED)


def test_a_request_for_which_no_client_is_free_is_due_all_the_same() -> None:
    async def story() -> list[Record]:
        file, node = io.BytesIO(), Silent()
        workload = Workload({"n1": node}, Names(Speller(bytes(32))), Recorder(file), seed=1, rate=1e6)

        def going_on() -> bool:
            if b'"unsent"' in file.getvalue():
                node.let_go.set()
            return not node.let_go.is_set()

        await workload.run(going_on)
        return [msgspec.json.decode(line, type=Record) for line in file.getvalue().splitlines()]

    records = asyncio.run(story())
    (unsent,) = (record for record in records if isinstance(record, Unsent))
    assert unsent.node == "n1"
