"""Not found costs the same work, whatever the token is, alone or beside others. The work is counted, not timed.

The tests count messages to replicas and how many keys each asks for, records that each store looks for, and calls that derive
keys, hash, seal or open. Another owner's token, a token that was never issued, one of an unknown epoch, and text that is no
token cost the same.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.crypto import canonical, keys, sealing
from quorumvault.crypto.tokens import format_token, is_token
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.storage import layout
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.trio import ACME, NODES, OTHER, Trio, tokens_of, trio

#: A token of ACME's first epoch that was never issued.
GHOST = format_token(1, b"\x5a" * 20)
MALFORMED = {
    "mistyped": GHOST[:-1] + ("0" if GHOST[-1] != "0" else "1"),
    "upper case": GHOST.upper(),
    "cut off": GHOST[:-1],
    "too long": f"{GHOST}0",
    "epoch 0": format_token(0, b"\x5a" * 20),
    "epoch 01": GHOST.replace("qv_1_", "qv_01_"),
    "epoch beyond all": format_token(2**32, b"\x5a" * 20),
    "text": "no token",
    "nothing": "",
    "long": "x" * 5_000,
    "not ASCII": "\u0661\u00e9\U0001f600" * 20,
}
BATCH = 100
#: More tokens than are parsed at once, and more than are asked for at once.
LARGE = 4_500


def _records(store: MemoryStore, wanted: Sequence[bytes]) -> int:
    """The number of record keys. Registers are left out: which writes share a sync decides whether a register is read again."""
    return sum(key.startswith(layout.RECORD) for key in wanted)


@contextmanager
def counted(three: Trio) -> Iterator[Counter[object]]:
    """Count the work until the block ends: by node and message with its number of keys, by store, and by crypto call."""
    work: Counter[object] = Counter()

    def counting(owner: Any, name: str, label: Callable[[tuple[Any, ...]], object], of: Callable[..., int]) -> Any:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            work[label(arguments)] += of(*arguments)
            return real(*arguments, **named)

        return mock.patch.object(owner, name, call)

    nodes = {id(store): node for node, store in three.stores.items()}
    before = {node: len(peer.asked) for node, peer in three.peers.items()}
    with (
        counting(MemoryStore, "get", lambda args: ("reads", nodes[id(args[0])]), _records),
        counting(keys, "derive", lambda _: "derive", lambda *_: 1),
        counting(keys.EpochKeys, "digests", lambda _: "hash", lambda _, canonicals: len(canonicals)),
        counting(sealing.Sealer, "seal", lambda _: "seal", lambda _, canonicals, digests: len(canonicals)),
        counting(sealing.Sealer, "open_all", lambda _: "open", lambda _, sealed, digests: len(sealed)),
        counting(sealing.Sealer, "open", lambda _: "open", lambda *_: 1),
    ):
        yield work
    for node, peer in three.peers.items():
        for request in peer.asked[before[node] :]:
            work["message", node, type(request).__name__, len(getattr(request, "digests", ()))] += 1


async def cost(three: Trio, operation: str, tokens: Sequence[str]) -> tuple[list[object], Counter[object]]:
    """The first node's answers to ACME about these tokens, and what they cost, including work after the answer."""
    vault = three.coordinators["n1"]
    await three.settled()
    vault._turns = itertools.cycle((1, 2))  # the peers take turns, so earlier reads would decide
    with counted(three) as work:
        if operation == "detokenize":
            answers: list[object] = [*await vault.detokenize(ACME, tokens)]
        else:
            answers = [*(await vault.retokenize(ACME, tokens)).tokens]
        await three.settled()  # always costs the same
    return answers, +work


async def kinds(three: Trio) -> dict[str, str]:
    """One token of each kind. The first is another owner's, who can resolve it."""
    (theirs,) = tokens_of((await three.coordinators["n2"].tokenize(OTHER, [canonical.from_str("theirs")])).tokens)
    assert await three.coordinators["n3"].detokenize(OTHER, [theirs]) == [canonical.from_str("theirs")]
    return {"another's": theirs, "never issued": GHOST, "unknown epoch": format_token(9, b"\x5a" * 20), **MALFORMED}


