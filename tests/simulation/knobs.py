"""Knobs: limits and times of nodes, drawn anew for each seed, so that seeds reach limits that a real node hardly ever reaches.

As in FoundationDB's simulator, most knobs of most seeds keep a node's usual value, and any knob may be turned so that its limit
is met all the time. Every third seed turns none. Where there is no setting, the constant in the real code is changed.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from random import Random
from typing import Final, TypeVar
from unittest import mock

from quorumvault.config.cluster import HealingSettings
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.protocol import anti_entropy, hinted_handoff, operations, revocations
from quorumvault.server.coordinator import settle_notices
from quorumvault.server.healing import anti_entropy as comparing_replicas
from quorumvault.server.healing import hinted_handoff as handing_off
from quorumvault.server.healing import scrub, send_records
from quorumvault.server.replica import inventory, revoked_keys
from quorumvault.server.replica.settled import ROUND_KEYS
from tests.simulation.comparing import BUCKETS_WITH_KEYS

T = TypeVar("T")

#: One seed in this many leaves all knobs at a node's values.
_USUAL_EVERY: Final = 3
#: The share of knobs that are turned in the other seeds.
_TURNED: Final = 0.35


@dataclass(frozen=True)
class KeyBounds:
    """The most revoked ids of a cluster while it accepts unlisted ones, and in total; and of a disk (protocol/revocations.py).

    ``copied``: the most of a disk after copies.
    """

    unlisted: int = revocations.MOST_UNLISTED
    revoked: int = revocations.MOST_REVOKED
    held: int = revocations.MOST_HELD

    @property
    def copied(self) -> int:
        return self.held * (revoked_keys._MOST_COPIED // revocations.MOST_HELD)


#: A piece of a copy is only a few records, so that other things happen between pieces.
_LIMITS, _TIMEOUTS, _KEYS = Limits(copy_bytes=512), Timeouts(), KeyBounds()
#: Few hints, so that they overflow too; a pass of the scrub takes four seconds.
_HEALING = HealingSettings(hints=40, anti_entropy=2.0, scrub=4.0, share=0.5)


@dataclass(frozen=True)
class Knobs:
    """The configuration of all nodes of a run, and values that replace constants.

    ``part_items``: items of a batch in one round. ``batch_records``: records that healing moves at once; ``under_way``: how many
    such batches. ``hint_keys``: keys in one hint; ``hints_at_once``: hints sent at once. ``rounds``: rounds in one notice;
    ``round_keys``: keys whose rounds are remembered.
    """

    limits: Limits = _LIMITS
    timeouts: Timeouts = _TIMEOUTS
    healing: HealingSettings = _HEALING
    keys: KeyBounds = _KEYS
    part_items: int = operations.PART_ITEMS
    batch_records: int = anti_entropy.BATCH_RECORDS
    under_way: int = send_records._UNDER_WAY
    hint_keys: int = hinted_handoff.HINT_KEYS
    hints_at_once: int = handing_off._HINTS_AT_ONCE
    rounds: int = settle_notices.ROUNDS
    round_keys: int = ROUND_KEYS

    def words(self) -> Iterator[str]:
        """The knobs that differ from a run's usual ones."""
        for name in (each.name for each in fields(self)):
            mine, usual = getattr(self, name), getattr(USUAL, name)
            parts = getattr(usual, "__struct_fields__", None)
            if parts is None and mine != usual:
                yield f"{name} {mine}"
            for part in parts or ():
                if getattr(mine, part) != getattr(usual, part):
                    yield f"{name}.{part} {getattr(mine, part)}"

    @contextmanager
    def turned(self) -> Iterator[None]:
        """A context in which the constants have these values."""
        turns = (
            # Buckets that cannot hold a key are not visited.
            (inventory, "BUCKETS", BUCKETS_WITH_KEYS),
            (comparing_replicas, "BUCKETS", BUCKETS_WITH_KEYS),
            (scrub, "BUCKETS", BUCKETS_WITH_KEYS),
            (operations, "PART_ITEMS", self.part_items),
            (anti_entropy, "BATCH_RECORDS", self.batch_records),
            (send_records, "_UNDER_WAY", self.under_way),
            (hinted_handoff, "HINT_KEYS", self.hint_keys),
            (handing_off, "_HINTS_AT_ONCE", self.hints_at_once),
            (settle_notices, "ROUNDS", self.rounds),
            (revocations, "MOST_UNLISTED", self.keys.unlisted),
            (revocations, "MOST_REVOKED", self.keys.revoked),
            (revocations, "MOST_HELD", self.keys.held),
            (revoked_keys, "MOST_HELD", self.keys.held),
            (revoked_keys, "_MOST_COPIED", self.keys.copied),
        )
        with ExitStack() as stack:
            for module, name, value in turns:
                if getattr(module, name) != value:
                    stack.enter_context(mock.patch.object(module, name, value))
            yield


USUAL: Final = Knobs()


def draw(seed: int) -> Knobs:
    """The knobs of a seed."""
    if seed % _USUAL_EVERY == 0:
        return USUAL
    rng = Random(f"knobs {seed}")

    def turn(usual: T, *others: T) -> T:
        """Always draws, so that no knob depends on another."""
        turned, other = rng.random() < _TURNED, rng.choice(others)
        return other if turned else usual

    return Knobs(
        limits=Limits(
            # A group takes at least one request, and a request of a few bytes fills this group.
            group_bytes=turn(USUAL.limits.group_bytes, 1, 1, 2_048),
            storage_queue=turn(USUAL.limits.storage_queue, 3, 12),
            # Two or three records; a reply has to have room for one.
            reply_bytes=turn(USUAL.limits.reply_bytes, 128, 512),
            copy_bytes=turn(USUAL.limits.copy_bytes, 1, Limits().copy_bytes),
        ),
        # A request and its reply may each take 0.4 s on a good day (network.py).
        timeouts=Timeouts(request=turn(5.0, 2.0, 3.0), round=turn(2.0, 0.9, 1.3), hedge=turn(0.05, 0.0, 0.3)),
        healing=HealingSettings(
            hints=turn(40, 6, 2_000), anti_entropy=turn(2.0, 0.6, 5.0), scrub=turn(4.0, 1.5), share=turn(0.5, 0.1, 1.0)
        ),
        keys=turn(USUAL.keys, KeyBounds(3, 6, 6), KeyBounds(4, 8, 10), KeyBounds(6, 12, 13)),
        part_items=turn(USUAL.part_items, 1, 1, 2),
        batch_records=turn(USUAL.batch_records, 1, 3),
        under_way=turn(USUAL.under_way, 0, 1),
        hint_keys=turn(USUAL.hint_keys, 1, 2),
        hints_at_once=turn(USUAL.hints_at_once, 1, 2),
        rounds=turn(USUAL.rounds, 1, 2),
        round_keys=turn(USUAL.round_keys, 2, 8),
    )
