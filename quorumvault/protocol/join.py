"""Joining: how a new disk takes the place of a lost one, as a procedure without IO.

    ask      both others for view and mode. Not both active, or one does not answer: wait, ask again
    behind   one is in an older view: it is told of the newer one, and asked again
    survey   both are in V, and V has another disk in this slot: each reads all of its store. From the moment that V is left the
             old disk is lost for good, so what the two cannot read between them has to be known before
    propose  V' = V with this one; V' is synced where it is entered
    copy     both are in a view that lists this disk: enter it, copy all of the one and then all of the other
    done     both copies are synced, and how far both were when the copies began is remembered: active

Each turn begins with the question, whatever came before, and does what the answers ask for. So it makes no difference where it
was interrupted: by a peer that was away, by a newer view, or by the end of the process; what lasts is on the three disks.

A copy is read piece by piece, each from the store as it is by then, and still has all that a snapshot would have. Let S be what a
store holds at the moment at which it entered the view. Nothing is ever deleted, a record keeps its value and a register only
grows; so a piece that is read later has all that S has between its first and its last key, or more, and the pieces together have
all of S. What is there beyond S was written in the new view, where this disk's vote does not count before it is active, so that
the two others have it or it was never acknowledged. Hence the source keeps no state for a copy, and a copy that was interrupted
goes on after its last key, in the same view.

A part of a store that cannot be read is copied from the disk that is replaced, if that is at hand and may stand in as one of
three (donors.py). It is read after the entry as the others are, by a process that has locked it: it acknowledges nothing more.

server/healing/join.py drives the generator on the event loop.

Rules kept here: a lost disk gets a new identity; join from two active disks of one view; read before the view changes; a joiner
proposes the next view; copy after the entry, from both; active after both copies; donors have no voice; a replaced disk stops;
two lost disks need an operator.
"""

from bisect import bisect_left
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Final

from quorumvault.model import NODE_NAMES
from quorumvault.protocol.donors import Donor, stands_in, unread
from quorumvault.protocol.messages import UNSENT, AnyReply, AnyRequest, AskView, Copied, Copy, NotCopied, ProposeView, ViewIs
from quorumvault.protocol.rollback_marks import Mark, Marks
from quorumvault.protocol.views import NO_VIEW, View, ViewId, successor, votes

#: Named where a node is, a disk that stands in for one (donors.py).
DONOR: Final = "the old disk"
_STILL_COUNTS: Final = (
    "What it cannot read may be on {node}'s old disk and nowhere else, so that disk still counts. Put it back if there is any "
    "way: stop {node}, give its old data directory its name again, start it. If it is gone, stop all nodes and unite what is "
    "left: quorumvault recover DIR"
)
_COUNTS_NO_MORE: Final = (
    "What it cannot read may be on {node}'s old disk and nowhere else. Stop all nodes, bring that disk's data directory beside "
    "the others, and unite them: quorumvault recover DIR"
)


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this request to each of the nodes, in a round of its own each. Sent: the replies that came in time, by node."""

    nodes: tuple[str, ...]
    request: AnyRequest


@dataclass(frozen=True, slots=True)
class Survey:
    """Have all of each store read, and nothing sent. Sent: Unread of each node that came to the end, and what another one said.

    DONOR is the disk that this one is to replace.
    """

    nodes: tuple[str, ...]
    view: View


@dataclass(frozen=True, slots=True)
class Unread:
    """Where the parts of a store end that its node could not read."""

    ends: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make an empty store for this disk and its identity durable, before anybody hears of it."""


