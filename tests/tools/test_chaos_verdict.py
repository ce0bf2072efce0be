"""Valid, invalid or unknown: histories as the harness writes them, read back from a file, and judged."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chaos.liveness import Liveness
from chaos.recorder import Recorder
from chaos.summary import Broken, Exit, FinalReads, Verdict
from chaos.testbed import history
from chaos.testbed.history import Action, Begun, Complete, FaultBegan, FaultEnded, History, Invoke, Outcome
from chaos.verdict import Judgement, Observed, judge, related
from tests import ROOT

BAD = sorted(
    path
    for path in (ROOT / "tests" / "histories" / "bad").glob("*.json")
    if not msgspec.json.decode(path.read_bytes(), type=History).narrow
)
TOKEN = "qv_1_0"
HELD = Liveness()
HARMED = Exit("n2", 3.0, 3, expected=True, words="full-disk")


def recorded(bad: History, path: Path) -> History:
    """As if the harness had recorded it: in a file, among faults and notes, with operation numbers of its own."""
    numbers: dict[int, int] = {}
    at = 0.0
    with Recorder.to(path, lambda: at) as recorder:
        recorder.write(Begun(1, "test", "2025-01-01T00:00:00+00:00", 1.0, ("kill",), "proxies", ("quorumvault",)))
        for event in bad.events:
            recorder.note("one more")
            at = event.at
            if isinstance(event, Invoke):
                numbers[event.op] = recorder.invoke(
                    event.action, event.owner, event.node, event.given, event.epoch, client=3, final=event.final
                )
            else:
                recorder.write(FaultBegan(event.op, "kill", ("n1",), 0.5, "n1 is killed"))
                recorder.complete(numbers[event.op], event.outcome, event.answers, event.epoch, event.why or "timeout")
                recorder.write(FaultEnded(event.op, recorder.now, "mended"))
    return history.calls(history.read(path))


def complete_run() -> list[Invoke | Complete]:
    """One of each operation, all of them correct."""
    return [
        Invoke(0, Action.TOKENIZE, "acme", "n1", ("=a",)),
        Complete(0, Outcome.OK, (TOKEN,), 1),
        Invoke(1, Action.DETOKENIZE, "acme", "n2", (TOKEN,)),
        Complete(1, Outcome.OK, ("=a",)),
        Invoke(2, Action.RETOKENIZE, "acme", "n3", (TOKEN,)),
        Complete(2, Outcome.OK, (TOKEN,), 1),
        Invoke(3, Action.ROTATE, "acme", "n3", (), 1),
        Complete(3, Outcome.OK, (), 2),
        Invoke(4, Action.EPOCH, "acme", "n1"),
        Complete(4, Outcome.OK, (), 2),
        Invoke(5, Action.USE_KEY, "acme", "n1", ("keya",)),
        Complete(5, Outcome.OK, ("taken",)),
        Invoke(6, Action.REVOKE_KEY, "acme", "n1", ("keya",)),
        Complete(6, Outcome.OK),
    ]


def observed(**changed: object) -> Observed:
    seen = Observed(final=FinalReads(1, 9, ("through n1",)), planned=frozenset({"kill"}), version="1")
    for name, value in changed.items():
        setattr(seen, name, value)
    return seen


def verdict(
    events: list[Invoke | Complete], applied: Collection[str] = ("kill",), live: Liveness = HELD, **changed: object
) -> Judgement:
    return judge(History(events), observed(**changed), applied, live)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_history_of_the_harness_is_refused_for_its_reason(path: Path, tmp_path: Path) -> None:
    bad = msgspec.json.decode(path.read_bytes(), type=History)
    judged = judge(recorded(bad, tmp_path / "history.jsonl"), observed(), {"kill"}, HELD)
    assert judged.verdict is Verdict.INVALID
    assert judged.broken is not None
    assert judged.broken.rule == bad.breaks
    assert judged.broken.op in judged.broken.ops or judged.broken.op < 0


def test_a_run_that_showed_everything_is_valid() -> None:
    assert verdict(complete_run()) == (Verdict.VALID, (), None, False)


@pytest.mark.parametrize("op", range(5))
def test_a_run_that_never_saw_one_of_the_operations_succeed_is_unknown(op: int) -> None:
    events = [
        Complete(op, Outcome.UNKNOWN) if isinstance(event, Complete) and event.op == op else event for event in complete_run()
    ]
    judged = verdict(events)
    assert judged.verdict is Verdict.UNKNOWN
    action = next(event.action for event in events if isinstance(event, Invoke) and event.op == op)
    assert judged.reasons == (f"no {action} succeeded",)


def test_a_run_that_read_nothing_back_or_broke_nothing_is_unknown() -> None:
    assert verdict(complete_run(), final=FinalReads(0, 0, ())).reasons == ("what was stored was not read back at the end",)
    skipped = {"kill": "it does not run"}
    assert verdict(complete_run(), applied=(), unavailable=skipped).reasons == ("none of the faults could be applied",)
    assert verdict(complete_run(), applied=(), planned=frozenset()).verdict is Verdict.VALID


def test_each_kind_of_fault_that_was_planned_was_applied_or_it_is_said_why_not() -> None:
    planned = frozenset({"kill", "pause", "torn-log"})
    judged = verdict(complete_run(), ["kill", "kill"], planned=planned, unavailable={"torn-log": "the store has no log"})
    assert judged == (Verdict.UNKNOWN, ("no pause was applied, and nobody said why",), None, False)
    assert verdict(complete_run(), planned=planned - {"pause"}, unavailable={"torn-log": "no log"}).verdict is Verdict.VALID


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ({"breaches": [(1, "operation 1, detokenize: 500 internal")]}, "contract: operation 1, detokenize: 500 internal"),
        ({"not_ready": ["n3 is not ready in time"]}, "not back: n3 is not ready in time"),
        ({"outlived": ["n2 goes on"]}, "replaced disk: n2 goes on"),
        (
            {"exits": [HARMED, Exit("n1", 4.0, 1, expected=False, words="nothing was done to it")]},
            "ended by itself: n1 ended by itself at 4.0 s with exit code 1: nothing was done to it",
        ),
    ],
)
def test_what_was_seen_beside_the_history_can_be_invalid(seen: dict[str, Any], reason: str) -> None:
    judged = verdict(complete_run(), **seen)
    assert (judged.verdict, judged.reasons) == (Verdict.INVALID, (reason,))
    assert judged.broken is not None
    assert judged.broken.rule == reason.partition(":")[0]


def test_an_aim_that_was_missed_is_invalid_after_what_breaks_a_rule() -> None:
    live = Liveness(missed=(("served", "few were"), ("recovery", "late")), few=("one",), busy=("two",))
    judged = verdict(complete_run(), live=live)
    assert (judged.verdict, judged.reasons, judged.too_busy) == (Verdict.INVALID, ("served: few were", "recovery: late"), False)
    assert judged.broken == Broken("served", "few were", -1, ())
    assert verdict(complete_run(), live=live, not_ready=["n3"]).reasons == ("not back: n3",)


def test_what_a_busy_machine_leaves_open_is_unknown_and_said_to_be_its_doing() -> None:
    busy = Liveness(busy=("recovery: late",))
    assert verdict(complete_run(), live=busy) == (Verdict.UNKNOWN, ("recovery: late",), None, True)
    assert verdict(complete_run(), live=busy._replace(few=("served: few",))) == (
        Verdict.UNKNOWN, ("served: few", "recovery: late"), None, False,
    )  # fmt: skip
    assert not verdict(complete_run(), live=busy, final=FinalReads(0, 0, ())).too_busy


def test_a_node_may_end_by_itself_if_its_disk_was_harmed() -> None:
    assert verdict(complete_run(), exits=[HARMED]).verdict is Verdict.VALID


def test_what_is_wrong_with_the_history_goes_before_all_else() -> None:
    lost = [*complete_run(), Invoke(7, Action.DETOKENIZE, "acme", "n1", (TOKEN,)), Complete(7, Outcome.OK, ("not_found",))]
    judged = verdict(lost, not_ready=["n3 is not ready in time"], final=FinalReads(0, 0, ()))
    assert judged.broken is not None
    assert (judged.broken.rule, judged.broken.op, judged.broken.ops) == ("lost", 7, (0, 1, 2, 7))


def test_what_is_shown_for_an_epoch_is_whoever_showed_or_opened_it() -> None:
    events = [*complete_run()[:10], Invoke(5, Action.EPOCH, "acme", "n1"), Invoke(6, Action.EPOCH, "zeta", "n1")]
    assert related(History(events), 5, frozenset()) == (0, 2, 3, 4, 5)
    assert related(History(events), -1, frozenset()) == ()
