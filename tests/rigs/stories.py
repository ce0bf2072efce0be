"""Histories of the harness, told call by call."""

from chaos.measures import Measured, measured
from chaos.testbed.history import (
    Action,
    Complete,
    Convergence,
    FaultBegan,
    FaultEnded,
    Invoke,
    Machine,
    Mending,
    Note,
    Outcome,
    Record,
    Unsent,
    Whole,
)


class Story:
    """Collects records in the order in which a test tells them."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._ops = 0

    def call(
        self, node: str, at: float, outcome: Outcome = Outcome.OK, took: float = 0.01, why: str = "", client: int = 0
    ) -> None:
        action = Action.ROTATE if why == "epoch-ahead" else Action.DETOKENIZE
        self.records.append(Invoke(self._ops, action, "acme", node, ("qv_1_0", "qv_1_1"), at=at, client=client))
        self.records.append(Complete(self._ops, outcome, at=at + took, why=why))
        self._ops += 1

    def calls(self, node: str, began: float, ended: float, outcome: Outcome = Outcome.OK, rate: float = 100.0) -> None:
        """Tells ``rate`` calls a second."""
        for number in range(round((ended - began) * rate)):
            self.call(node, began + number / rate, outcome)

    def unsent(self, node: str, at: float) -> None:
        self.records.append(Unsent(at, node))

    def fault(self, number: int, began: float, ended: float, *nodes: str, kind: str = "kill") -> None:
        self.records.append(FaultBegan(number, kind, nodes, began, "words"))
        self.records.append(FaultEnded(number, ended, "mended"))

    def mending(self, at: float) -> None:
        self.records.append(Mending(at))

    def whole(self, at: float, *, equal: bool = True) -> None:
        """All nodes are whole, and their replicas are the same; or (``equal`` false) the wait for that was in vain."""
        self.records += [Whole(at), Convergence(at, equal)]

    def machine(self, began: float, ended: float, late: float, others: float, ours: float = 0.2, sync: float = 0.005) -> None:
        """Tells the machine's figures second by second."""
        for second in range(round(ended - began)):
            self.records.append(Machine(began + second, began + second + 1.0, late, sync, ours, others, 1.5))

    def end(self, at: float) -> Measured:
        self.records.append(Note(at, "the end"))
        return measured(self.records)
