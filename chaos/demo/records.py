"""The input of the demonstration: the caller's CSV file, or invented patients, and the columns to replace."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.testbed import sample
from chaos.testbed.table import Table

SEED, PATIENTS = 20_250_101, 1_000

#: The configured paths that are columns: $.name, $["name"] or $['name'].
_COLUMN_PATH = re.compile(r"""\$(?:\.(?P<name>[^.\[\]]+)|\[(?P<mark>['"])(?P<quoted>.*)(?P=mark)\])""")


class UsageError(Exception):
    """The caller asked for something that cannot be done; the message says what can."""


@dataclass(frozen=True, slots=True)
class Input:
    """The records. ``content``: the file's bytes. ``invented`` records are the demonstration's own, and may be shown."""

    path: Path
    content: bytes
    table: Table
    invented: bool


def read_input(path: Path) -> Input:
    """Reads the caller's file."""
    try:
        content = path.read_bytes()
        return Input(path.resolve(), content, Table.parse(content), invented=False)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: not CSV in UTF-8: {error}") from None


def invent_input(directory: Path) -> Input:
    """Invents records, for a run without a file."""
    content = sample.to_csv(sample.patients(SEED, PATIENTS))
    path = directory / "patients.csv"
    path.write_bytes(content)
    return Input(path, content, Table.parse(content), invented=True)


def check_columns(columns: Sequence[str], table: Table) -> Sequence[str]:
    missing = [column for column in columns if column not in table.header]
    if missing:
        raise UsageError(f"no column {', '.join(missing)}; {_column_list(table)}")
    return columns


def configured_columns(fields: Sequence[str], table: Table) -> Sequence[str]:
    """Returns the columns that the cluster's field configuration names, a list of JSONPath expressions."""
    matches = [match for path in fields if (match := _COLUMN_PATH.fullmatch(path))]
    names = {match["name"] or match["quoted"] for match in matches}
    columns = [column for column in table.header if column in names]
    if not columns:
        raise UsageError(f"no configured field ({', '.join(fields)}) is a column: name some with --column; {_column_list(table)}")
    return columns


def check_values(columns: Sequence[str], table: Table) -> None:
    """Raises an error if the columns have no values: without values every claim would hold."""
    if not any(table.cells(columns)):
        raise UsageError(f"no row has a value in {', '.join(columns)}: there is nothing to tokenize")


def _column_list(table: Table) -> str:
    return f"the file's columns are {', '.join(table.header)}"