async def mine(three: Trio, count: int) -> dict[str, bytes]:
    values = [canonical.from_str(str(number)) for number in range(count)]
    return dict(zip(tokens_of((await three.coordinators["n3"].tokenize(ACME, values)).tokens), values, strict=True))


def test_what_is_called_malformed_here_is() -> None:
    assert is_token(GHOST)
    assert not any(map(is_token, MALFORMED.values()))


@pytest.mark.parametrize("operation", ["detokenize", "retokenize"])
async def test_alone(three: Trio, operation: str) -> None:
    """Proves: not found costs the same work."""
    costs = {}
    for kind, token in (await kinds(three)).items():
        answers, costs[kind] = await cost(three, operation, [token])
        assert answers == [Missing.NOT_FOUND]
    expected = costs["never issued"]
    assert costs == dict.fromkeys(costs, expected)
    assert sum(expected["message", node, "Get", 1] for node in NODES) == 2
    assert sorted(expected["reads", node] for node in NODES) == [0, 1, 1]
    assert not {"derive", "hash", "seal", "open"} & expected.keys()


@pytest.mark.parametrize("operation", ["detokenize", "retokenize"])
@pytest.mark.parametrize("place", [0, 37, BATCH - 1])
async def test_one_of_them_beside_tokens_that_are_found(three: Trio, operation: str, place: int) -> None:
    """This includes a malformed token among well-formed ones: it is read as they are, and spoils none of them."""
    own = await mine(three, BATCH)
    costs = {}
    for kind, token in (await kinds(three)).items():
        asked = list(own)
        asked[place] = token
        answers, costs[kind] = await cost(three, operation, asked)
        found = asked if operation == "retokenize" else [own.get(each) for each in asked]
        assert answers == [*found[:place], Missing.NOT_FOUND, *found[place + 1 :]]
    expected = costs["never issued"]
    assert costs == dict.fromkeys(costs, expected)
    assert sum(expected["message", node, "Get", BATCH] for node in NODES) == 2
    assert expected["open"] == BATCH - 1


@pytest.mark.parametrize("operation", ["detokenize", "retokenize"])
@pytest.mark.parametrize("size", [BATCH, LARGE])
async def test_whole_batches_of_one_kind(three: Trio, operation: str, size: int) -> None:
    """Proves: not found costs the same work."""
    values = [canonical.from_str(str(number)) for number in range(size)]
    theirs = tokens_of((await three.coordinators["n2"].tokenize(OTHER, values)).tokens)
    digests = [number.to_bytes(20, "big") for number in range(size)]
    batches = {
        "another's": theirs,
        "never issued": [format_token(1, digest) for digest in digests],
        "unknown epoch": [format_token(9, digest) for digest in digests],
        "several unknown epochs": [format_token(2 + number % 7, digest) for number, digest in enumerate(digests)],
        "malformed": [format_token(1, digest)[:-1] + "x" for digest in digests],
    }
    batches["of each"] = [batches[kind][number] for number, kind in zip(range(size), list(batches) * size, strict=False)]
    costs = {}
    for kind, tokens in batches.items():
        answers, costs[kind] = await cost(three, operation, tokens)
        assert answers == [Missing.NOT_FOUND] * size
    assert costs == dict.fromkeys(costs, costs["never issued"])


async def test_with_a_node_down_too(three: Trio) -> None:
    """Proves: not found costs the same work."""
    tokens = await kinds(three)
    three.peers["n3"].up = False
    costs = {}
    for kind, token in tokens.items():
        before = [len(peer.asked) for peer in three.peers.values()]
        assert await three.coordinators["n1"].detokenize(ACME, [token]) == [Missing.NOT_FOUND]
        costs[kind] = tuple(len(peer.asked) - count for peer, count in zip(three.peers.values(), before, strict=True))
    assert costs == dict.fromkeys(costs, (2, 1, 0))


@given(st.lists(st.text(), min_size=1, max_size=4, unique=True))
def test_any_text_costs_what_as_many_tokens_cost(texts: list[str]) -> None:
    ghosts = [format_token(1, number.to_bytes(20, "big")) for number in range(len(texts))]

    async def test() -> None:
        async with trio() as three:
            assert await cost(three, "detokenize", texts) == await cost(three, "detokenize", ghosts)

    asyncio.run(test())
