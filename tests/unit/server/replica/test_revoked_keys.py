"""One disk's share of the revoked keys: it keeps them, even when it is nearly full, and reports them where it has a vote."""

from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from quorumvault.errors import StoreCorrupt
from quorumvault.protocol import messages
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.messages import AnyReply
from quorumvault.protocol.peer import NoReply
from quorumvault.protocol.revocations import MOST_HELD, fingerprint_of
from quorumvault.protocol.views import Mode, successor
from quorumvault.server.peers.frames import fits
from quorumvault.server.replica import revoked_keys
from quorumvault.server.replica.local_peer import LocalPeer
from quorumvault.server.storage import layout
from quorumvault.server.storage.memory import MemoryStore
from quorumvault.server.storage.store import CORRUPT
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.trio import DISKS, VIEW, make_replica

ROUND = messages.RoundId(DISKS["n2"], b"boot", 1)
HEAD = (ROUND, VIEW.id)
READ = messages.ReadRevoked(*HEAD, fingerprint_of(frozenset()))
REVOKE = messages.RevokeKeys(*HEAD, ["abc", "def"])


def told(reply: Any) -> list[str] | None:
    assert isinstance(reply, messages.RevokedAre)
    return reply.ids


def test_a_disk_keeps_what_is_revoked_and_tells_what_the_asker_lacks() -> None:
    """Proves: a revoked key stays revoked."""
    store = MemoryStore()
    replica = make_replica(store)
    assert told(replica.handle([READ])[0]) is None
    ack, also = replica.handle([REVOKE, messages.RevokeKeys(*HEAD, ["ghi"])])
    assert isinstance(ack, messages.Ack)
    assert isinstance(also, messages.Ack)
    for each in (replica, make_replica(store, incarnation=2)):
        assert told(each.handle([READ])[0]) == ["abc", "def", "ghi"]
        known = messages.ReadRevoked(*HEAD, fingerprint_of(frozenset({"abc", "def", "ghi"})))
        assert told(each.handle([known])[0]) is None


def test_what_is_known_already_is_acknowledged_without_a_write() -> None:
    replica = make_replica(MemoryStore())
    replica.handle([REVOKE])
    before = replica.sequence
    assert isinstance(replica.handle([REVOKE])[0], messages.Ack)
    assert replica.sequence == before


def test_a_disk_that_is_nearly_full_takes_it_and_one_without_a_reserve_says_so() -> None:
    room, reserve = mock.Mock(return_value=False), mock.Mock(return_value=True)
    replica = make_replica(MemoryStore(), has_room=room, has_reserve=reserve)
    assert isinstance(replica.handle([REVOKE])[0], messages.Ack)
    reserve.return_value = False
    assert isinstance(replica.handle([REVOKE])[0], messages.Ack)
    more = messages.RevokeKeys(*HEAD, ["ghi"])
    assert replica.handle([more])[0] == messages.NotVoting(*HEAD, DISKS["n1"], full=True)
    assert replica.revoked.ids == {"abc", "def"}


def test_a_disk_refuses_more_than_any_node_asks_for_and_repeats_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoked_keys, "MOST_HELD", 2)
    replica = make_replica(MemoryStore())
    replica.handle([REVOKE])
    assert isinstance(replica.handle([REVOKE])[0], messages.Ack)
    assert replica.handle([messages.RevokeKeys(*HEAD, ["abc", "ghi"])])[0] == messages.NotVoting(*HEAD, DISKS["n1"], full=True)
    assert replica.revoked.ids == {"abc", "def"}


def test_all_that_a_disk_can_have_is_an_answer_that_the_smallest_frame_takes() -> None:
    assert revoked_keys._MOST_COPIED > MOST_HELD
    answer = messages.RevokedAre(*HEAD, DISKS["n1"], ["a" * 32] * revoked_keys._MOST_COPIED)
    assert fits(messages.encode(answer), 16 << 20)  # limits.body_bytes is at least that, and limits.frame_bytes more


