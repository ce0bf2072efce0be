"""The in-memory vault that users test with: it keeps the contract's table over HTTP, and answers as real replicas do."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quorumvault as qv
from quorumvault.errors import EpochAhead, NotPermitted
from quorumvault.server.coordinator.vault import Vault
from quorumvault.testing import FakeVault
from quorumvault.testing.fake import FakeNode
from quorumvault.testing.memory import MemoryVault
from tests.api.test_contract import TABLE, Row
from tests.rigs.trio import ACME, KEYRING, OTHER, trio
from tests.rigs.vault import FIELDS, JSON, KEYS, SMALL, bearer

(BEFORE,) = (each.default for each in fields(Row) if each.name == "before")
TOKEN = "qv_1_7fb8ea5c06499690641b91bec0142c2c5405f851df1aebf1"
#: Rows of the contract that need no fault behind the API, and that HTTP itself allows; it allows no DEL in a header.
PLAIN = [row for row in TABLE if row.before is BEFORE and row.digest_bits == 160 and "del\x7f" not in row.headers.values()]


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNode]:
    with FakeNode(FIELDS, SMALL) as node:
        yield node


def test_it_keeps_the_table_of_the_contract(node: FakeNode) -> None:
    node.begin_again()
    node.keys = KEYS
    with httpx2.Client(base_url=node.url, trust_env=False) as client:
        for row in PLAIN:
            posted = row.method == "POST"
            content = row.body if isinstance(row.body, bytes) else json.dumps(row.body).encode()
            sent = (JSON if posted else {}) | bearer(row.key) | dict(row.headers)
            headers = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
            answer = client.request(row.method, row.path, content=content if posted else None, headers=headers)
            told = answer.json()
            assert (answer.status_code, told["code"]) == (row.status, row.code), str(row)
            assert row.says in told["detail"]
    assert len(PLAIN) > 300


@pytest.fixture
def vault(node: FakeNode) -> Iterator[FakeVault]:
    with FakeVault(node) as vault:
        yield vault


def test_a_token_is_the_same_in_every_run_and_an_owner_sees_none_of_anothers(vault: FakeVault) -> None:
    assert vault.tokenize(["Ada Lovelace"]) == [TOKEN]
    assert vault.another().detokenize([TOKEN])[0].value == "Ada Lovelace"
    assert vault.another("lab").detokenize([TOKEN])[0].status == "not_found"


def test_a_key_may_do_less(vault: FakeVault) -> None:
    with vault.another(allow=["tokenize"]) as writer, pytest.raises(NotPermitted):
        writer.detokenize(writer.tokenize(["Ada Lovelace"]))


def test_the_next_one_knows_nothing_of_this_one(node: FakeNode, vault: FakeVault) -> None:
    tokens = vault.tokenize(["Ada Lovelace"])
    assert vault.rotate(1) == 2
    with FakeVault(node) as later:
        assert (later.epoch(), later.detokenize(tokens)[0].status) == (1, "not_found")
        with pytest.raises(qv.Unauthenticated):
            vault.epoch()


def test_in_the_block_all_fails_and_after_it_nothing_does(vault: FakeVault) -> None:
    with vault.failing(qv.NoQuorum("two nodes are gone")), pytest.raises(qv.NoQuorum, match="two nodes are gone") as caught:
        vault.tokenize(["Ada Lovelace"])
    assert len(caught.value.asked) > 5  # half a minute of tries, which took no real time
    assert len(vault.tokenize(["Ada Lovelace"])) == 1


def test_in_the_block_nobody_answers(vault: FakeVault) -> None:
    with vault.failing(qv.Unreachable()), pytest.raises(qv.Unreachable, match="no node answered") as caught:
        vault.tokenize(["Ada Lovelace"])
    assert len(caught.value.asked) > 5
    assert len(vault.tokenize(["Ada Lovelace"])) == 1


def test_a_program_ends_that_does_not_close_it() -> None:
    program = "from quorumvault.testing import FakeVault; print(FakeVault().tokenize(['Ada Lovelace']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"['{TOKEN}']\n"), done.stderr


def test_it_brings_its_own_node_and_its_repr_shows_no_key() -> None:
    with FakeVault(fields=["$.mrn"]) as vault:
        assert vault.tokenize_records([{"mrn": "a"}]).replaced == {"$.mrn": 1}
        assert set(vault.environment.values()) == {*vault.urls, vault.api_key}
        assert vault.api_key not in repr(vault)
        other = vault.another()
    for closed in (vault, other):
        with pytest.raises(RuntimeError):
            closed.epoch()


OWNERS = st.sampled_from([ACME, OTHER])
VALUES = st.lists(st.sampled_from([b"sa", b"sb", b"i7", b"t"]), max_size=4)
STEPS = st.one_of(
    st.tuples(st.just("tokenize"), OWNERS, VALUES),
    st.tuples(st.just("detokenize"), OWNERS, st.lists(st.integers(-1, 5), max_size=4)),
    st.tuples(st.just("retokenize"), OWNERS, st.lists(st.integers(-1, 5), max_size=4)),
    st.tuples(st.just("rotate"), OWNERS, st.integers(1, 3)),
    st.tuples(st.just("epoch"), OWNERS, st.none()),
)


async def told(vault: Vault, step: tuple[str, Any, Any], issued: list[str]) -> Any:
    """The outcome of one operation. Tokens are named by their place among those issued so far; -1 stands for no token."""
    operation, owner, asked = step
    tokens = (
        ["no token" if not issued or place < 0 else issued[place % len(issued)] for place in asked or []]
        if (operation in ("detokenize", "retokenize"))
        else []
    )
    match operation:
        case "tokenize":
            return await vault.tokenize(owner, asked)
        case "detokenize":
            return await vault.detokenize(owner, tokens, lambda size: None)
        case "retokenize":
            return await vault.retokenize(owner, tokens, lambda size: None)
        case "rotate":
            try:
                return await vault.rotate(owner, asked)
            except EpochAhead as error:
                return str(error), error.active_epoch
    return await vault.epoch(owner)


@settings(max_examples=15)
@given(st.lists(STEPS, max_size=12))
def test_three_replicas_give_the_same_answers(steps: list[tuple[str, Any, Any]]) -> None:
    async def compare() -> None:
        async with trio() as real:
            fake, issued = MemoryVault(KEYRING), list[str]()
            for number, step in enumerate(steps):
                coordinator = real.coordinators[f"n{number % 3 + 1}"]
                answers = [await told(vault, step, issued) for vault in (coordinator, fake)]
                assert answers[0] == answers[1], step
                issued += [token for token in getattr(answers[0], "tokens", []) if isinstance(token, str)]

    asyncio.run(compare())
