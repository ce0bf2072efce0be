"""DuckDB against the API over an in-memory vault: what it looks up, what it returns, and what it refuses."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import quorumvault as qv
from quorumvault.crypto.tokens import format_token
from quorumvault.errors import NoQuorum
from tests.rigs import tables
from tests.rigs.tables import Desk
from tests.rigs.vault import key_text

NEVER_ISSUED = format_token(1, bytes(20))


@pytest.fixture
def desk() -> Iterator[Desk]:
    with tables.desk() as made:
        yield made


def tables_of(desk: Desk) -> list[str]:
    return [name for (name,) in desk.con.sql("select table_name from duckdb_tables() order by 1").fetchall()]


def claims(desk: Desk) -> list[str]:
    """Create a table of seven claims of two patients; return the patients' tokens."""
    ann, bob = map(str, desk.client.tokenize(["Ann", "Bob"]))
    desk.con.execute("create table claims (id integer, patient varchar, amount decimal(9, 2))")
    patients = [ann, None, bob, NEVER_ISSUED, ann, "plain text", ""]
    desk.con.executemany("insert into claims values (?, ?, 1.10)", [*enumerate(patients, 1)])
    desk.asked()
    return [ann, bob]


def test_values_in_place_and_their_status_beside(desk: Desk) -> None:
    ann, bob = claims(desk)
    found = qv.detokenize(desk.con, "from claims", "patient", client=desk.client)
    assert found.columns == ["id", "patient", "patient_status", "amount"]
    assert str(found.types[3]) == "DECIMAL(9,2)"
    values = ["Ann", None, "Bob", None, "Ann", None, None]
    statuses = ["ok", "null", "ok", "not_found", "ok", "not_token", "not_token"]
    assert found.select("id", "patient", "patient_status").fetchall() == [*zip(range(1, 8), values, statuses, strict=True)]
    assert sorted(desk.asked()) == sorted([ann, bob, NEVER_ISSUED])


def test_any_relation_will_do(desk: Desk) -> None:
    ann, _ = claims(desk)
    table = pa.table({"t": [ann]})
    assert qv.detokenize(desk.con, desk.con.from_arrow(table), "T", client=desk.client).fetchall() == [("Ann", "ok")]
    relation = desk.con.table("claims").filter("id = 5").project("patient")
    assert qv.detokenize(desk.con, relation, ["patient"], client=desk.client).fetchall() == [("Ann", "ok")]
    kinds = desk.con.sql(f"select '{ann}'::enum('{ann}') as e")
    assert qv.detokenize(desk.con, kinds, "e", client=desk.client).fetchall() == [("Ann", "ok")]
    with pytest.raises(ValueError, match="another connection"):
        qv.detokenize(desk.con, duckdb.connect().sql("select 'a' as t"), "t", client=desk.client)
    for statement in ("create table other (t varchar)", "select 1; select 2", ""):
        with pytest.raises(ValueError, match="one query that reads rows"):
            qv.detokenize(desk.con, statement, "t", client=desk.client)
    assert "other" not in tables_of(desk)


def test_several_columns_share_their_look_ups(desk: Desk) -> None:
    ann, bob = claims(desk)
    source = f"select '{ann}' as \"a b\", '{bob}' as \"C\", 'x' as plain union all select '{bob}', '{ann}', 'y'"
    found = qv.detokenize(desk.con, source, ["a b", "c"], client=desk.client)
    assert found.columns == ["a b", "a b_status", "C", "C_status", "plain"]
    assert found.fetchall() == [("Ann", "ok", "Bob", "ok", "x"), ("Bob", "ok", "Ann", "ok", "y")]
    assert sorted(desk.asked()) == sorted([ann, bob])