@dataclass(frozen=True, slots=True)
class Enter:
    """This joining disk enters the view. Go on once that is durable."""

    view: View


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge parallel columns of keys and values of ``source`` into this store. Go on once that is durable."""

    source: str
    keys: list[bytes] = field(repr=False)
    values: list[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Activate:
    """This disk is whole, and votes in the view. Go on once that is durable (rule: active after both copies).

    ``marks``: how far the others' disks were when they had entered the view. A disk restored from an
    older copy may be in an older view, and must not vote there (rollback_marks.py).
    """

    view: View
    marks: Marks


@dataclass(frozen=True, slots=True)
class Wait:
    """The procedure cannot go on now, for this reason. Continue it some time later. ``advice``: what an operator can do."""

    why: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a joining disk: its view, or None; the node that it copies from; records copied, of about ``expected``.

    Each record is copied from both others, and counts twice. ``waits_for`` says in words what keeps it from going on, and
    ``advice`` what an operator can do about that.
    """

    view: int | None = None
    source: str | None = None
    records: int = 0
    expected: int | None = None
    waits_for: str | None = None
    advice: str | None = None


class Displaced(Exception):
    """Another disk has been given this one's slot, in a view that both others have entered."""

    def __init__(self, view: View) -> None:
        super().__init__(f"view {view.number} has another disk in this one's place")
        self.view = view


Step = Ask | Survey | Prepare | Enter | Merge | Activate | Wait
Replies = Mapping[str, AnyReply | Unread]
#: Yields steps, is sent the replies to an Ask (and nothing that counts after the others), returns the view in which it is active.
Joining = Generator[Step, Replies, View]


@dataclass(frozen=True, slots=True)
class _Propose:
    """``leaves``: the view that this disk would bring to its end; None where a node is told of one that is there."""

    view: View
    nodes: tuple[str, ...]
    leaves: View | None = None


@dataclass(frozen=True, slots=True)
class _CopyIn:
    view: View
    marks: Marks


@dataclass(slots=True)
class _Copies:
    """Progress of the copies in one view: by source the last key that is here, and the sources that are done.

    ``unread``: where the parts end that a source could not read, and which source.
    """

    view: ViewId
    after: dict[str, bytes] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    unread: dict[bytes, str] = field(default_factory=dict)


def join(node: str, disk: bytes, entered: View | None, donor: Donor | None = None) -> Joining:
    """Make this joining disk of ``node`` whole and active. ``entered`` is the view that it is durably in. Raises Displaced.

    ``donor``: a disk of this node that is at hand, and could stand in as one of three.
    """
    others = tuple(name for name in NODE_NAMES if name != node)
    copies = _Copies(NO_VIEW)
    while True:
        told = yield Ask(others, AskView(*UNSENT))
        turn = _next_turn(node, disk, entered, others, told)
        hindrance: Wait | None
        if isinstance(turn, Wait):
            hindrance = turn
        elif isinstance(turn, _Propose):
            hindrance = None
            if turn.leaves is not None:
                hindrance = yield from _survey(node, turn, others, donor, told)
            hindrance = hindrance or (yield from _propose(turn, disk))
        else:
            view = turn.view
            if view != entered:
                yield Enter(view)
                entered = view
            if copies.view != view.id:
                copies = _Copies(view.id)
            hindrance = yield from _copy(view, others, copies, _standing_in(donor, view, told))
            if hindrance is None:
                yield Activate(view, turn.marks)
                return view
        if hindrance is not None:
            yield hindrance


def _next_turn(node: str, disk: bytes, entered: View | None, others: tuple[str, ...], told: Replies) -> _Propose | _CopyIn | Wait:
    """The next thing to do, from the answers of both others (rule: join from two active disks of one view)."""
    views: dict[str, View] = {}
    marks: dict[bytes, Mark] = {}
    for other in others:
        reply = told.get(other)
        if not isinstance(reply, ViewIs):
            return Wait(f"{other} does not answer")
        view = reply.current
        if view is None or view.disks.get(other) != reply.disk or not votes(reply.disk, reply.mode, view):
            return Wait(f"{other} is no active replica itself")
        views[other] = view
        marks[reply.disk] = reply.mark
    newest = max(views.values(), key=lambda view: view.id)
    if behind := tuple(other for other in others if views[other].id != newest.id):
        return _Propose(newest, behind)
    if newest.disks[node] == disk:
        return _CopyIn(newest, marks)
    if entered is not None and newest.id > entered.id:
        raise Displaced(newest)
    return _Propose(successor(newest, node, disk), others, newest)


