"""Tables in DuckDB files: a part is a table of some rows in a file of its own; one after the other they are the output's table.

    convert    distinct texts of the rows -> answers -> left join of the rows with them, in the order of the rows -> a part
    assemble   parts, one after the other -> a table in a new file, or Parquet
    put_table  that table into a file that exists, in one transaction

Types stay DuckDB's own all the way. What is not in rows does not come along: constraints, defaults, indexes.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from quorumvault.analytics.columns import quoted, unlike
from quorumvault.analytics.join import AnswerJoin, number, text_of
from quorumvault.errors import ColumnError
from quorumvault.files.columnar.answers import CODE, MEMORY_LIMIT, ColumnAnswers, registered
from quorumvault.files.columnar.replace import moved_pairs, replacements, settle_rows
from quorumvault.files.engine import ConvertedPart
from quorumvault.files.job import CellCounts, Job, Progress, RunError
from quorumvault.files.outcomes import cell_rules
from quorumvault.files.part_files import PartFiles, part_lists
from quorumvault.files.sources import Source
from quorumvault.formats.table import RowPlace

#: As much as a kill costs, and what is sorted at once.
PART_ROWS = 500_000
_numbers = itertools.count(1)


@contextlib.contextmanager
def attached(con: duckdb.DuckDBPyConnection, path: Path, *, read_only: bool) -> Iterator[str]:
    """A DuckDB file under a name of the connection's, as long as the block lasts. Raises RunError if it cannot be opened."""
    name = f"file_{next(_numbers)}"
    literal = "'" + str(path).replace("'", "''") + "'"
    try:
        con.execute(f"attach {literal} as {name}{' (read_only)' if read_only else ''}")
    except duckdb.Error as error:
        words = str(error).splitlines()[0]
        raise RunError(f"{path} cannot be opened as a DuckDB file: {words}") from None
    try:
        yield name
        if not read_only:
            con.execute(f"checkpoint {name}")  # or rows stay in a second file, beside it
    finally:
        con.execute(f"detach {name}")


def qualified(database: str, table: str) -> str:
    """[SCHEMA.]TABLE in an attached file, as SQL has it."""
    return ".".join([database, *map(quoted, _schema_and_name(table))])


