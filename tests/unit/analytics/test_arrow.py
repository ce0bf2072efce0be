"""The Arrow batch function against an in-memory vault that records what it is asked."""

import threading
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumvault import errors
from quorumvault.analytics.arrow import look_up
from quorumvault.client import Limits
from quorumvault.client.arrow import decode, encode
from quorumvault.crypto.tokens import format_token
from quorumvault.errors import ItemError
from tests.rigs.columns import stream

EPOCH = b"quorumvault.epoch"


def token(number: int, epoch: int = 1) -> str:
    return format_token(epoch, number.to_bytes(20, "big"))


def answer(columns: dict[str, Any], epoch: int | None = None) -> bytes:
    batch = pa.record_batch(columns)
    return stream(batch if epoch is None else batch.replace_schema_metadata({EPOCH: str(epoch)}))


class Vault:
    """Implements ArrowVault: the token of "7" has the number 7. Each request takes the next of ``epochs``; the last one stays."""

    def __init__(self, items: int = 4, body_bytes: int = 10_000, epochs: Iterable[int] = (1,)) -> None:
        self._limits = Limits(items=items, body_bytes=body_bytes, value_bytes=1000)
        self._epochs = list(epochs)
        self._lock = threading.Lock()
        self.asked: list[list[str]] = []
        self.statuses: dict[str, str] = {}
        self.before: Callable[[list[str]], None] = lambda texts: None
        self.halved = False

    def limits(self) -> Limits:
        return self._limits

    def exchange_arrow(self, operation: str, encode: Callable[[slice], bytes], count: int) -> list[tuple[slice, bytes]]:
        """Answer in halves if ``halved``, as a client splits requests while nodes are slow."""
        cuts = [0, count // 2, count] if self.halved and count > 1 else [0, count]
        runs = [slice(*pair) for pair in pairwise(cuts)]
        return [(run, self._answer(operation, encode(run))) for run in runs]

    def _answer(self, operation: str, body: bytes) -> bytes:
        (column,) = pa.ipc.open_stream(body).read_all().columns
        texts = column.to_pylist()
        with self._lock:
            self.asked.append(texts)
            epoch = self._epochs.pop(0) if len(self._epochs) > 1 else self._epochs[0]
        self.before(texts)
        if operation == "tokenize":
            return answer({"token": pa.array([token(int(text), epoch) for text in texts])}, epoch)
        words = [self.statuses.get(text, "ok") for text in texts]
        if operation == "retokenize":
            moved = [token(int(number_of(text)), epoch) for text in texts]
            return answer({"token": pa.array(moved), "status": pa.array(words)}, epoch)
        values = [number_of(text) if word == "ok" else None for text, word in zip(texts, words, strict=True)]
        return answer({"value": pa.array(values, pa.large_utf8()), "status": pa.array(words)})


def number_of(token: str) -> str:
    return str(int(token.split("_")[2][:40], 16))


def rows(batches: Iterable[Any], name: str = "result") -> list[Any]:
    return [item for batch in batches for item in batch.column(name).to_pylist()]


texts = st.one_of(st.none(), st.integers(0, 9).map(token), st.sampled_from(["", "plain", token(3).upper(), token(3)[:-1]]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(texts, max_size=9), max_size=6),
    st.integers(1, 12),
    st.integers(1, 4),
    st.sampled_from([pa.utf8(), pa.string_view()]),
)
def test_rows_keep_their_order_however_they_come(parts: list[list[Any]], window: int, items: int, kind: Any) -> None:
    vault = Vault(items=items)
    vault.statuses[token(5)] = "not_found"
    batches = list(look_up(vault, "detokenize", [pa.array(part, kind) for part in parts], window_rows=window))
    asked = [text for part in parts for text in part]
    known: dict[Any, tuple[Any, str]] = {token(number): (str(number), "ok") for number in range(10)}
    known |= {token(5): (None, "not_found"), None: (None, "null")}
    assert rows(batches, "text") == asked
    expected = [known.get(text, (None, "not_token")) for text in asked]
    assert list(zip(rows(batches), rows(batches, "status"), strict=True)) == expected
    sent = [text for request in vault.asked for text in request]
    assert all(1 <= len(request) <= items for request in vault.asked)
    assert set(sent) <= set(map(token, range(10)))


def test_each_distinct_text_of_a_window_is_sent_once_in_full_requests() -> None:
    vault = Vault(items=4)
    batches = list(look_up(vault, "tokenize", [pa.array([str(number % 6)]) for number in range(100)]))
    assert rows(batches) == [token(number % 6) for number in range(100)]
    assert sorted(map(sorted, vault.asked)) == [["0", "1", "2", "3"], ["4", "5"]]
    assert set(rows(batches, "status")) == {"ok"}


def test_requests_are_cut_by_their_bytes_too() -> None:
    vault = Vault(items=1000, body_bytes=2048 + 100)
    numbers = [f"{number:030}" for number in range(10)]
    assert rows(look_up(vault, "tokenize", [pa.array(numbers)])) == [token(number) for number in range(10)]
    assert {len(request) for request in vault.asked} == {2}


def test_several_requests_are_under_way_at_once() -> None:
    vault = Vault(items=1)
    together = threading.Barrier(3, timeout=20)
    vault.before = lambda texts: [together.wait()].clear()
    assert rows(look_up(vault, "tokenize", [pa.array(["1", "2", "3"])], in_flight=3)) == [token(1), token(2), token(3)]


def test_nothing_to_ask_asks_nothing() -> None:
    vault = Vault()
    assert list(look_up(vault, "detokenize", [])) == []
    batches = list(look_up(vault, "detokenize", [pa.array([], pa.utf8()), pa.array([None, "plain"])]))
    assert rows(batches, "status") == ["null", "not_token"]
    assert vault.asked == []


def test_what_a_rotation_overtakes_within_a_window_is_asked_for_again() -> None:
    vault = Vault(items=1, epochs=[1, 2, 2])
    assert rows(look_up(vault, "tokenize", [pa.array(["1", "2"])], in_flight=1)) == [token(1, 2), token(2, 2)]
    assert len(vault.asked) == 3
    texts = pa.array([token(1), None, "plain", token(2)])
    batches = list(look_up(Vault(items=1, epochs=[2, 3, 3]), "retokenize", [texts], in_flight=1))
    assert rows(batches) == [token(1, 3), None, None, token(2, 3)]
    assert rows(batches, "status") == ["ok", "null", "not_token", "ok"]


def test_runs_that_a_client_asks_for_in_parts_come_out_whole_and_of_one_epoch() -> None:
    vault = Vault(items=4, epochs=[1, 2, 2, 2, 1, 2])
    vault.halved = True
    numbers = [str(number) for number in range(8)]
    assert rows(look_up(vault, "tokenize", [pa.array(numbers)], in_flight=1)) == [token(number, 2) for number in range(8)]
    assert vault.asked == [["0", "1"], ["2", "3"], ["4", "5"], ["6", "7"], ["0"], ["1"], ["0"]]


def test_a_rotation_between_windows_is_told() -> None:
    batches = look_up(Vault(epochs=[1, 2]), "tokenize", [pa.array(["1", "2"])], window_rows=1)
    next(batches)
    with pytest.raises(errors.EpochMoved, match="begin again"):
        next(batches)
    with pytest.raises(errors.EpochMoved, match="each time"):
        list(look_up(Vault(items=1, epochs=range(1, 40)), "tokenize", [pa.array(["1", "2"])], in_flight=1))


@pytest.mark.parametrize(("status", "kind"), [("unavailable", errors.NoQuorum), ("collision", errors.TokenCollision)])
def test_what_could_not_be_told_is_never_a_null_and_what_is_no_text_is(status: str, kind: type[Exception]) -> None:
    vault = Vault()
    vault.statuses[token(2)] = status
    with pytest.raises(kind):
        list(look_up(vault, "detokenize", [pa.array([token(1), token(2)])]))
    vault.statuses[token(2)] = "not_text"
    batches = list(look_up(vault, "detokenize", [pa.array([token(2)])]))
    assert (rows(batches), rows(batches, "status")) == ([None], ["not_text"])


@pytest.mark.parametrize("window", [3, 4, 100])
def test_errors_name_the_rows_that_were_given(window: int) -> None:
    vault = Vault(items=2)

    def refuse(texts: list[str]) -> None:
        if "9" in texts:
            item = ItemError(texts.index("9"), "already-tokenized", "it is one")
            raise errors.AlreadyTokenized("item 0: it is one", errors=(item,))

    vault.before = refuse
    arrays = [pa.array(["1", None, "1", "2"]), pa.array(["3", "4", "3", "9"])]
    with pytest.raises(errors.AlreadyTokenized, match="item 7: it is one") as caught:
        list(look_up(vault, "tokenize", arrays, window_rows=window))
    assert [item.index for item in caught.value.errors] == [7]


def test_an_outage_is_the_error_that_it_is() -> None:
    vault = Vault(items=1)
    vault.before = mock.Mock(side_effect=errors.NoQuorum("n2: down; n3: down", outcome="unknown"))
    with pytest.raises(errors.NoQuorum) as caught:
        list(look_up(vault, "tokenize", [pa.array(["1", "2"])]))
    assert caught.value.outcome == "unknown"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", answer({"value": pa.array(["a", "b"])})[:-9]),
        *(
            answer({"value": texts})
            for texts in (pa.array(["a"]), pa.array([1, 2]), pa.array([[1], [2]]), pa.array(["a", "b"], pa.string_view()))
        ),
        answer({"value": pa.array(["a", "b"]).cast(pa.dictionary(pa.int8(), pa.utf8()))}),
        answer({"token": pa.array(["a", "b"])}),
    ],
)
def test_an_answer_that_is_none_or_of_another_type_is_not_followed(body: bytes) -> None:
    with pytest.raises(errors.UnexpectedAnswer):
        decode(body, "value", 2)


