"""Joins rows with the answers to their texts, in DuckDB: shared by queries (duckdb.py) and files (files/columnar/duckdb.py).

rows -> distinct texts of their columns -> answers, registered as a table -> left join, in row order
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from quorumvault.analytics.columns import quoted, status_name


class Connection(Protocol):
    """The part of duckdb.DuckDBPyConnection that this module and duckdb.py use."""

    def execute(self, query: str, /) -> Any: ...

    def sql(self, query: str, /) -> Any: ...

    def table(self, name: str, /) -> Any: ...

    def register(self, name: str, table: Any, /) -> Any: ...

    def unregister(self, name: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class AnswerJoin:
    """``rows`` and ``order`` are SQL: a table or a query in brackets, and its column that numbers the rows.

    ``replaced``: the columns among ``columns`` whose texts are looked up. ``answers``: a table with one row for each distinct
    text, with columns ``text`` and ``result``. ``status``: SQL for a column NAME_status beside each replaced column, with
    ``{own}`` for the column and ``{answer}`` for the row of the answer, or None for no such columns.
    """

    con: Connection
    rows: str
    order: str
    columns: Sequence[str]
    replaced: Sequence[str]
    answers: str
    status: str | None

    def distinct(self) -> Any:
        """Returns the distinct texts of all replaced columns: a pyarrow array of large_utf8, without nulls."""
        every = " union all ".join(f"select {text_of(name)} as text from {self.rows} i" for name in self.replaced)
        texts = self.con.sql(f"select distinct text from ({every}) where text is not null").to_arrow_table().column("text")
        return pa.concat_arrays([pa.array([], pa.large_utf8()), *texts.cast(pa.large_utf8()).chunks])

    def query(self) -> str:
        """Returns SQL for the rows in order, with answers in place of the texts."""
        joins = (
            f"left join {self.answers} a{place} on {text_of(name)} = a{place}.text" for place, name in enumerate(self.replaced)
        )
        return f"select {', '.join(self._selected())} from {self.rows} i {' '.join(joins)} order by i.{self.order}"

    def _selected(self) -> Iterator[str]:
        for name in self.columns:
            own = f"i.{quoted(name)}"
            if name not in self.replaced:
                yield own
                continue
            answer = f"a{self.replaced.index(name)}"
            yield f"{answer}.result as {quoted(name)}"
            if self.status is not None:
                yield f"{self.status.format(own=own, answer=answer)} as {quoted(status_name(name))}"


def text_of(name: str) -> str:
    """Returns SQL for a column's text in the rows ``i``. Texts are compared byte by byte, whatever collation it has."""
    return f"cast(i.{quoted(name)} as varchar) collate c"


def number(con: Connection, query: str) -> int:
    """Returns the single number that a query selects."""
    ((found,),) = con.execute(query).fetchall()  # fetchall: a result that is not read to its end keeps the connection busy
    return int(found)
