"""What nodes say of themselves, and why one node refuses another."""

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.protocol.views import Mode, View
from quorumvault.server.peers.facts import Greeting, NodeFacts, decode_facts, decode_greeting, encode, refusal

N1 = NodeFacts(
    cluster_id="c-1",
    protocol=4,
    version="1.2",
    node="n1",
    disk=b"1" * 16,
    incarnation=7,
    mode=Mode.ACTIVE,
    view=View(1, bytes(16), {"n1": b"1" * 16, "n2": b"2" * 16, "n3": b"3" * 16}),
    secrets={"s1": "fingerprint-1"},
    fields="fields-1",
    keys="keys-1",
)
N2 = msgspec.structs.replace(N1, node="n2", disk=b"2" * 16)


def refused(theirs: NodeFacts, to: str = "n1", certified: str = "n2") -> str | None:
    return refusal(N1, Greeting(to, theirs), expected=("n2", "n3"), certified=certified)


def test_a_node_of_the_same_cluster_is_welcome() -> None:
    assert refused(N2) is None


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_neighbouring_versions_speak(protocol: int) -> None:
    assert refused(msgspec.structs.replace(N2, protocol=protocol, version="9.9")) is None


def test_other_fields_and_keys_are_no_reason() -> None:
    assert refused(msgspec.structs.replace(N2, fields="x", keys="y", mode=Mode.JOINING, view=None)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cluster_id": "c-2"}, ("'c-1'", "'c-2'", "cluster_id")),
        ({"protocol": 2}, ("version 4", "version 2", "upgrade")),
        ({"protocol": 6}, ("version 4", "version 6", "upgrade")),
        ({"node": "n1"}, ("this is n1", "cluster.yaml")),
        ({"node": "n4"}, ("n4", "n2 or n3", "cluster.yaml")),
        ({"disk": b"1" * 16}, ("same disk", "copy")),
        ({"secrets": {"s1": "fingerprint-2"}}, ("different master secrets", "'s1'")),
        ({"secrets": {}}, ("only one of n1 and n2", "'s1'")),
        ({"secrets": {"s1": "fingerprint-1", "s2": "fingerprint-2"}}, ("only one of n1 and n2", "'s2'")),
    ],
)
def test_refused_with_a_reason_that_says_what_to_do_and_shows_no_secret(
    changes: dict[str, object], words: tuple[str, ...]
) -> None:
    reason = refused(msgspec.structs.replace(N2, **changes))
    assert reason is not None
    for word in words:
        assert word in reason
    assert "fingerprint" not in reason


def test_a_node_is_the_one_that_its_certificate_names() -> None:
    """Proves: a node is whom its certificate names. Without this, n3's certificate would do for n2's vote."""
    assert refused(N2, certified="n3") is not None
    assert "what greets as n2 has the certificate of n3" in str(refused(N2, certified="n3"))


def test_a_node_that_looks_for_another_one_is_told_where_it_is() -> None:
    reason = refused(N2, to="n3")
    assert reason is not None
    assert "n2 means to speak with n3, but this is n1" in reason


def test_facts_are_a_map_in_which_an_unknown_name_is_skipped() -> None:
    plain = msgpack.unpackb(encode(N1))
    assert (plain["node"], plain["view"]) == ("n1", [1, bytes(16), {"n1": b"1" * 16, "n2": b"2" * 16, "n3": b"3" * 16}])
    assert decode_facts(msgpack.packb({**plain, "later": [1, 2]})) == N1
    assert decode_greeting(encode(Greeting("n2", N1))) == Greeting("n2", N1)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    for decode in (decode_facts, decode_greeting):
        with pytest.raises(ValueError):
            decode(data)
