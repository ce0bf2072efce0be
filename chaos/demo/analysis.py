"""The analyst's part of the demonstration: two Parquet tables, tokenized, joined in DuckDB, recovered, and migrated.

One table has people, the other their visits: invented for invented people, else made from the caller's own records. This process
joins and compares in DuckDB. Work that needs the package ``quorumvault`` runs as one of its commands, or as a line of Python in
another process.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet

from chaos.demo.records import PATIENTS, SEED, Input
from chaos.testbed import sample
from chaos.testbed.cluster import COMMAND_SECONDS, Cluster, environment
from chaos.testbed.narration import ClaimFailed, Narrator
from chaos.testbed.table import Table

#: The analyst's line of Python, which the demonstration shows, and runs for each table with its file, columns and output.
RECOVER = "qv.detokenize(duckdb.connect(), f\"from '{source}'\", columns).write_parquet(target)"
_RECOVER = f"""
import json, sys
import duckdb
import quorumvault as qv
for source, columns, target in json.loads(sys.argv[1]):
    {RECOVER}
"""
#: Reads a value from standard input and prints its tokens of every epoch: any process could read a value in the arguments.
_ALL_EPOCHS = """
import json, sys
import quorumvault as qv
json.dump(qv.tokens_all_epochs(json.load(sys.stdin)), sys.stdout)
"""


class Part(NamedTuple):
    """A table: its file name, all its columns, and the columns with identifiers."""

    file: str
    columns: Sequence[str]
    identifiers: Sequence[str]


class Tables(NamedTuple):
    """People and visits. A visit belongs to the person whose ``key`` equals its ``reference``."""

    people: Part
    visits: Part
    key: str
    reference: str

    @property
    def parts(self) -> tuple[Part, Part]:
        return self.people, self.visits


@dataclass(frozen=True, slots=True)
class Desk:
    """The analyst's desk: tables in folders, and the keys of two owners of one cluster."""

    cluster: Cluster
    tell: Narrator
    directory: Path
    owner: str
    other: str
    tables: Tables
    con: duckdb.DuckDBPyConnection

    def folder(self, name: str) -> Path:
        made = self.directory / name
        made.mkdir(exist_ok=True)
        return made

    def command(self, *arguments: str, expected: int = 0) -> bytes:
        """Runs a command through n1. Returns its standard output."""
        done = self.cluster.command(*arguments, via="n1", owner=self.owner)
        if done.returncode != expected:
            words = done.stderr.decode(errors="replace").strip()
            raise ClaimFailed(f"quorumvault {arguments[0]} ends with exit code {expected}", f"{done.returncode}: {words}")
        return done.stdout

    def python(self, script: str, *arguments: str, owner: str, given: str = "", key: str | None = None) -> str:
        """Runs Python with the package installed, as this owner, with ``key`` if given. Returns its standard output."""
        variables = self.cluster.variables(owner) | ({} if key is None else {"QUORUMVAULT_API_KEY": key})
        done = subprocess.run(
            [sys.executable, "-I", "-c", script, *arguments],
            input=given,
            capture_output=True,
            text=True,
            env=environment(**variables),
            cwd=self.directory,  # DuckDB spills there
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise ClaimFailed("the analyst's line of Python runs", f"exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def recover(self, parts: Sequence[Part], source: Path, target: Path, owner: str) -> None:
        """Recovers the values of tables in ``source`` into ``target``, two folders."""
        asked = [(str(source / part.file), part.identifiers, str(target / part.file)) for part in parts]
        self.python(_RECOVER, json.dumps(asked), owner=owner)

    def rows(self, query: str, *given: object) -> list[tuple[Any, ...]]:
        return self.con.execute(query, given).fetchall()

    def one(self, query: str) -> Any:
        ((value,),) = self.rows(query)
        return value

    def count(self, source: str) -> int:
        return int(self.one(f"select count(*) from ({source})"))

    def differing(self, one: str, other: str) -> int:
        """Returns the number of rows that only one of two queries returns."""
        return self.count(f"from (({one}) except all ({other})) union all from (({other}) except all ({one}))")

    def pairs(self, people: Path, visits: Path, crosswalk: Path | None = None) -> str:
        """Returns the query that pairs visits with their people, by their positions in the files."""
        reference, by = f"v.{_name(self.tables.reference)}", ""
        if crosswalk is not None:
            by = f"left join {_text(crosswalk)} x on x.old_token = {reference}"
            reference = f"coalesce(x.new_token, {reference})"
        return f"""
            select p.file_row_number as person, v.file_row_number as visit
            from read_parquet({_text(visits)}, file_row_number = true) v {by}
            join read_parquet({_text(people)}, file_row_number = true) p on p.{_name(self.tables.key)} = {reference}"""


def lay_out(records: Input, columns: Sequence[str], directory: Path) -> Tables:
    """Writes both tables as Parquet into ``directory``, with text in every column and null where a cell is empty."""
    directory.mkdir(parents=True)
    if records.invented:
        patients = sample.patients(SEED, PATIENTS)
        visits = Table.parse(sample.to_csv(sample.encounters(SEED, patients)))
        tables = Tables(
            Part("patients.parquet", records.table.header, ("Id", *columns)),
            Part("encounters.parquet", visits.header, ("PATIENT",)),
            key="Id",
            reference="PATIENT",
        )
    else:
        # DuckDB ignores the case of names.
        chosen = list({column.lower(): column for column in columns}.values())
        key = max(chosen, key=lambda column: len(set(records.table.cells([column]))))
        persons = sorted(filter(None, set(records.table.cells([key]))))
        rows = [[f"{person}-{visit}", value] for person, value in enumerate(persons) for visit in range(person % 3 + 1)]
        visits = Table(["visit", "person"], rows)
        tables = Tables(Part("people.parquet", chosen, chosen), Part("visits.parquet", visits.header, ("person",)), key, "person")
    for part, table in zip(tables.parts, (records.table, visits), strict=True):
        texts = [pa.array([cell or None for cell in table.cells([column])], pa.string()) for column in part.columns]
        pyarrow.parquet.write_table(pa.table(texts, names=list(part.columns)), directory / part.file)
    return tables


def analyse(cluster: Cluster, tell: Narrator, directory: Path, owner: str, other: str, tables: Tables) -> None:
    """Runs all of the analyst's steps. ``directory`` has the tables that ``lay_out`` wrote in its folder "plain"."""
    with duckdb.connect(config={"temp_directory": str(directory / "spill")}) as con:
        desk = Desk(cluster, tell, directory, owner, other, tables, con)
        tokenize(desk)
        recover(desk)
        migrate(desk)


def tokenize(desk: Desk) -> None:
    people, visits = desk.tables.parts
    plain, tokens = desk.folder("plain"), desk.folder("tokens")
    desk.tell.step(f"An analyst's tables, {people.file} and {visits.file}: tokenized, and joined in DuckDB")
    for part in desk.tables.parts:
        desk.command("tokenize", str(plain / part.file), "--column", ",".join(part.identifiers), "-o", str(tokens / part.file))
    on_values = desk.pairs(plain / people.file, plain / visits.file)
    on_tokens = desk.pairs(tokens / people.file, tokens / visits.file)
    differing, count = desk.differing(on_values, on_tokens), desk.count(f"from ({on_values})")
    text = f"joined on tokens, {_key(desk)}, they make {count:,} pairs: the very pairs that they made with the values"
    desk.tell.claim(text, differing == 0 < count, f"{differing:,} other pairs")


def recover(desk: Desk) -> None:
    tell, plain, tokens = desk.tell, desk.folder("plain"), desk.folder("tokens")
    tell.step("The values come back in DuckDB, to who has the key")
    tell.say(RECOVER)
    _claim_recovered(desk, tokens, "each token has its value back, in its place")
    people = desk.tables.people
    target = desk.folder("other") / people.file
    desk.recover([people], tokens, target.parent, desk.other)
    cells = sum(
        desk.count(f"from {_text(plain / people.file)} where {_name(column)} is not null") for column in people.identifiers
    )
    told = [
        f"select {_name(column)} as value from {_text(target)} where {_name(column + '_status')} = 'not_found'"
        for column in people.identifiers
    ]
    found, values = (desk.one(f"select {wanted} from ({' union all '.join(told)})") for wanted in ("count(*)", "count(value)"))
    tell.claim(
        f"the same line with the key of {desk.other!r}: {found:,} tokens, all of them not_found, and no value",
        (found, values) == (cells, 0),
        f"{found:,} of {cells:,} not found, {values:,} values",
    )


def migrate(desk: Desk) -> None:
    cluster, tell, tables = desk.cluster, desk.tell, desk.tables
    plain, tokens, extract = desk.folder("plain"), desk.folder("tokens"), desk.folder("extract") / tables.visits.file
    crosswalk, files = desk.directory / "crosswalk.parquet", str(tokens / "*.parquet")
    tell.step("The epoch is rotated again, and the tables move to it")
    shutil.copyfile(tokens / tables.visits.file, extract)
    old = int(cluster.api("n1", desk.owner).get("/epoch").body["active_epoch"])
    new = int(cluster.api("n1", desk.owner).post("/rotate-epoch", {"from_epoch": old}).body["active_epoch"])
    before = _census(desk.command("census", files, "--json"))
    count = sum(before.values())
    tell.claim(f"census: {count:,} tokens in the two files, all of epoch {old}", set(before) == {old}, f"epochs {sorted(before)}")
    desk.command("census", files, "--require-epoch", str(new), expected=4)
    desk.command("migrate", files, "--in-place", "--crosswalk", str(crosswalk))
    after = _census(desk.command("census", files, "--json", "--require-epoch", str(new)))
    tell.claim(f"migrated in place, they are all of epoch {new}", after == {new: count}, f"tokens by epoch: {after}")
    _claim_recovered(desk, tokens, "and stand for the same values")
    on_values = desk.pairs(plain / tables.people.file, plain / tables.visits.file)
    across = desk.pairs(tokens / tables.people.file, extract, crosswalk)
    moved = desk.count(f"from {_text(crosswalk)}")
    tell.claim(
        f"{tables.visits.file} as it was before joins them through the crosswalk ({moved:,} old and new tokens): the same pairs",
        desk.differing(on_values, across) == 0,
        f"{desk.differing(on_values, across):,} other pairs",
    )
    _claim_found_without_moving(desk, plain / tables.visits.file, extract, new)


def _claim_found_without_moving(desk: Desk, plain: Path, extract: Path, epoch: int) -> None:
    reference = _name(desk.tables.reference)
    value = desk.one(f"select {reference} from {_text(plain)} where {reference} is not null limit 1")
    key = desk.cluster.make_key(desk.owner, "derive")
    issued = json.loads(desk.python(_ALL_EPOCHS, owner=desk.owner, given=json.dumps(value), key=key))
    wanted = (
        f"select file_row_number from read_parquet(%s, file_row_number = true) where list_contains(?, {reference}) order by all"
    )
    there = desk.rows(wanted % _text(extract), issued)
    desk.tell.claim(
        f"a key that may derive: tokens_all_epochs gives {len(issued)} tokens of a person, and finds there each visit of it: "
        f"{len(there):,}",
        len(issued) == epoch and there == desk.rows(wanted % _text(plain), [value]),
        f"{len(issued)} tokens, {len(there):,} visits",
    )


def _claim_recovered(desk: Desk, folder: Path, text: str) -> None:
    """Claims that both tables are recovered, row by row and in order."""
    recovered, differing = desk.folder("recovered"), 0
    desk.recover(desk.tables.parts, folder, recovered, desk.owner)
    for part in desk.tables.parts:
        columns = ", ".join(map(_name, part.columns))
        one, other = (
            f"select file_row_number, {columns} from read_parquet({_text(made / part.file)}, file_row_number = true)"
            for made in (desk.folder("plain"), recovered)
        )
        differing += desk.differing(one, other)
    desk.tell.claim(text, differing == 0, f"{differing:,} other rows")


def _census(output: bytes) -> dict[int, int]:
    """Returns the number of tokens by epoch."""
    return {int(epoch): count for epoch, count in json.loads(output)["epochs"].items()}


def _key(desk: Desk) -> str:
    return f"{desk.tables.key} = {desk.tables.reference}"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