def test_a_copy_with_more_than_two_disks_can_have_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoked_keys, "_MOST_COPIED", 2)
    replica = make_replica(MemoryStore())
    replica.handle([REVOKE])
    for ids, changed in ((["abc"], 0), (["abc", "ghi"], None)):
        assert replica.merge([layout.revoked_key(key_id) for key_id in ids], [layout.REVOKED_VALUE] * len(ids)) == changed
    assert replica.revoked.ids == {"abc", "def"}


NO_IDS = [b"", b"\xff\xfe", b"ABC", b"a b", b"abc\n", b"a" * 33]


@pytest.mark.parametrize("junk", NO_IDS)
def test_what_is_no_id_is_not_copied_from_a_peer(junk: bytes) -> None:
    replica = make_replica(MemoryStore())
    copied = {layout.REVOKED + junk: layout.REVOKED_VALUE, layout.revoked_key("abc"): layout.REVOKED_VALUE}
    assert replica.merge(list(copied), list(copied.values())) == 1
    assert told(replica.handle([READ])[0]) == ["abc"]


@pytest.mark.parametrize("junk", NO_IDS)
def test_a_disk_that_has_what_is_no_id_starts_and_knows_the_rest(junk: bytes) -> None:
    store = MemoryStore()
    make_replica(store).handle([REVOKE])
    store.write({layout.REVOKED + junk: layout.REVOKED_VALUE})
    assert told(make_replica(store, incarnation=2).handle([READ])[0]) == ["abc", "def"]


def test_a_disk_in_another_view_does_nothing() -> None:
    newer = successor(VIEW, "n3", b"x" * 16)
    replica = make_replica(MemoryStore(), view=newer)
    for request in (REVOKE, READ):
        assert replica.handle([request])[0] == messages.OtherView(*HEAD, DISKS["n1"], newer)
    assert replica.revoked.ids == frozenset()


def test_a_joining_disk_takes_what_is_revoked_and_has_no_vote() -> None:
    store = MemoryStore()
    replica = make_replica(store)
    replica._become(replace(replica.identity, mode=Mode.JOINING))
    for request in (REVOKE, READ):
        assert replica.handle([request])[0] == messages.NotVoting(*HEAD, DISKS["n1"])
    assert replica.revoked.ids == {"abc", "def"}


def test_what_comes_with_a_copy_is_known_at_once() -> None:
    replica = make_replica(MemoryStore())
    replica.merge([layout.revoked_key("abc")], [layout.REVOKED_VALUE])
    assert told(replica.handle([READ])[0]) == ["abc"]


def test_a_store_that_cannot_tell_is_not_opened() -> None:
    store = FaultyStore(MemoryStore())
    make_replica(store).handle([REVOKE])
    store.corrupt.add(layout.revoked_key("abc"))
    assert store.get([layout.revoked_key("abc")]) == [CORRUPT]
    with pytest.raises(StoreCorrupt):
        make_replica(store)


def test_an_answer_does_not_wait_for_the_disk_and_a_write_tells_the_node() -> None:
    replica = make_replica(MemoryStore())
    storage, revoking = mock.Mock(replica=replica), mock.Mock()
    peer = LocalPeer("n1", lambda: storage, lambda: DISKS["n1"], lambda: True, HybridClock(), lambda: 0, revoking)
    replies: list[AnyReply | NoReply] = []
    replica.handle([REVOKE])
    peer.submit(READ, replies.append)
    storage.submit.assert_not_called()
    assert told(replies.pop()) == ["abc", "def"]
    peer.submit(REVOKE, replies.append)
    (_, on_reply), _ = storage.submit.call_args
    revoking.assert_not_called()
    on_reply(replica.handle([REVOKE])[0])
    assert len(replies) == 1
    revoking.assert_not_called()  # the replica had them already: nothing is new
    more = messages.RevokeKeys(*HEAD, ["abc", "ghi"])
    peer.submit(more, replies.append)
    (_, on_reply), _ = storage.submit.call_args
    on_reply(replica.handle([more])[0])
    assert len(replies) == 2
    revoking.assert_called_once()
