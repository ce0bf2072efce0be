"""Frames of every kind against the API over an in-memory vault: only the named columns change."""

import datetime
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import duckdb
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import quorumvault as qv
from quorumvault.analytics import pyarrow as readers
from quorumvault.analytics.frames import Replaced
from quorumvault.analytics.pandas import PandasFrame
from quorumvault.analytics.polars import PolarsFrame, PolarsSeries
from tests.rigs import tables
from tests.rigs.tables import Desk
from tests.rigs.vault import key_text

TEXTS = ["Ann", None, "", "é\U0001f600", "Ann", "00420"]
COSTS = [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with tables.desk() as made:
        yield made


@pytest.fixture
def vault(desk: Desk) -> qv.Client:
    return desk.client


class Capsules:
    """A table of an unknown library; all that is known is that it exports Arrow."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def table(kind: Any = None) -> Any:
    """A table of two chunks, with metadata on the table and on a field."""
    kind = kind or pa.utf8()
    runs = pa.types.is_run_end_encoded(kind)
    name = pc.run_end_encode(pa.array(TEXTS), kind.run_end_type) if runs else pa.array(TEXTS, kind)
    fields = [pa.field("name", name.type, metadata={"note": "who"}), pa.field("cost", pa.float32())]
    made = pa.table([name, pa.array(COSTS, pa.float32())], schema=pa.schema(fields, {"made by": "us"}))
    return pa.concat_tables([made.slice(0, 4), made.slice(4)])


def pandas_frame(dtype: Any) -> Any:
    """A frame with a repeated index label, and with attributes."""
    made = pd.DataFrame({"name": pd.Series(TEXTS, dtype=dtype), "cost": np.array(COSTS, "float32")})
    made.index = pd.Index(["x", "y", "x", "z", "u", "v"], name="label")
    made.attrs = {"made by": "us"}
    return made


def polars_frame(dtype: Any) -> pl.DataFrame:
    return pl.DataFrame({"name": pl.Series(TEXTS, dtype=dtype), "cost": pl.Series(COSTS, dtype=pl.Float32)})


PANDAS: list[Any] = [
    *("object", "category", "string[python]", "string[pyarrow]"),
    *(pd.ArrowDtype(pa.string()), pd.ArrowDtype(pa.large_string()), pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
]
KINDS: dict[str, Callable[[], Any]] = {
    **{f"pandas {kind}": lambda kind=kind: pandas_frame(kind) for kind in PANDAS},  # type: ignore[misc]
    "pandas's own text": lambda: pandas_frame(None),
    "Polars String": lambda: polars_frame(pl.String),
    "Polars Categorical": lambda: polars_frame(pl.Categorical),
    "Polars Categories": lambda: polars_frame(pl.Categorical(pl.Categories("names"))),
    "LazyFrame": lambda: polars_frame(pl.String).lazy(),
    "Table": table,
    "Table of large_utf8": lambda: table(pa.large_utf8()),
    "Table of views": lambda: table(pa.string_view()),
    "Table of runs": lambda: table(pa.run_end_encoded(pa.int16(), pa.utf8())),
    "Table of dictionaries": lambda: table(pa.dictionary(pa.int32(), pa.utf8())),
    "RecordBatch": lambda: table().to_batches()[0],
    "RecordBatchReader": lambda: table().to_reader(),
    "narwhals of Polars": lambda: nw.from_native(polars_frame(pl.String)),
    "narwhals of pandas": lambda: nw.from_native(pandas_frame("object")),
}


def rows(frame: Any) -> Any:
    """The columns of a frame of any kind in memory, with None for null."""
    if isinstance(frame, nw.DataFrame):
        frame = frame.to_native()
    if isinstance(frame, pd.DataFrame):
        return {name: [None if pd.isna(cell) else cell for cell in frame[name]] for name in frame}
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame.to_dict(as_series=False)
    return (frame.read_all() if isinstance(frame, pa.RecordBatchReader) else frame).to_pydict()


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_back_is_of_the_kind_that_went_in(kind: str, vault: qv.Client) -> None:
    frame = KINDS[kind]()
    given = rows(KINDS[kind]())
    tokenized = qv.tokenize(frame, columns="name", client=vault)
    assert type(tokenized) is type(frame)
    back = qv.detokenize(tokenized, ["name"], client=vault)
    assert type(back) is type(frame)
    if isinstance(tokenized, pa.RecordBatchReader):
        tokenized = qv.tokenize(KINDS[kind](), columns="name", client=vault)
    assert rows(tokenized) == {"name": vault.tokenize(given["name"]), "cost": given["cost"]}
    told = rows(back)
    assert list(told) == ["name", "name_status", "cost"]
    assert told.pop("name_status") == ["null" if name is None else "ok" for name in given["name"]]
    assert told == given


@pytest.mark.parametrize("kind", KINDS)
def test_types_index_and_metadata_stay(kind: str, vault: qv.Client) -> None:
    frame = KINDS[kind]()
    tokenized = qv.tokenize(frame, "name", client=vault)
    if isinstance(frame, nw.DataFrame):
        frame, tokenized = frame.to_native(), tokenized.to_native()
    if isinstance(frame, pd.DataFrame):
        assert tokenized.index.equals(frame.index)
        assert (tokenized.attrs, tokenized.index.name) == (frame.attrs, "label")
        assert list(tokenized.dtypes[1:]) == list(frame.dtypes[1:])
        if frame["name"].dtype != "category":
            assert tokenized["name"].dtype == frame["name"].dtype
        tokenized.loc["z", "cost"] = 9.5
        assert list(frame["cost"]) == COSTS
    elif isinstance(frame, pl.DataFrame | pl.LazyFrame):
        assert tokenized.collect_schema() == frame.collect_schema()
    else:
        assert tokenized.schema.equals(frame.schema, check_metadata=True)


def test_a_series_and_an_array_are_one_column(vault: qv.Client) -> None:
    tokens = vault.tokenize(TEXTS)
    arrow = pa.array(TEXTS)
    series: list[tuple[Any, Callable[[Any], list[Any]]]] = [
        (pandas_frame("string[pyarrow]")["name"], lambda found: [None if pd.isna(cell) else cell for cell in found]),
        (pl.Series("name", TEXTS), list),
        (arrow, lambda found: found.to_pylist()),
        (pa.chunked_array([arrow, arrow.slice(0, 0)]), lambda found: found.to_pylist()),
        (arrow.dictionary_encode(), lambda found: found.to_pylist()),
        (nw.from_native(pl.Series("name", TEXTS), series_only=True), list),
        (TEXTS, list),
    ]
    for given, listed in series:
        tokenized = qv.tokenize(given, client=vault)
        assert (type(tokenized), listed(tokenized)) == (type(given), tokens)
        back = qv.detokenize(tokenized, client=vault)
        assert (type(back), listed(back)) == (type(given), TEXTS)
    assert qv.tokenize(series[0][0], client=vault).index.equals(series[0][0].index)
    with pytest.raises(qv.ColumnError, match="an array is one column: name none"):
        qv.tokenize(arrow, columns="name", client=vault)
    (number,) = vault.tokenize([42])
    with pytest.raises(qv.NotText, match=r"use Client\.detokenize"):
        qv.detokenize(pa.array([number]), client=vault)
    numbers: Any = [number]
    assert qv.detokenize(numbers, client=vault) == [42]


def test_others_with_capsules_become_pyarrow_s(vault: qv.Client) -> None:
    rows_of: Any = Capsules(table())
    column_of: Any = Capsules(table().column("name"))
    found = qv.tokenize(rows_of, columns="name", client=vault)
    assert isinstance(found, pa.Table)
    assert rows(found)["name"] == vault.tokenize(TEXTS)
    assert qv.tokenize(column_of, client=vault).to_pylist() == vault.tokenize(TEXTS)


def test_what_narwhals_knows_comes_back_as_it_was(vault: qv.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of Modin and cuDF take this path, since they have no module here; pandas and Polars stand in for them."""
    for package in ("pandas", "polars"):
        monkeypatch.setattr(f"quorumvault.analytics.tables._of_{package}", lambda data: None)
    frames: list[Any] = [polars_frame(pl.String), pandas_frame("object")]
    for frame in frames:
        given = rows(frame)
        tokenized = qv.tokenize(frame, columns="name", client=vault)
        back: Any = qv.detokenize(tokenized, columns="name", client=vault)
        assert (type(tokenized), type(back)) == (type(frame), type(frame))
        assert rows(tokenized) == given | {"name": vault.tokenize(TEXTS)}
        assert list(rows(back)) == ["name", "name_status", "cost"]
        assert rows(back) == given | {"name_status": ["null" if text is None else "ok" for text in TEXTS]}
        if isinstance(back, pd.DataFrame):
            assert back.index.equals(frame.index)
        series = qv.tokenize(frame["name"], client=vault)
        assert (type(series), next(iter(series))) == (type(frame["name"]), vault.tokenize(TEXTS)[0])


@pytest.mark.parametrize("more", [{"columns": "name"}, {"cast": True}, {"cast": "name"}])
def test_of_a_list_nothing_can_be_named_or_cast(more: dict[str, Any], vault: qv.Client) -> None:
    with pytest.raises(TypeError, match=r"a list has no columns .* str\(number\)"):
        qv.tokenize([42], client=vault, **more)


HOLDERS = [
    PandasFrame(pandas_frame("object")),
    PolarsFrame(polars_frame(pl.String)),
    PolarsSeries(pl.Series(TEXTS)),
    readers.ArrowTable(pa.table({"name": TEXTS})),
    Replaced("name", pa.chunked_array([TEXTS]), pa.array(TEXTS), None),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: type(holder).__name__)
def test_no_repr_of_what_holds_values_shows_one(holder: object) -> None:
    assert not [text for text in filter(None, TEXTS) if text in repr(holder)]


def test_nulls_of_each_kind_are_null_and_stay_what_they_are(vault: qv.Client) -> None:
    nulls = [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT", "s"), Decimal("NaN")]
    frame = pd.DataFrame({"name": pd.Series([*nulls, "nan", "None"], dtype=object)})
    tokenized = qv.tokenize(frame, "name", client=vault)["name"].tolist()
    assert [str(cell) for cell in tokenized[:7]] == [str(cell) for cell in nulls]
    assert tokenized[7:] == vault.tokenize(["nan", "None"])
    back = qv.detokenize(pd.DataFrame({"name": pd.Series(tokenized, dtype=object)}), "name", client=vault)
    assert back["name_status"].tolist() == ["null"] * 7 + ["ok"] * 2


@pytest.mark.parametrize(
    "column",
    [pd.Series([np.nan] * 2), pd.Series([None] * 2, dtype=object), pd.Series(pd.NaT, index=[0, 1]), pd.Series([pd.NA] * 2)],
    ids=["float", "object", "NaT", "NA"],
)
def test_a_column_of_nothing_stays_as_it_is(column: Any, vault: qv.Client) -> None:
    tokenized = qv.tokenize(column.to_frame("name"), "name", client=vault)
    assert tokenized["name"].dtype == column.dtype
    assert tokenized["name"].isna().all()
    assert qv.tokenize(pl.DataFrame({"name": [None, None]}), "name", client=vault).schema == {"name": pl.Null}
    assert qv.tokenize(pa.nulls(2), client=vault).type == pa.null()


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_frame_works(kind: str, vault: qv.Client) -> None:
    frame = KINDS[kind]()
    if isinstance(frame, pa.RecordBatchReader):
        frame = table().slice(0, 0).to_reader()
    else:
        frame = frame.head(0) if hasattr(frame, "head") else frame.slice(0, 0)
    back = qv.detokenize(qv.tokenize(frame, columns="name", client=vault), columns="name", client=vault)
    assert rows(back) == {"name": [], "name_status": [], "cost": []}


def test_numbers_take_a_cast_and_have_the_tokens_of_their_text(vault: qv.Client) -> None:
    numbers: list[tuple[Any, Any]] = [
        (pd.DataFrame({"id": [42, -7]}), ["42", "-7"]),
        (pd.DataFrame({"id": pd.array([42, None], dtype="Int64")}), ["42", None]),
        (pd.DataFrame({"id": pd.array([42, None], dtype=pd.ArrowDtype(pa.int64()))}), ["42", None]),
        (pd.DataFrame({"id": [True, False]}), ["true", "false"]),
        (
            pd.DataFrame({"id": pd.Series(["007", 42, np.int64(7), np.bool_(True), np.str_("x"), 2**70, None], dtype=object)}),
            None,
        ),
        (pd.DataFrame({"id": [datetime.date(2024, 1, 2), None]}), ["2024-01-02", None]),
        (pd.DataFrame({"id": pd.to_datetime(["2024-01-02", None])}), ["2024-01-02 00:00:00", None]),
        (pd.DataFrame({"id": pd.Categorical([42, 7, None])}), ["42", "7", None]),
        (pl.DataFrame({"id": [42, None]}), ["42", None]),
        (pl.LazyFrame({"id": [Decimal("1.10")]}), ["1.10"]),
        (pa.table({"id": pa.array([42, None], pa.uint8())}), ["42", None]),
    ]
    for frame, texts in numbers:
        with pytest.raises(qv.ColumnError, match=r'column id .*add cast="id"'):
            qv.tokenize(frame, "id", client=vault)
        expected = vault.tokenize(texts or ["007", "42", "7", "true", "x", str(2**70), None])
        for cast in ("id", True):
            assert rows(qv.tokenize(frame, "id", cast=cast, client=vault))["id"] == expected
    with pytest.raises(qv.ColumnError, match="cast names cost"):
        qv.tokenize(table(), "name", cast="cost", client=vault)


def test_what_is_no_text_is_refused_with_its_place(vault: qv.Client) -> None:
    def objects(*cells: Any) -> Any:
        return pd.DataFrame({"id": pd.Series(cells, dtype=object)})

    for frame, words in (
        (pd.DataFrame({"id": [1, None]}), r"column id is float64.*dtype=\{\"id\": \"string\"\}"),
        (objects("a", 1.5), "a value of type float in row 1"),
        (objects("a", b"b"), "a value of type bytes in row 1"),
        (objects("a", np.datetime64("2024-01-02")), "a value of type datetime64 in row 1"),
        (objects("a", datetime.date(2024, 1, 2)), "a value of type date in row 1"),
        (objects(datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 5, 3)), "column id has another type .* in row 1 than"),
        (objects(Decimal("2.5"), None, Decimal("1.10")), "a number of other decimal places, in row 2 than"),
        (objects(["a"]), r"column id is VARCHAR\[\]"),
        (objects("a", "\ud800"), "a lone surrogate in row 1"),
        (objects(complex(1)), "a value of type complex in row 0"),
        (pd.DataFrame({"id": pd.period_range("2024-01", periods=1, freq="M")}), r"column id is pandas\.period"),
        (pd.DataFrame({"id": pd.to_datetime(["2024-01-02"], utc=True)}), "column id is TIMESTAMP( WITH TIME ZONE|TZ_NS)"),
        (pl.DataFrame({"id": [1.5]}), "column id is DOUBLE"),
        (pl.DataFrame({"id": pl.Series([object()], dtype=pl.Object)}), "column id is"),
        (pl.DataFrame({"id": pl.Series([2**100], dtype=pl.Int128)}), "column id is Int128: only text"),
        (pa.table({"id": pa.array([1.5], pa.float16())}), "column id is halffloat"),
        (pa.table({"id": pa.array([b"a"])}), "column id is BLOB"),
    ):
        with pytest.raises(qv.ColumnError, match=words):
            qv.tokenize(frame, "id", cast="id", client=vault)
    with pytest.raises(qv.ColumnError, match="column id is BIGINT: tokens are VARCHAR"):
        qv.detokenize(pd.DataFrame({"id": [1]}), "id", client=vault)


def test_columns_that_will_not_do(desk: Desk) -> None:
    desk.asked()
    twice = pd.DataFrame([["a", "b"]], columns=["x", "x"])
    for call, words in (
        (lambda: qv.tokenize(twice, "x", client=desk.client), "two columns of the frame have one name"),
        (lambda: qv.tokenize(pa.table([["a"], ["b"]], ["x", "x"]), "x", client=desk.client), "two columns"),
        (lambda: qv.tokenize(table(), "ssn", client=desk.client), "the frame has no column ssn; it has name, cost"),
        (lambda: qv.tokenize(table().to_reader(), "ssn", client=desk.client), "the frame has no column ssn"),
        (lambda: qv.tokenize(pl.LazyFrame({"a": [1]}), "ssn", client=desk.client), "the frame has no column ssn"),
        (lambda: qv.tokenize(table(), client=desk.client), r"name the columns, such as columns=\['name'\]"),
        (lambda: qv.tokenize(table(), [], client=desk.client), "name one column or more"),
        (
            lambda: qv.detokenize(pl.DataFrame({"a": ["x"], "a_status": [1]}), "a", client=desk.client),
            "has a column a_status, which is where",
        ),
    ):
        with pytest.raises(qv.ColumnError, match=words):
            call()
    with pytest.raises(TypeError, match="goes with a query or a relation, and columns"):
        qv.tokenize(desk.con, columns="a", client=desk.client)
    for given in (5, {"a": ["x"]}, np.array([["a"]])):
        with pytest.raises(TypeError, match=r"is no frame that is known here: give a frame of pandas"):
            qv.tokenize(given, "a", client=desk.client)
    with pytest.raises(TypeError, match="only columns are to be named"):
        qv.tokenize(table(), "from x", columns="name", client=desk.client)
    with pytest.raises(ValueError, match='missing is "null" or "error"'):
        qv.detokenize(table(), "name", missing="raise", client=desk.client)  # type: ignore[call-overload]
    assert desk.asked() == []


def test_names_that_are_no_text(vault: qv.Client) -> None:
    numbered = qv.detokenize(qv.tokenize(pd.DataFrame([["a", "b"]]), columns=1, client=vault), columns=[1], client=vault)
    assert rows(numbered) == {0: ["a"], 1: ["b"], "1_status": ["ok"]}
    nested = pd.DataFrame([["a", "b"]], columns=pd.MultiIndex.from_tuples([("p", "q"), ("p", "r")]))
    found = qv.detokenize(qv.tokenize(nested, [("p", "q")], client=vault), [("p", "q")], client=vault)
    assert rows(found) == {("p", "q"): ["a"], ("p", "q_status"): ["ok"], ("p", "r"): ["b"]}


def test_errors_name_rows_and_columns_and_hold_no_value(desk: Desk) -> None:
    (token,) = desk.client.tokenize(["a"])
    frames: list[Any] = [
        pd.DataFrame({"a": ["x", "y"], "b": ["z", token]}),
        pl.DataFrame({"a": ["x", "y"], "b": ["z", token]}),
        pa.table({"a": ["x", "y"], "b": ["z", token]}),
    ]
    for frame in frames:
        with pytest.raises(qv.AlreadyTokenized, match=r"^row 1, column b: it already is a token") as caught:
            qv.tokenize(frame, ["a", "b"], client=desk.client)
        assert str(token) not in str(caught.value)
        with pytest.raises(qv.TokensNotFound, match=r"1 of 2 tokens have no value here, column b, rows 0$"):
            qv.detokenize(frame, "b", missing="error", client=desk.client)
    with pytest.raises(qv.AlreadyTokenized, match="row 1, column b"):
        qv.tokenize(pl.LazyFrame({"b": ["z", token]}), "b", client=desk.client).collect()


def test_each_distinct_text_is_asked_about_once(desk: Desk) -> None:
    many = pd.DataFrame({"a": ["p", "q"] * 500, "b": ["q", "r"] * 500})
    desk.asked()
    tokenized = qv.tokenize(many, ["a", "b"], client=desk.client)
    assert sorted(desk.asked()) == [b"sp", b"sq", b"sr"]
    assert tokenized["a"].tolist()[1] == tokenized["b"].tolist()[0]


def test_no_categories_tell_of_values(vault: qv.Client) -> None:
    """Unused categories are values too, and the order of categories is an order of values."""
    given = pd.Categorical(["b", "a", None], categories=["c", "b", "a"], ordered=True)
    tokens = vault.tokenize(["b", "a", None])
    found = qv.tokenize(pd.DataFrame({"name": given}), "name", client=vault)["name"]
    assert rows(found.to_frame())["name"] == tokens
    assert list(found.cat.categories) == sorted(token for token in tokens if token is not None)
    assert not found.cat.ordered
    nothing = qv.tokenize(pd.Series(pd.Categorical([None], categories=["a"])), client=vault)
    assert (list(nothing.cat.categories), nothing.isna().all()) == ([], True)
    named = pl.Series("name", ["a"], dtype=pl.Categorical(pl.Categories("of a test")))
    assert qv.tokenize(named, client=vault).to_arrow().dictionary.to_pylist() == [tokens[1]]
    enum: Any = qv.tokenize(pl.Series("name", ["a"], dtype=pl.Enum(["a", "b"])), client=vault)
    assert (enum.dtype, enum.to_list()) == (pl.Categorical, [tokens[1]])
    arrow = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array(["a", "unused"]))
    found = qv.tokenize(arrow, client=vault)
    assert (found.type, found.dictionary.to_pylist()) == (arrow.type, [tokens[1]])


