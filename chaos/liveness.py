"""Judges the aims of liveness: the share of requests served through the other nodes, recovery, and convergence. Pure.

An aim counts as missed only if that is certain: the confidence interval of a share lies below the aim, or a time was too long
while the machine was not busy with other things. A result below an aim that the machine or chance may explain is open.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from chaos.aftermath import spread
from chaos.summary import CONFIDENCE, CONVERGENCE_AIM, MENDING_AIM, RECOVERY_AIM, SERVED_AIM, Aims, FaultSeen, Share, Spread

#: Bisections of the interval from 0 to 1: more than a float can resolve.
_BISECTIONS = 60


class Liveness(NamedTuple):
    """``missed``: aims that were certainly missed, with their figures. ``few``: results from too few requests to tell.
    ``busy``: results below an aim while the machine was busy."""

    missed: tuple[tuple[str, str], ...] = ()
    few: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()


def interval(share: Share, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Returns the Clopper-Pearson confidence interval of the true share: exact, and wide for few requests."""
    failed, rest = share.asked - share.ok, (1 - confidence) / 2
    if not share.asked:
        return 0.0, 1.0
    least = _where(lambda p: 1 - _at_most(failed - 1, share.asked, p) < rest) if failed else 0.0
    most = _where(lambda p: _at_most(failed, share.asked, p) > rest) if share.ok else 1.0
    return 1 - most, 1 - least


def _where(holds: Callable[[float], bool]) -> float:
    """Returns the probability up to which ``holds`` is true."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _at_most(failed: int, asked: int, p: float) -> float:
    """Returns the probability that at most ``failed`` of ``asked`` requests fail, if each fails with probability ``p``."""
    ways = (math.lgamma(asked + 1) - math.lgamma(count + 1) - math.lgamma(asked - count + 1) for count in range(failed + 1))
    return math.fsum(math.exp(each + count * math.log(p) + (asked - count) * math.log1p(-p)) for count, each in enumerate(ways))


def aims(seen: Sequence[FaultSeen]) -> Aims:
    judged = [fault for fault in seen if fault.judged]
    quiet = _sum(fault.quiet for fault in judged)
    return Aims(
        served=_sum(fault.others for fault in judged),
        quiet=quiet,
        between=interval(quiet),
        served_aim=SERVED_AIM,
        recovery=spread([fault.recovered_seconds for fault in judged if fault.recovered_seconds is not None]),
        recovery_aim=RECOVERY_AIM,
        mending=spread([fault.mended_seconds for fault in seen if fault.mended_seconds]),
        mending_aim=MENDING_AIM,
        convergence=spread([fault.same_seconds for fault in seen if fault.same_seconds is not None]),
        convergence_aim=CONVERGENCE_AIM,
        overtaken=sum(fault.same_seconds is None and 0 < fault.watched_seconds < CONVERGENCE_AIM for fault in seen),
        convergence_by_kind=_by_kind(seen),
    )


def _by_kind(seen: Iterable[FaultSeen]) -> dict[str, Spread]:
    times: dict[str, list[float]] = {}
    for fault in seen:
        if fault.alone and fault.same_seconds is not None:
            times.setdefault(fault.kind, []).append(fault.same_seconds)
    return {kind: found for kind in sorted(times) if (found := spread(times[kind])) is not None}


def _sum(shares: Iterable[Share]) -> Share:
    each = list(shares)
    return Share(sum(share.asked for share in each), sum(share.ok for share in each))


def judge(seen: Sequence[FaultSeen]) -> Liveness:
    found = [_served(seen), *map(_recovery, seen), *map(_mending, seen), *map(_convergence, seen)]
    return Liveness(
        missed=tuple(each for one in found for each in one.missed),
        few=tuple(each for one in found for each in one.few),
        busy=tuple(each for one in found for each in one.busy),
    )


def _served(seen: Sequence[FaultSeen]) -> Liveness:
    of_one = [fault for fault in seen if len(fault.nodes) <= 1]
    if of_one and not any(fault.alone for fault in of_one):
        words = "served: none of the faults on one node was alone: others overlapped it, or nodes were not whole before it"
        return Liveness(busy=(words,)) if any(fault.busy for fault in of_one) else Liveness(few=(words,))
    found = aims(seen)
    served, quiet, aim = found.served, found.quiet, found.served_aim
    if not of_one or (served.asked and served.ok >= aim * served.asked):
        return Liveness()
    words = f"{served.ok:,} of {served.asked:,} requests through the others were answered (aim: {aim:.1%})"
    if found.between[1] < aim:
        low, high = found.between
        quietly = f"while the machine was quiet {low:.2%} to {high:.2%} of {quiet.asked:,}, with {CONFIDENCE:.0%} confidence"
        return Liveness(missed=(("served", f"{words}; {quietly}"),))
    if served.asked and quiet.ok >= aim * quiet.asked:
        return Liveness(busy=(f"served: {words}; the machine was busy when they were not",))
    return Liveness(few=(f"served: {words}, too few to say whether that is chance",))


def _recovery(fault: FaultSeen) -> Liveness:
    seconds = fault.recovered_seconds
    if not fault.judged or seconds is None or seconds <= RECOVERY_AIM:
        return Liveness()
    return _late("recovery", f"requests failed up to {seconds:.1f} s after {_named(fault)} (aim: {RECOVERY_AIM:g} s)", fault)


def _mending(fault: FaultSeen) -> Liveness:
    if fault.mended_seconds <= MENDING_AIM:
        return Liveness()
    words = f"a disk was not whole {fault.mended_seconds:.1f} s after {_named(fault)} (aim: {MENDING_AIM:g} s)"
    return _late("mending", words, fault)


def _convergence(fault: FaultSeen) -> Liveness:
    seconds = max(0.0, fault.watched_seconds - fault.mended_seconds) if fault.same_seconds is None else fault.same_seconds
    if seconds < CONVERGENCE_AIM:
        return Liveness()
    mended = " and all disks were mended" if fault.mended_seconds else ""
    words = f"the replicas were not the same {seconds:.1f} s after {_named(fault)}{mended} (aim: {CONVERGENCE_AIM:g} s)"
    return _late("convergence", words, fault)


def _late(rule: str, words: str, fault: FaultSeen) -> Liveness:
    return Liveness(busy=(f"{rule}: {words}",)) if fault.busy else Liveness(missed=((rule, words),))


def _named(fault: FaultSeen) -> str:
    of = f" of {' and '.join(fault.nodes)}" if fault.nodes else ""
    return f"fault {fault.number}, {fault.kind}{of}, was over"
