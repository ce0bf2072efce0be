"""The history: the clients' requests and answers, in the order in which they happened.

    invoke    the client sent a request
    ok        the client has an answer
    fail      the client was told that nothing was done
    unknown   no answer, or an answer that the operation may have happened; it may still happen

Values are written "=…"; tokens as they are, or by a short name, "qv_<epoch>_<number>". In place of either, a word of the API's
contract may stand (not_found, …). An API key is written by its id, and is taken or refused. An operation without a second event
is unknown. The simulator, the harness and history files share this form. Histories of the harness also record what was done to
the nodes, which no checker looks at.
"""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import msgspec


class Action(StrEnum):
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"
    RETOKENIZE = "retokenize"
    EPOCH = "epoch"
    ROTATE = "rotate"
    USE_KEY = "use_key"
    REVOKE_KEY = "revoke_key"


#: The actions on API keys, by their ids, rather than on the vault's records.
KEY_ACTIONS = frozenset({Action.USE_KEY, Action.REVOKE_KEY})


class Outcome(StrEnum):
    OK = "ok"
    FAIL = "fail"
    UNKNOWN = "unknown"


#: The number of the client that reads everything back at the end.
READER = -1


class Invoke(msgspec.Struct, frozen=True, tag="invoke", tag_field="event"):
    """``given``: values or tokens. ``epoch``: the epoch to rotate from. ``final``: sent after everything was mended."""

    op: int
    action: Action
    owner: str
    node: str
    given: tuple[str, ...] = ()
    epoch: int = 0
    at: float = 0.0
    final: bool = False
    client: int = 0


class Complete(msgspec.Struct, frozen=True, tag="complete", tag_field="event"):
    """``answers``: one for each item of ``given``; None is a value whose token collides. ``why``: the reason without answers."""

    op: int
    outcome: Outcome
    answers: tuple[str | None, ...] = ()
    epoch: int = 0
    at: float = 0.0
    why: str = ""


class History(msgspec.Struct, frozen=True):
    """``narrow``: tokens are shortened, so that values collide. ``excused``: (owner, token) whose copies rotted, and which may
    stay unavailable."""

    events: list[Invoke | Complete]
    narrow: bool = False
    excused: frozenset[tuple[str, str]] = frozenset()
    #: The rule that a deliberately bad history in a file breaks.
    breaks: str | None = None


class Begun(msgspec.Struct, frozen=True, tag="run", tag_field="event"):
    """The first record of a file: the plan. ``seconds``: of work. ``command``: runs a node."""

    seed: int
    profile: str
    started: str
    seconds: float
    faults: tuple[str, ...]
    net: str
    command: tuple[str, ...]


class FaultBegan(msgspec.Struct, frozen=True, tag="fault-begin", tag_field="event"):
    """``nodes``: the nodes that cannot serve correctly because of the fault; for a cut link there may be none.

    ``at``: the time when applying the fault began, so earlier records may have later times.
    """

    number: int
    kind: str
    nodes: tuple[str, ...]
    at: float
    words: str


class FaultEnded(msgspec.Struct, frozen=True, tag="fault-end", tag_field="event"):
    number: int
    at: float
    words: str


class Note(msgspec.Struct, frozen=True, tag="note", tag_field="event"):
    at: float
    words: str


class Unsent(msgspec.Struct, frozen=True, tag="unsent", tag_field="event"):
    """A request was due but not sent, since all clients of this node wait for answers. In reality another client would ask."""

    at: float
    node: str


class Mending(msgspec.Struct, frozen=True, tag="mending", tag_field="event"):
    """No fault was active, and a disk was joining, or had not yet recovered records that it lost."""

    at: float


class Whole(msgspec.Struct, frozen=True, tag="whole", tag_field="event"):
    """No fault was active, and all three nodes were active, saw each other and could read all their records."""

    at: float


class Convergence(msgspec.Struct, frozen=True, tag="convergence", tag_field="event"):
    """``equal``: no fault was active, and all three replicas were identical. Else they were not, within the time of the aim."""

    at: float
    equal: bool


class Machine(msgspec.Struct, frozen=True, tag="machine", tag_field="event"):
    """The machine from ``since`` to ``at``, as seen by a process unrelated to the store.

    ``late``: the worst delay of this process's actions, in seconds. ``sync``: the seconds of one small sync. ``ours``: the share
    of all CPU time that nodes and harness used; ``others``: that of all other processes. ``load``: the load average over one
    minute.
    """

    since: float
    at: float
    late: float
    sync: float
    ours: float
    others: float
    load: float


Record = Begun | Invoke | Complete | FaultBegan | FaultEnded | Note | Unsent | Mending | Whole | Convergence | Machine


def read(path: Path) -> list[Record]:
    """Reads the records in a file of the harness, one JSON object a line. Raises OSError, msgspec.MsgspecError."""
    decoder = msgspec.json.Decoder(Record)
    with path.open("rb") as file:
        return [decoder.decode(line) for line in file]


def load(path: Path) -> History:
    """Reads the history in a file: a run of the harness, or one history as JSON. Raises OSError, msgspec.MsgspecError."""
    return msgspec.json.decode(path.read_bytes(), type=History) if path.suffix == ".json" else calls(read(path))


def calls(records: Iterable[Record]) -> History:
    """Returns the part of the records that checkers look at."""
    return History([record for record in records if isinstance(record, Invoke | Complete)])


def paired(records: Iterable[Record]) -> dict[int, tuple[Invoke, Complete | None]]:
    """Returns each operation by its number, in the order of the invokes; None for one that never ended."""
    found: dict[int, tuple[Invoke, Complete | None]] = {}
    for record in records:
        if isinstance(record, Invoke):
            found[record.op] = record, None
        elif isinstance(record, Complete):
            found[record.op] = found[record.op][0], record
    return found


def lines(history: History) -> list[str]:
    """Returns the history for people, one event a line."""
    told = []
    for event in history.events:
        if isinstance(event, Invoke):
            what = ", ".join(event.given) or (f"from {event.epoch}" if event.epoch else "")
            told.append(f"{event.at:9.4f}  {event.op:4}  {event.node}  {event.owner:6} {event.action} {what}")
        else:
            what = ", ".join(str(answer) for answer in event.answers)
            epoch = f" epoch {event.epoch}" if event.epoch else ""
            told.append(f"{event.at:9.4f}  {event.op:4}      -> {event.outcome}{epoch} {what}")
    return told