def _standing_in(donor: Donor | None, view: View, told: Replies) -> str | None:
    """DONOR if there is one that may stand in, going by what both others remember."""
    remembered = [reply.remembered for reply in told.values() if isinstance(reply, ViewIs)]
    return DONOR if donor is not None and stands_in(donor, view, remembered) else None


def _survey(
    node: str, turn: _Propose, others: tuple[str, ...], donor: Donor | None, answers: Replies
) -> Generator[Step, Replies, Wait | None]:
    """Whether two of the disks can read each part, before the view is left and after. Returns why to wait.

    Rule: read before the view changes. A donor that would not stand in as well in the view that is proposed could not be read
    there: then the view stays.
    """
    view = turn.leaves
    assert view is not None
    stays = all(_standing_in(donor, each, answers) is not None for each in (view, turn.view))
    advice = _STILL_COUNTS if donor is None or view.lists(donor.disk) else _COUNTS_NO_MORE
    lacking: list[frozenset[bytes]] = []
    for sources in (others, (DONOR,) if stays else ()):
        told = (yield Survey(sources, view)) if sources else {}
        for source in sources:
            found = told.get(source)
            if isinstance(found, Unread):
                lacking.append(found.ends)
            elif source != DONOR:
                return _unreadable(source, advice, node) if isinstance(found, NotCopied) else Wait(f"{source} does not answer")
        if not unread(lacking):
            return None
    return _unreadable(next(other for other, ends in zip(others, lacking, strict=False) if ends), advice, node)


def _unreadable(source: str, advice: str, node: str) -> Wait:
    return Wait(f"{source} cannot read all of its store", advice.format(node=node))


def _propose(turn: _Propose, disk: bytes) -> Generator[Step, Replies, Wait | None]:
    """Propose a view. Returns None if all nodes asked are in it now, or why to wait."""
    if turn.view.joiner == disk:
        yield Prepare()
    told = yield Ask(turn.nodes, ProposeView(*UNSENT, turn.view))
    for other in turn.nodes:
        reply = told.get(other)
        if not isinstance(reply, ViewIs) or reply.current != turn.view:
            return Wait(f"{other} has not entered view {turn.view.number}")
    return None


def _copy(
    view: View, others: tuple[str, ...], copies: _Copies, donor: str | None = None
) -> Generator[Step, Replies, Wait | None]:
    """Go on with the copies. Returns None when both are here and synced, or why to wait."""
    for source in others:
        while source not in copies.done:
            told = yield Ask((source,), Copy(UNSENT[0], view.id, copies.after.get(source, b"")))
            reply = told.get(source)
            if isinstance(reply, NotCopied):
                behind = reply.end > copies.after.get(source, b"")
                read_by_the_other = copies.unread.setdefault(reply.end, source) == source
                if donor is None or not (behind and read_by_the_other and (yield from _borrow(view, donor, reply))):
                    return _unreadable(source, _COUNTS_NO_MORE, next(node for node in NODE_NAMES if node not in others))
                copies.after[source] = reply.end
                continue
            if not isinstance(reply, Copied) or (reply.view, reply.disk) != (view.id, view.disks[source]):
                return Wait(f"{source} does not go on with the copy")
            yield Merge(source, reply.keys, reply.values)
            if reply.keys:
                copies.after[source] = reply.keys[-1]
            if reply.last:
                copies.done.add(source)
    return None


def _borrow(view: View, donor: str, part: NotCopied) -> Generator[Step, Replies, bool]:
    """Copy from the donor what a source cannot read. Returns False if it cannot either."""
    after, ended = part.after, False
    while not ended:
        reply = (yield Ask((donor,), Copy(UNSENT[0], view.id, after))).get(donor)
        if not isinstance(reply, Copied):
            return False
        within = bisect_left(reply.keys, part.end)
        yield Merge(donor, reply.keys[:within], reply.values[:within])
        ended = reply.last or within < len(reply.keys)
        after = reply.keys[-1] if reply.keys else after
    return True