def test_a_sampled_source_is_evaluated_once(desk: Desk) -> None:
    desk.con.execute("create sequence turns")
    tokens = desk.client.tokenize([str(number) for number in range(200)])
    desk.con.register("tokens", pa.table({"token": tokens}))
    source = "select token, nextval('turns') as turn, random() as chance from tokens using sample 50 rows"
    found = qv.detokenize(desk.con, source, "token", client=desk.client)
    rows = found.fetchall()
    assert rows == found.fetchall()
    assert {status for _, status, *_ in rows} == {"ok"}
    assert len({value for value, *_ in rows}) == 50
    assert desk.con.sql("select nextval('turns')").fetchall() == [(max(turn for *_, turn, _ in rows) + 1,)]


def test_many_rows_keep_their_order(desk: Desk) -> None:
    source = "select range as id, (range * 7919 % 1000)::varchar as name from range(50000)"
    tokenized = qv.tokenize(desk.con, source, "name", client=desk.client)
    assert len(desk.asked()) == 1000
    back = qv.detokenize(desk.con, tokenized, "name", client=desk.client)
    assert len(desk.asked()) == 1000
    assert back.project("id, name").fetchall() == desk.con.sql(source).fetchall()


def test_missing_values_are_errors_if_that_is_wished(desk: Desk) -> None:
    claims(desk)
    before = tables_of(desk)
    with pytest.raises(qv.TokensNotFound, match=r"3 of 6 tokens have no value here, column patient, rows 3, 5, 6$") as caught:
        qv.detokenize(desk.con, "from claims", "patient", missing="error", client=desk.client)
    assert (caught.value.indexes, caught.value.count, caught.value.column) == ((3, 5, 6), 3, "patient")
    assert tables_of(desk) == before
    fine = qv.detokenize(desk.con, "from claims where id in (1, 2)", "patient", missing="error", client=desk.client)
    assert fine.project("patient").fetchall() == [("Ann",), (None,)]
    with pytest.raises(ValueError, match="missing"):
        qv.detokenize(desk.con, "from claims", "patient", missing="NULL", client=desk.client)  # type: ignore[call-overload]


def test_the_client_may_come_from_the_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    claims(desk)
    monkeypatch.setenv("QUORUMVAULT_URL", desk.url)
    monkeypatch.setenv("QUORUMVAULT_API_KEY", key_text("clinic"))
    assert qv.detokenize(desk.con, "select patient from claims where id = 3", "patient").fetchall() == [("Bob", "ok")]


