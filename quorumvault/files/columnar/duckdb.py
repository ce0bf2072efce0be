"""Tables in DuckDB files: a part is a table of some rows in its own file, and the parts in order make the output's table.

    convert    distinct texts of the rows -> answers -> left join of the rows with the answers, in row order -> a part
    assemble   parts in order -> a table in a new file, or Parquet
    put_table  that table -> a file that exists, in one transaction

Columns keep DuckDB's types throughout. Only rows and the notes of cast types are copied: constraints, defaults and indexes are
not.
"""

import contextlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from quorumvault.analytics.columns import quoted, unlike
from quorumvault.analytics.join import AnswerJoin, number, text_of
from quorumvault.errors import ColumnError
from quorumvault.files.columnar import cast_types
from quorumvault.files.columnar.answers import CODE, MEMORY_LIMIT, ColumnAnswers, registered
from quorumvault.files.columnar.made_of import Catalog
from quorumvault.files.columnar.replace import like_nulls, moved_pairs, replacements, settle_rows
from quorumvault.files.engine import ConvertedPart, PartProgress
from quorumvault.files.job import CellCounts, Job, RunError
from quorumvault.files.outcomes import STATUS_NAMES, cell_rules
from quorumvault.files.part_files import PartFiles, part_lists
from quorumvault.files.sources import Source, schema_and_name
from quorumvault.formats.table import RowPlace

#: Rows of a part: what a kill costs, and what is sorted at once.
PART_ROWS = 500_000
_numbers = itertools.count(1)


@contextlib.contextmanager
def attached(con: duckdb.DuckDBPyConnection, path: Path, *, read_only: bool) -> Iterator[str]:
    """Attaches a DuckDB file to the connection for the block, and yields its name. Raises RunError if it cannot be opened."""
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
            con.execute(f"checkpoint {name}")  # else rows stay in a second file beside it
    finally:
        con.execute(f"detach {name}")


def qualified(database: str, table: str) -> str:
    """Returns [SCHEMA.]TABLE in an attached file as SQL."""
    return ".".join([database, *map(quoted, schema_and_name(table))])