def test_values_beside_their_column_do_not_come_along(vault: qv.Client) -> None:
    frame = pd.DataFrame({"ssn": ["999-17-5017"]})
    frame.attrs = {"first": {"patient": "999-17-5017"}, "rows": 1, "by": {("999-17-5017", 1): 2}}
    with pytest.warns(UserWarning, match="left out of attrs.*: by, first$"):
        assert qv.tokenize(frame, "ssn", client=vault).attrs == {"rows": 1}
    said = pa.table({"ssn": ["999-17-5017"]}).replace_schema_metadata({"first": "999-17-5017", "rows": "1"})
    assert qv.tokenize(said, "ssn", client=vault).schema.metadata == {b"rows": b"1"}
    with pytest.raises(qv.ColumnError, match="metadata of the reader's schema has values of a column"):
        qv.tokenize(said.to_reader(), "ssn", client=vault).read_all()
    with pytest.raises(qv.ColumnError, match="the index has values of a column to tokenize"):
        qv.tokenize(frame.set_index("ssn", drop=False), "ssn", client=vault)


def test_a_lazy_frame_is_looked_up_when_it_is_evaluated_and_not_before(desk: Desk) -> None:
    desk.asked()
    tokenized = qv.tokenize(polars_frame(pl.String).lazy(), "name", client=desk.client)
    assert desk.asked() == []
    (token,) = desk.client.tokenize(["Ann"])
    assert tokenized.filter(pl.col("name") == token).select("cost").collect()["cost"].to_list() == [1.5, 5.5]
    desk.rig.vault.failure = qv.NoQuorum("n2: down; n3: down")
    hurried = qv.ClientPolicy(request=0.1)
    try:
        with qv.Client(desk.url, api_key=key_text("admin"), policy=hurried) as client, pytest.raises(qv.NoQuorum):
            qv.tokenize(pl.LazyFrame({"name": ["x"]}), "name", client=client).collect()
    finally:
        desk.rig.vault.failure = None


