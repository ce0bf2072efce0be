"""Bulk requests in Arrow: one column of text in, columns in the same order and type out. Errors are still problems in JSON."""

import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumvault.crypto.tokens import format_token
from quorumvault.server.http import body as bodies
from tests.rigs.columns import ARROW, GOOD, TEXT_TYPES, array, column, stream
from tests.rigs.vault import CLINIC, SMALL, FaultyVault, Rig

NEVER_ISSUED = format_token(1, bytes(20))


def read(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ARROW["Content-Type"]
    table = pa.ipc.open_stream(answer.content).read_all()
    table.validate(full=True)
    return table


def logical(kind: Any) -> Any:
    """The type of its text. A dictionary in an answer has entries of the same type, and 32-bit indices."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_values_to_tokens_and_back_in_the_same_type_and_order(rig: Rig, kind: Any) -> None:
    values = ["a", None, "", "é\U0001f600\u0000" * 9, "a", "007"]
    tokenized = read(rig.post("/tokenize", column("value", values, kind), ARROW))
    assert tokenized.schema.metadata == {b"quorumvault.epoch": b"1"}
    assert tokenized.column_names == ["token"]
    assert logical(tokenized.schema.field(0).type) == logical(kind)
    tokens = tokenized["token"].to_pylist()
    assert tokens == rig.tokens(values)

    found = read(rig.post("/detokenize", column("token", tokens, kind), ARROW))
    assert found.column_names == ["value", "status"]
    assert logical(found.schema.field(0).type) == logical(kind)
    assert found["value"].to_pylist() == values
    assert found["status"].to_pylist() == ["ok", "null", "ok", "ok", "ok", "ok"]


def test_each_distinct_text_is_asked_about_once(rig: Rig) -> None:
    rig.post("/tokenize", column("value", ["a", "b", "a", None, "b"]), ARROW)
    assert rig.vault.asked == [("tokenize", [b"sa", b"sb"])]
    assert (rig.events.written[-1].items, rig.events.written[-1].epoch, rig.events.written[-1].outcome) == (4, 1, "ok")


def test_entries_of_a_dictionary_that_no_row_has_are_not_asked_about(rig: Rig) -> None:
    entries = pa.array(["unused", "a", None, "a"])
    values = pa.DictionaryArray.from_arrays(pa.array([3, 2, 1, None], pa.int32()), entries)
    table = read(rig.post("/tokenize", stream(pa.record_batch({"value": values})), ARROW))
    assert table["token"].to_pylist() == rig.tokens(["a", None, "a", None])
    assert rig.vault.asked[0] == ("tokenize", [b"sa"])


def test_every_batch_may_have_its_own_dictionary(rig: Rig) -> None:
    kind = pa.dictionary(pa.int8(), pa.utf8())
    batches = [pa.record_batch({"value": array(texts, kind)}) for texts in (["b", "a"], ["c"], ["a", None, "d"])]
    table = read(rig.post("/tokenize", stream(*batches), ARROW))
    assert table["token"].to_pylist() == rig.tokens(["b", "a", "c", "a", None, "d"])


@pytest.mark.parametrize("texts", [[], [None], [None, None]])
@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_nothing_to_ask(rig: Rig, texts: Any, kind: Any) -> None:
    assert read(rig.post("/tokenize", column("value", texts, kind), ARROW))["token"].to_pylist() == texts
    found = read(rig.post("/detokenize", column("token", texts, kind), ARROW))
    assert (found["value"].to_pylist(), found["status"].to_pylist()) == (texts, ["null"] * len(texts))
    schema = pa.schema([("token", kind)])
    with pa.BufferOutputStream() as sink:
        pa.ipc.new_stream(sink, schema).close()
        assert read(rig.post("/detokenize", bytes(sink.getvalue()), ARROW)).num_rows == 0


def test_why_there_is_no_value(rig: Rig) -> None:
    a, five, unsure, met = rig.tokens(["a", 5, "u", "m"])
    (theirs,) = rig.tokens(["a"], key="lab")
    rig.vault.unavailable, rig.vault.collided = {unsure}, {met}
    asked = [a, None, NEVER_ISSUED, five, unsure, met, theirs, "hello", ""]
    found = read(rig.post("/detokenize", column("token", asked), ARROW))
    words = ["ok", "null", "not_found", "not_text", "unavailable", "collision", "not_found", "not_found", "not_found"]
    assert found["status"].to_pylist() == words
    assert found["value"].to_pylist() == ["a"] + [None] * 8
    event = rig.events.written[-1]
    assert (event.items, event.found, event.not_found) == (8, 2, 4)


def test_retokenize_moves_text_to_the_active_epoch(rig: Rig) -> None:
    (old,) = rig.tokens(["a"])
    rig.rotate()
    (new,) = rig.tokens(["a"])
    moved = read(rig.post("/retokenize", column("token", [old, None, new, NEVER_ISSUED]), ARROW))
    assert moved.schema.metadata == {b"quorumvault.epoch": b"2"}
    assert moved["token"].to_pylist() == [new, None, new, None]
    assert moved["status"].to_pylist() == ["ok", "null", "ok", "not_found"]


def test_a_bad_value_fails_the_request_and_is_listed_row_by_row() -> None:
    rig = Rig(limits=SMALL)
    token = format_token(1, bytes(20))
    answer = rig.post("/tokenize", column("value", ["a", token, None, "x" * 101, token]), ARROW)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["code"] == "already-tokenized"
    listed = [(error["index"], error["code"]) for error in problem["errors"]]
    assert listed == [(1, "already-tokenized"), (3, "value-too-large"), (4, "already-tokenized")]
    assert rig.vault.asked == []
    assert token not in answer.text


def test_a_collision_fails_the_request() -> None:
    rig = Rig(vault=FaultyVault(digest_bits=8))
    first, second = rig.vault.colliding_values(CLINIC)
    answer = rig.post("/tokenize", column("value", ["a", first, second]), ARROW)
    assert (answer.status_code, answer.json()["code"]) == (409, "token-collision")
    assert [error["index"] for error in answer.json()["errors"]] == [2]


def test_what_would_be_larger_than_it_came_is_refused(rig: Rig) -> None:
    for codec in ("lz4", "zstd"):
        options = pa.ipc.IpcWriteOptions(compression=codec)
        for kind in (pa.utf8(), TEXT_TYPES[2]):
            batch = pa.record_batch({"token": array(["x" * 1000] * 9, kind)})
            answer = rig.post("/detokenize", stream(batch, options=options), ARROW)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), kind
            assert "compression" in answer.json()["detail"]


@pytest.mark.slow
def test_any_flipped_byte_is_an_answer_and_never_a_fault(rig: Rig) -> None:
    for body in (column("token", ["a", None, "bc"], kind) for kind in TEXT_TYPES):
        for at in range(0, len(body), 7):
            answer = rig.post("/detokenize", body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :], ARROW)
            assert answer.status_code in (200, 400, 413, 422), at


_TEXT = st.one_of(st.none(), st.sampled_from(["a", "", "007", "é\U0001f600", "x" * 70]), st.text(max_size=20))


@st.composite
def columns(draw: st.DrawFn) -> list[Any]:
    """Chunks of one column: slices of one type. A dictionary may have entries that repeat, are null, or are in no row."""
    chunks, kind = [], draw(st.sampled_from(TEXT_TYPES))
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.lists(_TEXT, max_size=12))
        if pa.types.is_dictionary(kind):
            places = [None if draw(st.integers(0, 3)) == 0 else draw(st.integers(0, len(rows) - 1)) for _ in rows]
            chunk = pa.DictionaryArray.from_arrays(pa.array(places, kind.index_type), pa.array(rows, kind.value_type))
        else:
            chunk = pa.array(rows, kind)
        start = draw(st.integers(0, len(chunk)))
        chunks.append(chunk.slice(start, draw(st.integers(0, len(chunk) - start))))
    return chunks


@pytest.mark.slow
@given(columns(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_column_of_any_shape_is_answered_like_the_same_rows_in_json(chunks: list[Any], deltas: bool) -> None:
    rig = Rig()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
    values = [text for chunk in chunks for text in chunk.to_pylist()]
    batches = [pa.record_batch({"value": chunk}) for chunk in chunks]
    tokenized = read(rig.post("/tokenize", stream(*batches, options=options), ARROW))
    assert tokenized["token"].to_pylist() == rig.post("/tokenize", {"values": values}).json()["tokens"]
    tokens = tokenized["token"].chunks[0]
    found = read(rig.post("/detokenize", stream(pa.record_batch({"token": tokens})), ARROW))
    assert found["value"].to_pylist() == values


def test_the_media_type_decides_however_it_is_spelled(rig: Rig) -> None:
    assert rig.post("/detokenize", GOOD, {"Content-Type": "Application/Vnd.Apache.Arrow.Stream"}).status_code == 200


def test_a_node_without_pyarrow_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "arrow_installed", lambda: False)
    answer = rig.post("/detokenize", GOOD, ARROW)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
    assert "pyarrow" in answer.json()["detail"]


def test_pyarrow_is_loaded_when_it_is_needed() -> None:
    loaded = "import sys, quorumvault.server.http.routes; print({'pyarrow', 'duckdb'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True).stdout == b"set()\n"