class TableReader:
    """A table or a view in a DuckDB file. Raises RunError if it does not exist.

    The rows of a view have no ids and no fixed order to resume from, so the run copies them, and they are one part.
    """

    def __init__(self, source: Source, table: str, con: duckdb.DuckDBPyConnection) -> None:
        self._source = source
        self._table = table
        self.con = con
        ((self._home,),) = con.execute("select current_database()").fetchall()
        self._copy: str | None = None
        with attached(con, source.path, read_only=True) as database:
            place = [database, *schema_and_name(table)]
            self.is_view = _is_view(con, place)
            if not self.is_view and not con.execute(f"from duckdb_tables() where {cast_types.PLACE}", place).fetchall():
                words = "there is no such table in the file"
                raise RunError(f"{source}: {words}" + (', and a name with a dot in it is quoted: "a.b"' if "." in table else ""))
            self.notes = cast_types.in_comments(con, place)
        if any(name.lower() == "rowid" for name in self.types()):
            raise ColumnError(f"{source} has a column rowid, which hides the ids that rows have: give it another name")
        #: The last row's id plus one. Ids have gaps where rows were deleted.
        self.end = 0
        if not self.is_view:
            self._count()

    def copy_view(self) -> None:
        """Copies a view's rows into the connection's database. Does nothing for a table."""
        if self.is_view and self._copy is None:
            name = f"view_{next(_numbers)}"
            with self.rows() as rows:
                self.con.execute(f"create table {self._home}.{name} as from {rows}")
            self._copy = f"{self._home}.{name}"
            self._count()

    def _count(self) -> None:
        with self.rows() as rows:
            ((last,),) = self.con.sql(f"select max(rowid) from {rows}").fetchall()
        self.end = 0 if last is None else last + 1

    @contextlib.contextmanager
    def rows(self) -> Iterator[str]:
        """Yields the table's name in SQL, valid for the block."""
        if self._copy is not None:
            yield self._copy
            return
        with attached(self.con, self._source.path, read_only=True) as database:
            if not self.is_view:
                yield qualified(database, self._table)
                return
            self.con.execute(f"use {database}")  # the view's names are resolved there
            try:
                yield qualified(database, self._table)
            except duckdb.Error as error:
                raise RunError(f"{self._source}: the view cannot be read: {type(error).__name__}") from None
            finally:
                self.con.execute(f"use {self._home}")

    def require_plain(self) -> None:
        """Raises RunError for a view, or a table with constraints or indexes, which replacing the table would lose."""
        if self.is_view:
            raise RunError(f"{self._source} is a view: write to a table")
        with attached(self.con, self._source.path, read_only=True) as database:
            place = [database, *schema_and_name(self._table)]
            lost = _beside_rows(self.con, place)
        if lost:
            raise RunError(f"{self._source} has {lost}, which would be lost in place: write to another table")

    def require_no_other_made_of(self, columns: Sequence[str], keep: Collection[str]) -> None:
        """Raises ColumnError for a column outside ``columns`` and ``keep`` that derives from ``columns``: it may show values."""
        names, place = list(self.types()), schema_and_name(self._table)
        with attached(self.con, self._source.path, read_only=True) as database:
            found = Catalog(self.con, database).made_of(columns, place, names, is_view=self.is_view)
        named = {name.casefold() for name in (*columns, *keep)}
        others = [name for name in (names if found is None else found) if name.casefold() not in named]
        if others:
            words = "may be made" if found is None else "is made" if len(others) == 1 else "are made"
            raise ColumnError(
                f"{self._source}: column{'s' if len(others) > 1 else ''} {', '.join(others)} {words} of one that becomes tokens, "
                f"and would keep its values: name with --column what has values, and what may stay with --keep {','.join(others)}"
            )

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
        self._restored = cast_types.to_restore(reader.notes, columns, source) if job.restore_types else {}
        self._notes = {name: kind for name, kind in reader.notes.items() if name not in self._restored}
        self._notes |= cast_types.of_columns(reader.types(), None, job.cast)
        self._id = unlike("row", self._names)
        self._answers = answers
        self._con = reader.con
        names = " ".join(f"when {code} then '{name}'" for code, name in enumerate(STATUS_NAMES))
        self._status = f"case coalesce({{answer}}.code, {CODE['null']}) {names} end" if job.status else None
        #: A table is made anew from rows, and nothing of the old table's catalog is copied.
        self.left_out: list[str] = []
        self.not_kept: list[str] = []
        if job.output is None:
            reader.require_plain()
        if not self._is_table():
            kept = {name: str(kind) for name, kind in reader.types().items() if name not in columns}
            cast_types.require_in_parquet(kept | {name: kind.duckdb for name, kind in self._restored.items()}, source)
        if job.operation == "tokenize" and not job.allow_plain:
            reader.require_no_other_made_of(columns, job.keep)

    def first_values(self, rows: int) -> dict[str, list[str]]:
        with self._reader.rows() as table:
            columns = ", ".join(map(text_of, self._columns))
            found = self._con.execute(f"select {columns} from {table} i limit {rows}").fetchall()
        return {name: [row[place] for row in found if row[place]] for place, name in enumerate(self._columns)}

    def opened(self, output: Path) -> BinaryIO:
        return output.open("rb")

    def convert(self, start: RowPlace, stop: RowPlace | None, files: PartFiles, progress: PartProgress) -> ConvertedPart:
        self._reader.copy_view()
        rows = self._reader.end if self._reader.is_view else PART_ROWS
        end = min(start.offset + rows, self._reader.end) if stop is None else stop.offset
        counts = CellCounts(dict.fromkeys(self._columns, 0), left=self._left)
        with contextlib.ExitStack() as stack:
            lists = stack.enter_context(part_lists(self._job, self._source, files))
            table = stack.enter_context(self._reader.rows())
            part = stack.enter_context(attached(self._con, files.data, read_only=False))
            numbered = f"(select rowid as {self._id}, * from {table} where rowid >= {start.offset} and rowid < {end})"
            join = AnswerJoin(self._con, numbered, self._id, self._names, self._columns, "answers_now", self._status)
            pairs = self._look_up(join, stack)
            source = str(self._source)
            rejects = [
                reject
                for name in self._columns
                for reject in settle_rows(self._rules, source, name, self._codes(join, name), start.row + 1, counts)
            ]
            self._note_like_nulls(join, counts)
            self._con.execute(f"create table {part}.rows as {join.query()}")
            counts.rows = number(self._con, f"select count(*) from {part}.rows")
            lists.write(sorted(rejects), pairs)
        counts.rejected = len(rejects)
        progress(counts.rows, self._source.path.stat().st_size * (end - start.offset) // max(1, self._reader.end))
        epoch = self._answers.note_epoch(counts)
        return ConvertedPart(RowPlace(start.row + counts.rows, end), end == self._reader.end, counts, epoch)

    def _look_up(self, join: AnswerJoin, stack: contextlib.ExitStack) -> Iterator[str]:
        """Registers the answers of ``join``: the replacement of each distinct text. Returns lines OLD,NEW."""
        texts = join.distinct()
        answered = self._answers.of(texts)
        replaced = replacements(self._rules, texts, answered)
        now = pa.table({"text": texts, "result": replaced, "code": answered.codes})
        stack.enter_context(registered(self._con, join.answers, now))
        return moved_pairs(texts, answered)

    def _note_like_nulls(self, join: AnswerJoin, counts: CellCounts) -> None:
        spellings = like_nulls(self._job)
        for name in self._columns if spellings else ():
            query = f"select {text_of(name)} as cell, count(*) from {join.rows} i where list_contains(?, cell) group by cell"
            for spelling, cells in self._con.execute(query, [spellings]).fetchall():
                counts.note_like_null(name, spelling, cells)

    def _codes(self, join: AnswerJoin, name: str) -> Any:
        """Returns the code of each row's text in a column, in row order."""
        joined = f"from {join.rows} i left join {join.answers} a on {text_of(name)} = a.text"
        query = f"select coalesce(a.code, {CODE['null']})::utinyint as code {joined} order by i.{join.order}"
        return self._con.sql(query).fetchnumpy()["code"]

    def assemble(self, parts: Sequence[PartFiles], output: Path) -> None:
        is_table = self._is_table()
        file = output if is_table else output.with_suffix(".duckdb")
        name = (self._job.table or self._source.table or "") if is_table else "rows"
        with attached(self._con, file, read_only=False) as database:
            target = qualified(database, name)
            self._con.execute(f"create schema if not exists {database}.{quoted(schema_and_name(name)[0])}")
            for place, files in enumerate(parts):
                with attached(self._con, files.data, read_only=True) as part:
                    begin = f"insert into {target}" if place else f"create table {target} as"
                    self._con.execute(f"{begin} {self._restoring(part)}")
            if is_table:
                cast_types.comment(self._con, target, self._notes)
            else:
                literal = "'" + str(output).replace("'", "''") + "'"
                self._con.execute(f"copy (from {target}) to {literal} (format parquet{cast_types.kv_metadata(self._notes)})")
        if not is_table:
            file.unlink()

    def _is_table(self) -> bool:
        return self._job.table is not None or self._job.output is None or self._job.is_folder

    def _restoring(self, part: str) -> str:
        """Returns SQL for the rows of a part, with restored columns cast back to their former types. Raises RunError."""
        casts = {name: cast_types.cast_back(quoted(name), kind) for name, kind in self._restored.items()}
        for name, cast in casts.items():
            lost = number(self._con, f"select count(*) from {part}.rows where {quoted(name)} is not null and {cast} is null")
            cast_types.require_all(lost, self._restored[name], f"{self._source}: {name}")
        replaced = ", ".join(f"{cast} as {quoted(name)}" for name, cast in casts.items())
        return f"select *{f' replace ({replaced})' if replaced else ''} from {part}.rows"


def put_table(staged: Path, path: Path, table: str, *, replacing: bool) -> bool:
    """Puts a table into an existing file, in one transaction. Spills beside ``staged``.

    With ``replacing``, replaces a table of that name. Else such a table stays, and the function returns whether it is identical,
    row by row.
    """
    settings: dict[str, Any] = {"memory_limit": MEMORY_LIMIT, "temp_directory": str(staged.with_suffix(".spill"))}
    with contextlib.ExitStack() as stack:
        con = stack.enter_context(duckdb.connect(config=settings))
        database = stack.enter_context(attached(con, path, read_only=False))
        made = stack.enter_context(attached(con, staged, read_only=True))
        source = qualified(made, table)
        find = f"select schema_name, table_name from duckdb_tables() where {cast_types.PLACE}"
        stored = con.execute(find, [database, *schema_and_name(table)]).fetchall()  # in its own spelling
        target = ".".join([database, *map(quoted, stored[0] if stored else schema_and_name(table))])
        con.execute(f"create schema if not exists {database}.{quoted(schema_and_name(table)[0])}")
        notes = cast_types.in_comments(con, [made, *schema_and_name(table)])
        con.execute("begin")
        try:
            con.execute(f"create {'or replace ' if replacing else ''}table {target} as from {source}")
            cast_types.comment(con, target, notes)
            con.execute("commit")
        except duckdb.CatalogException:
            con.execute("rollback")
            if replacing:
                raise RunError(f"{path} has something called {table} that is no table: it is not replaced") from None
            return _summary(con, target) == _summary(con, source)
    return True


def _summary(con: duckdb.DuckDBPyConnection, table: str) -> tuple[object, ...]:
    """Returns a table's column names and types, and a hash of its rows and their order. Equal tables have equal summaries."""
    relation = con.sql(f"from {table}")
    (found,) = con.execute(f"select count(*), bit_xor(hash(rowid, *columns(*))) from {table}").fetchall()
    return (relation.columns, relation.types, found)


def has_table(path: Path, table: str, *, replacing: bool) -> bool:
    """Returns whether a file has a table. Raises RunError if a view has its name.

    ``replacing``: also raises RunError if the table has more than rows, which would be lost.
    """
    with duckdb.connect() as con, attached(con, path, read_only=True) as database:
        place = [database, *schema_and_name(table)]
        if _is_view(con, place):
            raise RunError(f"{path} has a view called {table}, which is not replaced: name another table")
        found = con.execute(f"from duckdb_tables() where {cast_types.PLACE}", place).fetchall()
        lost = _beside_rows(con, place) if found and replacing else ""
    if lost:
        raise RunError(
            f"{path}: table {table} has {lost}, which would be lost: name another table, or drop this one before the run"
        )
    return bool(found)


def _beside_rows(con: duckdb.DuckDBPyConnection, place: Sequence[str]) -> str:
    """Returns what a table has beside rows, and what another one has that needs it, in words; notes of types do not count."""
    columns = f"duckdb_columns() where {cast_types.PLACE} and"
    refers = cast_types.PLACE.replace("table_name", "referenced_table")
    queries = {
        "constraints": f"duckdb_constraints() where {cast_types.PLACE}",
        "indexes": f"duckdb_indexes() where {cast_types.PLACE}",
        "defaults": f"{columns} column_default is not null and not is_generated",
        "generated columns": f"{columns} is_generated",
        "comments": f"{columns} comment is not null and column_name not in (select unnest(?))",
        "a comment": f"duckdb_tables() where {cast_types.PLACE} and comment is not null",
        "a table that refers to it": f"duckdb_constraints() where {refers}",
    }
    notes = list(cast_types.in_comments(con, place))
    found = {
        what: con.execute(f"select 1 from {query}", [*place, notes] if what == "comments" else list(place)).fetchall()
        for what, query in queries.items()
    }
    return ", ".join(what for what, rows in found.items() if rows)


def _is_view(con: duckdb.DuckDBPyConnection, place: Sequence[str]) -> bool:
    return bool(con.execute(f"from duckdb_views() where {cast_types.PLACE.replace('table_', 'view_')}", place).fetchall())