def test_a_reader_is_read_in_windows_of_one_epoch(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_WINDOW_ROWS", 3)
    batches = [pa.record_batch({"n": [place], "name": [f"p{place % 4}"]}) for place in range(8)]
    read: list[int] = []

    def counted() -> Iterator[Any]:
        for batch in batches:
            read.append(batch.num_rows)
            yield batch

    def reader() -> Any:
        return pa.RecordBatchReader.from_batches(batches[0].schema, counted())

    tokenized = qv.tokenize(reader(), "name", client=desk.client)
    assert read == []
    first = tokenized.read_next_batch()
    assert len(read) == 3
    names = [*first.column("name").to_pylist(), *tokenized.read_all().column("name").to_pylist()]
    assert names == desk.client.tokenize([f"p{place % 4}" for place in range(8)])
    batches[7] = pa.record_batch({"n": [7], "name": [names[0]]})
    with pytest.raises(qv.AlreadyTokenized, match="row 7, column name"):
        qv.tokenize(reader(), "name", client=desk.client).read_all()
    moving = qv.tokenize(reader(), "name", client=desk.client)
    moving.read_next_batch()
    desk.rotate()
    with pytest.raises(qv.EpochMoved, match="begin again"):
        moving.read_all()


def test_a_relation_of_duckdb_comes_back_as_one(desk: Desk) -> None:
    with duckdb.connect() as con:
        relation = con.sql("select 'Ann' as name, 1 as n union all select null, 2")
        tokenized = qv.tokenize(relation, columns="name", client=desk.client)
        assert tokenized.fetchall() == list(zip(desk.client.tokenize(["Ann", None]), [1, 2], strict=True))
        assert qv.detokenize(tokenized, "name", client=desk.client).fetchall() == [("Ann", "ok", 1), (None, "null", 2)]
        assert qv.tokenize(relation, "n", cast=True, client=desk.client).project("n").fetchall()[0] == (
            desk.client.tokenize(["1"])[0],
        )
        with pytest.raises(qv.AlreadyTokenized, match="row 0, column name"):
            qv.tokenize(tokenized, "name", client=desk.client)
        with pytest.raises(qv.ColumnError, match="name the columns"):
            qv.tokenize(relation, client=desk.client)
        lazy = qv.detokenize(nw.from_native(tokenized), columns="name", client=desk.client)
        assert isinstance(lazy.to_native(), duckdb.DuckDBPyRelation)
        (left,) = con.sql("select count(*) from duckdb_tables() where table_name not like 'qv_%tokenized_%'").fetchall()
        assert left == (0,)


def test_a_query_finds_the_caller_s_frames(desk: Desk) -> None:
    """Frames may share names with this package's own variables, though DuckDB looks names up in the function that calls it."""
    expected = [(token,) for token in desk.client.tokenize(["Ann"])]
    df = pd.DataFrame({"name": ["Ann"]})
    source = pl.DataFrame({"name": ["Ann"]})
    con = pa.table({"name": ["Ann"]})
    for name in ("df", "source", "con"):
        assert qv.tokenize(desk.con, f"from {name}", "name", client=desk.client).fetchall() == expected
    assert [len(frame) for frame in (df, source, con)] == [1, 1, 1]
    joined = qv.tokenize(desk.con, "select df.name from df join source using (name)", "name", client=desk.client)
    assert joined.fetchall() == expected
    with pytest.raises(duckdb.CatalogException, match="relation"):  # a local variable inside this package
        qv.tokenize(desk.con, "from relation", "name", client=desk.client)


def test_a_query_meets_nulls_of_each_kind_as_null(desk: Desk) -> None:
    """On its own, DuckDB turns a NaN of float32 or Decimal, and numpy's NaT, into text."""
    nulls = [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT", "ns"), Decimal("NaN")]
    df = pd.DataFrame({"name": pd.Series([*nulls, "nan"], index=list("abcdefgh"), dtype=object)})
    found = [token for (token,) in qv.tokenize(desk.con, "from df", "name", client=desk.client).fetchall()]
    assert found == [None] * 7 + desk.client.tokenize(["nan"])
    nothing = df.head(7)
    assert len(nothing) == 7
    told = qv.detokenize(desk.con, "from nothing", "name", client=desk.client)
    assert told.fetchall() == [(None, "null")] * 7
    assert df["name"].isna().sum() == 7
    assert isinstance(df["name"].iloc[6], Decimal)


def test_only_what_the_caller_brought_is_imported() -> None:
    code = (
        "import sys, quorumvault as qv; qv.Client; from quorumvault.client.batches import encode_value; encode_value('x')\n"
        "heavy = {'pandas', 'polars', 'narwhals', 'numpy', 'pyarrow', 'duckdb', 'IPython'}\n"
        "print(sorted(heavy & set(sys.modules)), end=';')\n"
        "qv.tokenize, qv.detokenize; print(sorted({'pandas', 'polars', 'narwhals', 'IPython'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[];[]\n"