def words(*texts: str | None) -> Any:
    return pa.array(texts, pa.utf8())


@pytest.mark.parametrize(
    "columns",
    [
        *({"token": words(token(1), text)} for text in (None, "plain", token(1), token(2, 2), token(2).upper(), "\x1b[2J")),
        *({"token": words(token(1, 2), token(2, 2))}, {"token": words("", "")}),
        *({"token": words(token(1), text), "status": words("ok", "ok")} for text in (None, "plain", token(2, 2))),
        {"token": words(token(1), token(2)), "status": words("ok", "not_found")},
        {"token": words(token(1), None), "status": words("ok", None)},
    ],
)
def test_an_answer_with_other_than_tokens_of_its_epoch_is_not_followed(columns: dict[str, Any]) -> None:
    with pytest.raises(errors.UnexpectedAnswer) as caught:
        decode(answer(columns, 1), "token", 2)
    assert token(1) not in str(caught.value)


def test_tokens_of_its_epoch_are_taken_wherever_they_stand_in_their_array() -> None:
    tokens = words(*[token(number) for number in range(5)])
    assert decode(answer({"token": tokens[1:4]}, 1), "token", 3).texts.to_pylist() == tokens[1:4].to_pylist()
    moved = {"token": words(token(1), None, token(1)), "status": words("ok", "not_found", "ok")}
    assert decode(answer(moved, 1), "token", 3).texts.to_pylist() == [token(1), None, token(1)]
    none = {"token": words(None), "status": words("not_found")}
    assert decode(answer(none, 1), "token", 1).texts.to_pylist() == [None]
    assert decode(answer({"token": words()}, 1), "token", 0).texts.to_pylist() == []


@pytest.mark.parametrize(("text", "status"), [(None, "ok"), ("a", "not_found"), ("a", None)])
def test_a_value_without_its_status_is_not_followed(text: str | None, status: str | None) -> None:
    with pytest.raises(errors.UnexpectedAnswer):
        decode(answer({"value": words("b", text), "status": words("ok", status)}), "value", 2)


def test_a_stream_has_one_column() -> None:
    assert pa.ipc.open_stream(encode("token", pa.array(["a"]))).read_all().to_pydict() == {"token": ["a"]}
