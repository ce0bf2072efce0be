"""Tables full of tokens: the same tables each time, made by DuckDB and tokenized by the vault under test.

    values.duckdb   known(number, value, token)   each value and its token
    N-D.parquet     id, token, amount             N rows with D distinct tokens, each at least once, in no order

Values are as long as a medical record number with a prefix: 17 characters.
"""

from pathlib import Path

import duckdb

from bench.files.plan import Case
from quorumvault.analytics.arrow import ArrowVault, look_up

#: A prime larger than any number of distinct tokens. Multiplying by it modulo that number permutes the tokens.
_STEP = 1_000_000_007


class Dataset:
    """The values, tokens and tables of a run, in their own folder."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.values = directory / "values.duckdb"

    def tokenize(self, vault: ArrowVault, count: int) -> None:
        """Makes ``count`` values and their tokens."""
        with self._connect() as con, con.cursor() as reading:
            con.execute(f"attach '{self.values}' as vault")
            texts = reading.sql(f"select 'patient-' || lpad(range::varchar, 9, '0') as value from range({count})")
            reader = texts.to_arrow_reader(100_000)
            con.execute("create table vault.known (number bigint, value varchar, token varchar)")
            first = 0
            for found in look_up(vault, "tokenize", (batch.column(0) for batch in reader)):
                con.register("found", found)
                con.execute(
                    "insert into vault.known select $first + row_number() over () - 1, text, result from found", {"first": first}
                )
                con.unregister("found")
                first += found.num_rows

    def table(self, case: Case) -> Path:
        """Returns the file of a case, made if it does not exist."""
        path = self._directory / f"{case.rows}-{case.distinct}.parquet"
        if path.exists():
            return path
        with self._connect() as con:
            con.execute(f"attach '{self.values}' as vault (read_only)")
            con.execute(
                f"""
                copy (
                    select id, token, amount
                    from (
                        select
                            range as id,
                            (if(range < {case.distinct}, range * {_STEP}, hash(range) // 2) % {case.distinct})::bigint as number,
                            (hash(range + 0.5) % 1000000 / 100)::decimal(9, 2) as amount
                        from range({case.rows})
                    ) join vault.known using (number)
                    order by id
                ) to '{path}' (format parquet)
                """
            )
        return path

    def tokens(self, count: int) -> list[str]:
        """Returns the first ``count`` tokens."""
        with self._connect() as con:
            con.execute(f"attach '{self.values}' as vault (read_only)")
            rows = con.execute(f"select token from vault.known where number < {count} order by number").fetchall()
            return [token for (token,) in rows]

    def _connect(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(config={"temp_directory": str(self._directory / "spill")})


def differences(one: Path, other: Path) -> int:
    """Returns the number of rows in which two Parquet files of ``id, token, amount`` differ, including missing rows."""
    with duckdb.connect(config={"temp_directory": str(one.parent / "spill")}) as con:
        ((count,),) = con.execute(
            f"""
            select count(*) from (select id, token, amount from '{one}') one
            positional join (select id as id2, token as token2, amount as amount2 from '{other}') other
            where (id, token, amount) is distinct from (id2, token2, amount2)
            """
        ).fetchall()
        return int(count)