class TableReader:
    """A table in a DuckDB file. Raises RunError if there is none; a view is none: its rows have no order to go on from."""

    def __init__(self, source: Source, table: str, con: duckdb.DuckDBPyConnection) -> None:
        self._source = source
        self._table = table
        self.con = con
        with self.rows() as rows:
            try:
                found = con.sql(f"select max(rowid) from {rows}").fetchall()
            except duckdb.Error:
                raise RunError(f"{source}: there is no such table in the file") from None
        if any(name.lower() == "rowid" for name in self.types()):
            raise ColumnError(f"{source} has a column rowid, which hides the ids that rows have: give it another name")
        #: One more than the last row's id: ids have gaps where rows were deleted.
        self.end: int = 0 if found[0][0] is None else found[0][0] + 1

    @contextlib.contextmanager
    def rows(self) -> Iterator[str]:
        """The table's name in SQL, as long as the block lasts."""
        with attached(self.con, self._source.path, read_only=True) as database:
            yield qualified(database, self._table)

    def require_plain(self) -> None:
        """Raises RunError for a table of which more than rows would be lost if another one took its place."""
        with attached(self.con, self._source.path, read_only=True) as database:
            place = [database, *_schema_and_name(self._table)]
            constraints = self.con.execute(f"select count(*) from duckdb_constraints() where {_PLACE}", place).fetchall()
            indexes = self.con.execute(f"select count(*) from duckdb_indexes() where {_PLACE}", place).fetchall()
        if constraints[0][0] or indexes[0][0]:
            raise RunError(f"{self._source} has constraints or indexes, which would be lost in place: write to another table")

    def types(self) -> dict[str, Any]:
        with self.rows() as rows:
            relation = self.con.sql(f"from {rows}")
            return dict(zip(relation.columns, relation.types, strict=True))

    def texts(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        with self.rows() as rows:
            selected = ", ".join(f"cast({quoted(name)} as varchar) as {quoted(name)}" for name in columns)
            for batch in self.con.sql(f"select {selected} from {rows}").to_arrow_reader(PART_ROWS):
                yield {name: batch.column(name) for name in columns}


class TableConversion:
    """Implements Conversion. A place's offset is a row id."""

    def __init__(self, job: Job, source: Source, reader: TableReader, columns: Sequence[str], answers: ColumnAnswers) -> None:
        self._job = job
        self._rules = cell_rules(job)
        self._source = source
        self._reader = reader
        self._columns = list(columns)
        self._names = list(reader.types())
        self._left = job.left_of(self._names, columns, source)
        self._id = unlike("row", self._names)
        self._answers = answers
        self._con = reader.con
        names = " ".join(f"when {code} then '{status}'" for status, code in CODE.items())
        self._status = f"case coalesce({{answer}}.code, {CODE['null']}) {names} end" if job.status else None
        if job.output is None:
            reader.require_plain()

    def convert(self, start: RowPlace, stop: RowPlace | None, files: PartFiles, progress: Progress) -> ConvertedPart:
        end = min(start.offset + PART_ROWS, self._reader.end) if stop is None else stop.offset
        counts = CellCounts(dict.fromkeys(self._columns, 0), left=self._left)
        with contextlib.ExitStack() as stack:
            lists = stack.enter_context(part_lists(self._job, self._source, files))
            table = stack.enter_context(self._reader.rows())
            part = stack.enter_context(attached(self._con, files.data, read_only=False))
            rows = f"(select rowid as {self._id}, * from {table} where rowid >= {start.offset} and rowid < {end})"
            join = AnswerJoin(self._con, rows, self._id, self._names, self._columns, "answers_now", self._status)
            pairs = self._look_up(join, stack)
            source = str(self._source)
            rejects = [
                reject
                for name in self._columns
                for reject in settle_rows(self._rules, source, name, self._codes(join, name), start.row + 1, counts)
            ]
            self._con.execute(f"create table {part}.rows as {join.query()}")
            counts.rows = number(self._con, f"select count(*) from {part}.rows")
            lists.write(sorted(rejects), pairs)
        counts.rejected = len(rejects)
        progress(counts.rows, self._source.path.stat().st_size * (end - start.offset) // max(1, self._reader.end))
        epoch = self._answers.note_epoch(counts)
        return ConvertedPart(RowPlace(start.row + counts.rows, end), end == self._reader.end, counts, epoch)

    def _look_up(self, join: AnswerJoin, stack: contextlib.ExitStack) -> Iterator[str]:
        """Registers the answers of ``join``: for each distinct text, what takes its place. Returns lines OLD,NEW."""
        texts = join.distinct()
        answered = self._answers.of(texts)
        replaced = replacements(self._rules, texts, answered)
        now = pa.table({"text": texts, "result": replaced, "code": answered.codes})
        stack.enter_context(registered(self._con, join.answers, now))
        return moved_pairs(texts, answered)

    def _codes(self, join: AnswerJoin, name: str) -> Any:
        """The code of each row's text in a column, in the order of the rows."""
        joined = f"from {join.rows} i left join {join.answers} a on {text_of(name)} = a.text"
        query = f"select coalesce(a.code, {CODE['null']})::utinyint as code {joined} order by i.{join.order}"
        return self._con.sql(query).fetchnumpy()["code"]

    def assemble(self, parts: Sequence[PartFiles], output: Path) -> None:
        is_table = self._job.table is not None or self._job.output is None or self._job.is_folder
        file = output if is_table else output.with_suffix(".duckdb")
        name = (self._job.table or self._source.table or "") if is_table else "rows"
        with attached(self._con, file, read_only=False) as database:
            target = qualified(database, name)
            self._con.execute(f"create schema if not exists {database}.{quoted(_schema_and_name(name)[0])}")
            for place, files in enumerate(parts):
                with attached(self._con, files.data, read_only=True) as part:
                    begin = f"insert into {target}" if place else f"create table {target} as"
                    self._con.execute(f"{begin} from {part}.rows")
            if not is_table:
                literal = "'" + str(output).replace("'", "''") + "'"
                self._con.execute(f"copy (from {target}) to {literal} (format parquet)")
        if not is_table:
            file.unlink()


def put_table(staged: Path, path: Path, table: str, *, replacing: bool) -> bool:
    """Puts a table into a file that exists, in one transaction. Spills beside ``staged``.

    One of that name is replaced if that is wished. Else it stays, and the answer is whether it is the same, row by row.
    """
    settings: dict[str, Any] = {"memory_limit": MEMORY_LIMIT, "temp_directory": str(staged.with_suffix(".spill"))}
    with contextlib.ExitStack() as stack:
        con = stack.enter_context(duckdb.connect(config=settings))
        database = stack.enter_context(attached(con, path, read_only=False))
        target, source = (
            qualified(name, table) for name in (database, stack.enter_context(attached(con, staged, read_only=True)))
        )
        con.execute(f"create schema if not exists {database}.{quoted(_schema_and_name(table)[0])}")
        try:
            con.execute(f"create {'or replace ' if replacing else ''}table {target} as from {source}")
        except duckdb.CatalogException:
            if replacing:
                raise RunError(f"{path} has something called {table} that is no table: it is not replaced") from None
            return _summary(con, target) == _summary(con, source)
    return True


def _summary(con: duckdb.DuckDBPyConnection, table: str) -> tuple[object, ...]:
    """Summarizes a table: its names and types, and a hash over its rows and their order. Equal tables have equal summaries."""
    relation = con.sql(f"from {table}")
    (found,) = con.execute(f"select count(*), bit_xor(hash(rowid, *columns(*))) from {table}").fetchall()
    return (relation.columns, relation.types, found)


def has_table(path: Path, table: str) -> bool:
    with duckdb.connect() as con, attached(con, path, read_only=True) as database:
        found = con.execute(
            f"select count(*) from duckdb_tables() where {_PLACE}", [database, *_schema_and_name(table)]
        ).fetchall()
        return bool(found[0][0])


_PLACE = "database_name = ? and schema_name = ? and table_name = ?"


def _schema_and_name(table: str) -> tuple[str, str]:
    schema, mark, name = table.partition(".")
    return (schema, name) if mark else ("main", table)