def test_tokens_in_place_of_text(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text('zip,name,born\n02139,"",1980-01-01\n,Ann,1999-12-31\n')
    source = f"from read_csv('{path}', all_varchar=true, allow_quoted_nulls=false)"
    tokenized = qv.tokenize(desk.con, source, ["zip", "name", "born"], client=desk.client)
    assert tokenized.columns == ["zip", "name", "born"]
    expected = [desk.client.tokenize(row) for row in (["02139", "", "1980-01-01"], [None, "Ann", "1999-12-31"])]
    assert [list(row) for row in tokenized.fetchall()] == expected


def test_other_types_than_text_have_to_be_cast(desk: Desk) -> None:
    source = "select 2139 as zip, date '1980-01-01' as born, true as male, 1.5::double as weight, [1] as list, 'x' as name"
    for name, kind in (("zip", "INTEGER"), ("born", "DATE"), ("male", "BOOLEAN")):
        with pytest.raises(qv.ColumnError, match=rf'column {name} is {kind}.*cast="{name}"'):
            qv.tokenize(desk.con, source, name, client=desk.client)
    for name in ("weight", "list"):
        with pytest.raises(qv.ColumnError, match=f"column {name} is"):
            qv.tokenize(desk.con, source, name, cast=name, client=desk.client)
    with pytest.raises(qv.ColumnError, match="cast names zip"):
        qv.tokenize(desk.con, source, "name", cast="zip", client=desk.client)
    tokenized = qv.tokenize(desk.con, source, ["zip", "born", "male"], cast=["zip", "born", "male"], client=desk.client)
    (row,) = tokenized.project("zip, born, male").fetchall()
    assert list(row) == desk.client.tokenize(["2139", "1980-01-01", "true"])


def test_columns_that_will_not_do(desk: Desk) -> None:
    for source, words in (
        ("select 'a' as b", "no column t; it has b"),
        ("select 1 as t", "column t is INTEGER: tokens are VARCHAR"),
        ("select 'a' as t, 'b' as T_STATUS", "a column t_status"),
        ("select 'a' as t, 'b' as T", "one name"),
    ):
        with pytest.raises(qv.ColumnError, match=words):
            qv.detokenize(desk.con, source, "t", client=desk.client)
    with pytest.raises(duckdb.CatalogException):
        qv.detokenize(desk.con, "from nowhere_at_all", "t", client=desk.client)
    assert desk.asked() == []
    assert tables_of(desk) == []


def test_a_value_that_is_no_text(desk: Desk) -> None:
    (token,) = desk.rig.tokens([42])
    assert qv.detokenize(desk.con, f"select '{token}' as t", "t", client=desk.client).fetchall() == [(None, "not_text")]
    client = qv.register(desk.con, desk.client)
    with pytest.raises(duckdb.InvalidInputException, match="NotText"):
        desk.con.sql(f"select detokenize('{token}')").fetchall()
    assert isinstance(client.last_error, qv.NotText)


@pytest.mark.parametrize("name", ["rowid", "RowId", "row"])
def test_a_column_that_is_called_as_row_ids_are(name: str, desk: Desk) -> None:
    (token,) = desk.rig.tokens(["a"])
    source = f"select unnest(['x', '{token}']) as name, unnest(['b', 'a']) as {name}"
    with pytest.raises(qv.AlreadyTokenized, match="row 1, column name") as caught:
        qv.tokenize(desk.con, source, "name", client=desk.client)
    assert token not in str(caught.value)
    found = qv.detokenize(desk.con, source, "name", client=desk.client)
    assert (found.columns, found.fetchall()) == (["name", "name_status", name], [(None, "not_token", "b"), ("a", "ok", "a")])
    with pytest.raises(qv.TokensNotFound, match=r"1 of 2 tokens have no value here, column name, rows 0$"):
        qv.detokenize(desk.con, source, "name", missing="error", client=desk.client)
    assert len(tables_of(desk)) == 1  # the table behind ``found``


def test_rows_have_their_numbers_in_a_transaction_and_without_an_order(desk: Desk) -> None:
    (token,) = desk.rig.tokens(["a"])
    source = f"select if(range = 250000, '{token}', 'x' || range % 7) as name from range(300000)"
    desk.con.execute("set preserve_insertion_order = false")
    with pytest.raises(qv.AlreadyTokenized, match="row 250000, column name"):
        qv.tokenize(desk.con, source, "name", client=desk.client)
    desk.con.execute("reset preserve_insertion_order")
    desk.con.begin()
    with pytest.raises(qv.AlreadyTokenized, match="row 250000, column name"):
        qv.tokenize(desk.con, source, "name", client=desk.client)
    with pytest.raises(qv.TokensNotFound, match=r"rows 0, 1, 2, 3, 4, …$"):
        qv.detokenize(desk.con, source, "name", missing="error", client=desk.client)
    desk.con.rollback()


def test_an_outage_raises_and_leaves_the_connection_as_it_was(desk: Desk) -> None:
    claims(desk)
    desk.rig.vault.failure = NoQuorum("n2: down; n3: down")
    with pytest.raises(qv.NoQuorum):
        qv.detokenize(desk.con, "from claims", "patient", client=desk.client)
    assert tables_of(desk) == ["claims"]
    desk.con.begin()
    with pytest.raises(qv.NoQuorum):
        qv.detokenize(desk.con, "from claims", "patient", client=desk.client)
    desk.con.execute("insert into claims values (8, null, 0)")
    desk.con.commit()
    desk.rig.vault.failure = None
    assert len(qv.detokenize(desk.con, "from claims", "patient", client=desk.client).fetchall()) == 8
    assert tables_of(desk)[:-1] == ["claims"]


def test_another_schema_and_quoted_names(desk: Desk) -> None:
    ann, _ = claims(desk)
    desk.con.execute('create schema "temp two"')
    desk.con.execute('use "temp two"')
    desk.con.execute(f'create table "odd "" name" as select \'{ann}\' as "a "" b"')
    found = qv.detokenize(desk.con, 'from "odd "" name"', 'a " b', client=desk.client)
    assert (found.columns, found.fetchall()) == (['a " b', 'a " b_status'], [("Ann", "ok")])


def test_a_collation_does_not_make_two_texts_one(desk: Desk) -> None:
    desk.con.execute("set default_collation = 'nocase'")
    tokenized = qv.tokenize(desk.con, "select unnest(['ann', 'Ann']) as t", "t", client=desk.client)
    assert [token for (token,) in tokenized.fetchall()] == desk.client.tokenize(["ann", "Ann"])
    assert qv.detokenize(desk.con, tokenized, "t", client=desk.client).fetchall() == [("ann", "ok"), ("Ann", "ok")]


def test_sql_functions(desk: Desk) -> None:
    ann, _ = claims(desk)
    qv.register(desk.con, desk.client)
    found = desk.con.sql("select detokenize(patient) from claims order by id").fetchall()
    assert [value for (value,) in found] == ["Ann", None, "Bob", None, "Ann", None, None]
    assert desk.con.sql("select tokenize('Ann'), tokenize(null), detokenize(tokenize('new'))").fetchall() == [(ann, None, "new")]
    assert desk.con.sql("select count(detokenize(patient)) from claims where false").fetchall() == [(0,)]
    with pytest.raises(duckdb.BinderException, match="tokenize"):
        desk.con.sql("select tokenize(42)")


def test_functions_have_the_rights_of_their_client_and_can_be_replaced(desk: Desk) -> None:
    ann, _ = claims(desk)
    with qv.Client(desk.url, api_key=key_text("lab")) as lab:
        found = qv.detokenize(desk.con, "from claims where id in (1, 3)", "patient", client=lab)
        assert found.project("patient, patient_status").fetchall() == [(None, "not_found")] * 2
        for client, value in ((desk.client, "Ann"), (lab, None), (desk.client, "Ann")):
            assert qv.register(desk.con, client) is client
            assert desk.con.sql(f"select detokenize('{ann}')").fetchall() == [(value,)]


def test_sql_functions_are_strict(desk: Desk) -> None:
    claims(desk)
    for key, code, kind in (("nobody", "unauthenticated", qv.Unauthenticated), ("reader", "not-permitted", qv.NotPermitted)):
        with qv.Client(desk.url, api_key=key_text(key)) as client:
            qv.register(desk.con, client)
            with pytest.raises(duckdb.InvalidInputException, match=code):
                desk.con.sql("select tokenize('x')").fetchall()
            assert isinstance(client.last_error, kind)
    qv.register(desk.con, desk.client)
    desk.rig.vault.failure = NoQuorum("n2: down; n3: down")
    with pytest.raises(duckdb.InvalidInputException, match="no-quorum"):
        desk.con.sql("select detokenize(patient) from claims").fetchall()
    assert isinstance(desk.client.last_error, qv.NoQuorum)
    desk.rig.vault.failure = None
    assert desk.con.sql("select detokenize(patient) from claims where id = 1").fetchall() == [("Ann",)]


def test_threads_with_a_cursor_each(desk: Desk) -> None:
    tokens = desk.client.tokenize([str(number) for number in range(3000)])
    desk.con.execute("create table t as select unnest(?) as token", [tokens])
    qv.register(desk.con, desk.client)
    expected = [(str(number),) for number in range(3000)]

    def work(number: int) -> bool:
        with desk.con.cursor() as own:
            found = qv.detokenize(own, "from t", "token", client=desk.client).project("token").fetchall()
            return found == own.sql("select detokenize(token) from t").fetchall() == expected

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_names_at_the_root_shadow_nothing() -> None:
    import quorumvault.analytics.duckdb as ours
    from quorumvault.analytics import tables as of_all

    assert (qv.detokenize, qv.tokenize, qv.register) == (of_all.detokenize, of_all.tokenize, ours.register)
    assert vars(ours)["duckdb"] is duckdb
    assert not hasattr(qv, "duckdb")
