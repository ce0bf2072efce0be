"""The SDK takes the texts, numbers and nulls of numpy, pandas and pyarrow for what they are."""

import datetime
import enum
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from quorumvault.client import batches
from quorumvault.client.batches import encode_all, encode_record, encode_token, encode_value
from quorumvault.errors import Invalid, NotTokenizable

NULLS: dict[str, Any] = {
    "None": None,
    "NaN": float("nan"),
    "NaN of float32": np.float32("nan"),
    "NaN of float64": np.float64("nan"),
    "NaN of Decimal": Decimal("NaN"),
    "NA": pd.NA,
    "NaT": pd.NaT,
    "NaT of datetime64": np.datetime64("NaT", "s"),
    "NaT of timedelta64": np.timedelta64("NaT", "s"),
    "null of Arrow": pa.scalar(None, pa.utf8()),
    "NaN of Arrow": pa.scalar(float("nan")),
}


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize("kind", NULLS)
def test_every_kind_of_null_is_null(kind: str) -> None:
    value = NULLS[kind]
    assert encode_value(value) is None
    assert encode_token(value) is None
    assert encode_record({"a": value, "b": [{"c": value}]}) == b'{"a":null,"b":[{"c":null}]}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.str_("42"), b'"42"'),
        (Colour.RED, b'"red"'),
        (pa.scalar("42"), b'"42"'),
        (np.int64(42), b"42"),
        (np.uint64(2**64 - 1), b"18446744073709551615"),
        (np.int8(-1), b"-1"),
        (pa.scalar(42), b"42"),
        (np.bool_(True), b"true"),
        (np.False_, b"false"),
        (pa.scalar(True), b"true"),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_scalars_are_what_they_hold(value: Any, text: bytes) -> None:
    assert encode_value(value) == text
    assert encode_record({"a": value}) == b'{"a":%b}' % text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.5, "a number with a fraction has no one spelling"),
        (42.0, "a number with a fraction"),
        (np.float32(1.5), "a number with a fraction"),
        (np.datetime64("2024-01-02"), "a datetime64 cannot be tokenized: send a string"),
        (np.timedelta64(1, "s"), "a timedelta64 cannot be tokenized"),
        (pd.Timestamp("2024-01-02"), "a Timestamp cannot be tokenized"),
        (datetime.date(2024, 1, 2), "a date cannot be tokenized"),
        (Decimal("1.10"), "a Decimal cannot be tokenized"),
        (b"a", "a bytes cannot be tokenized"),
        (np.bytes_(b"a"), "a bytes_ cannot be tokenized"),
        (np.array("a"), "a ndarray cannot be tokenized"),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_others_are_refused_by_their_kind(value: Any, words: str) -> None:
    with pytest.raises(NotTokenizable, match=f"item 1: {words}"):
        encode_all([None, value], encode_value, NotTokenizable)


@pytest.mark.parametrize(
    "items",
    [pd.Series(["a", None]), pl.Series(["a", None]), np.array(["a", None]), pa.array(["a", None])],
    ids=lambda it: str(type(it)),
)
def test_a_series_or_an_array_is_a_list_of_its_items(items: Any) -> None:
    assert encode_all(items, encode_value, NotTokenizable) == [b'"a"', None]


def test_a_frame_is_no_list_of_its_columns_names() -> None:
    functions: list[Callable[..., Any]] = [batches.encode_value, batches.encode_token, batches.encode_record]
    for frame in (pd.DataFrame({"a": [1]}), pl.DataFrame({"a": [1]}), pa.table({"a": [1]}), {"a": 1}):
        for encode in functions:
            with pytest.raises(TypeError, match=r"of a frame, quorumvault\.tokenize\(frame, columns=\.\.\.\) takes columns"):
                encode_all(frame, encode, Invalid)  # type: ignore[arg-type]


def test_records_of_pandas_are_records() -> None:
    frame = pd.DataFrame({"id": [1, 2], "zip": ["02139", None], "cost": [1.5, None]})
    assert [encode_record(record) for record in frame.to_dict("records")] == [
        b'{"id":1,"zip":"02139","cost":1.5}',
        b'{"id":2,"zip":null,"cost":null}',
    ]
    for value in (pd.Timestamp("2024-01-02"), float("inf"), b"a", {1}):
        with pytest.raises(Invalid, match="a record is a dictionary of strings"):
            encode_all([{"a": value}], encode_record, Invalid)
