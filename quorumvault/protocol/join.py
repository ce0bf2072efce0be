"""Joining: how a new disk takes the place of a lost disk, as a procedure without IO.

    ask      asks both other disks for view and mode. If one is not active, or does not answer: wait, and ask again
    behind   one disk is in an older view: tell it the newer view, and ask again
    survey   both disks are in view V, and V has another disk in this slot: each reads all of its store. The old disk is lost for
             good once V is left, so whatever the two cannot read between them has to be known before
    propose  propose V' = V with this disk in the slot; each disk syncs V' when it enters V'
    copy     both disks are in a view that lists this disk: enter that view, copy all of one store and then all of the other
    done     both copies are synced, and the marks of both disks from the beginning of the copies are remembered: become active

Each turn begins with the question, whatever came before, and does what the answers call for. So it makes no difference where a
join was interrupted, whether by an absent peer, a newer view or the end of the process: all lasting state is on the three disks.

A copy is read in pieces, each from the store as it is at that time, and still has everything that a snapshot would have. Let S be
the contents of a store at the moment when it entered the view. Nothing is ever deleted, a record keeps its value and a register
only grows. So a piece that is read later has at least everything that S has between the piece's first and last key, and the
pieces together have all of S. Anything beyond S was written in the new view. There this disk's vote does not count before the
disk is active, so both other disks have the write, or it was never acknowledged. Hence the source keeps no state for a copy, and
an interrupted copy continues after its last key, in the same view.

A part of a store that cannot be read is copied from the replaced disk, if that disk is at hand and may stand in as one of three
(donors.py). Like the other disks it is read after the view is entered; the process that reads it has locked it, so it
acknowledges nothing more.

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

#: Stands where a node's name would: the disk that stands in for a node (donors.py).
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
    """Send the request to each of the nodes, each in its own round. Sent: the replies that came in time, by node."""

    nodes: tuple[str, ...]
    request: AnyRequest


@dataclass(frozen=True, slots=True)
class Survey:
    """Have each node read all of its store and send none of it.

    Sent, by node: Unread if the node came to the end, NotCopied if it could not continue, nothing if it did not answer. DONOR is
    the disk that this disk will replace.
    """

    nodes: tuple[str, ...]
    view: View


@dataclass(frozen=True, slots=True)
class Unread:
    """The ends of the parts of a store that its node could not read."""

    ends: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make an empty store for this disk, and the disk's identity, durable before any other node hears of the disk."""


@dataclass(frozen=True, slots=True)
class Enter:
    """This joining disk enters the view. Continue once that is durable."""

    view: View


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge parallel columns of keys and values from ``source`` into this store. Continue once that is durable."""

    source: str
    keys: list[bytes] = field(repr=False)
    values: list[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Activate:
    """This disk is complete, and votes in the view. Continue once that is durable (rule: active after both copies).

    ``marks``: the marks of both other disks, taken after these had entered the view. A disk restored from an older copy may be
    in an older view, and must not vote there (rollback_marks.py).
    """

    view: View
    marks: Marks


@dataclass(frozen=True, slots=True)
class Wait:
    """The procedure cannot continue now, for the reason ``why``. Resume it later. ``advice``: what an operator can do."""

    why: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a joining disk: its view or None, the node that it copies from, and ``records`` of about ``expected``.

    Each record is copied from both other disks, and so counts twice. ``waits_for`` says in words what the join waits for, and
    ``advice`` what an operator can do about it.
    """

    view: int | None = None
    source: str | None = None
    records: int = 0
    expected: int | None = None
    waits_for: str | None = None
    advice: str | None = None


class Displaced(Exception):
    """Another disk has this disk's slot, in a view that both other disks have entered."""

    def __init__(self, view: View) -> None:
        super().__init__(f"view {view.number} has another disk in this one's place")
        self.view = view


Step = Ask | Survey | Prepare | Enter | Merge | Activate | Wait
Replies = Mapping[str, AnyReply | Unread]
#: Yields steps; is sent the replies to an Ask or a Survey (after other steps the sent value is ignored); returns the view in
#: which the disk is active.
Joining = Generator[Step, Replies, View]


@dataclass(frozen=True, slots=True)
class _Propose:
    """``leaves``: the view that the proposal would end; None if it only tells a node of a view that exists already."""

    view: View
    nodes: tuple[str, ...]
    leaves: View | None = None


@dataclass(frozen=True, slots=True)
class _CopyIn:
    view: View
    marks: Marks


@dataclass(slots=True)
class _Copies:
    """Progress of the copies in one view: the last key copied by source, and the sources that are done.

    ``unread`` maps the end of each part that a source could not read to that source.
    """

    view: ViewId
    after: dict[str, bytes] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    unread: dict[bytes, str] = field(default_factory=dict)


def join(node: str, disk: bytes, entered: View | None, donor: Donor | None = None) -> Joining:
    """Make this joining disk of ``node`` complete and active. ``entered`` is the view that it is durably in. Raises Displaced.

    ``donor``: an old disk of this node that is at hand, and might stand in as one of three.
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
    """Choose the next action from the answers of both other nodes (rule: join from two active disks of one view)."""
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
    """DONOR if there is a donor that may stand in, according to the marks that both other nodes remember; else None."""
    remembered = [reply.remembered for reply in told.values() if isinstance(reply, ViewIs)]
    return DONOR if donor is not None and stands_in(donor, view, remembered) else None


def _survey(
    node: str, turn: _Propose, others: tuple[str, ...], donor: Donor | None, answers: Replies
) -> Generator[Step, Replies, Wait | None]:
    """Check that two of the disks can read each part, before the view is left and after. Returns why to wait, or None.

    Rule: read before the view changes. A donor counts only if it may stand in both in this view and in the proposed one:
    otherwise it could not be read after the change.
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
    """Propose a view. Returns None if all nodes asked are in that view now, else why to wait."""
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
    """Continue the copies. Returns None when both are complete and synced, else why to wait."""
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
    """Copy the part that a source cannot read from the donor. Returns False if the donor cannot read the part either."""
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
