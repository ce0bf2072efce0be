"""Spark: exchanges tokens and values in a DataFrame's columns. The workers look each distinct text up once.

    import quorumvault as qv
    qv.spark.detokenize(df, "patient_ssn", key_file="/run/secrets/quorumvault.key").write.parquet("claims-with-values")

    df -> distinct texts of the columns -> mapInArrow: a client in each partition (arrow.py) -> local checkpoint
    df -> left join with that

No row passes through the driver. The function looks the distinct texts up while it runs, so errors are raised there. The answers
stay in the executors' block stores (which then hold values, in memory and on disk) as long as the returned DataFrame is
referenced. The rows are joined when an action asks for them, in no particular order.

So Spark evaluates ``df`` twice: for its texts, and for its rows. A ``df`` that gives other rows the second time (such as a sample
of unordered rows) has texts that were not looked up, and raises. ``df.localCheckpoint()`` fixes its rows.

The API key never enters Spark's plans, broadcasts or event logs: each worker reads it from ``key_file``, a path on its own
machine, or from its environment (QUORUMVAULT_API_KEY).
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.errors import PythonException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 - the customary name
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StringType

from quorumvault import errors
from quorumvault.analytics.arrow import look_up
from quorumvault.analytics.columns import TableOperation, require_status_free, status_name
from quorumvault.client import Client, ClientPolicy
from quorumvault.client.policy import EPOCH_PASSES
from quorumvault.client.settings import read_key
from quorumvault.errors import ColumnError, EpochMoved, QuorumVaultError

#: Partitions that ask at once, with six requests each (arrow.py). Three nodes take 64 each, and far fewer keep them busy.
WORKERS = 8
#: Distinct texts that a worker holds at once: enough to fill each of its requests to a node's limit.
_WINDOW_ROWS = 100_000
#: Rows of an output batch: values of the largest size, 64 KiB, stay below the 2 GiB of Arrow's utf8.
_BATCH_ROWS = 10_000
_SCHEMA = pa.schema([("text", pa.utf8()), ("result", pa.utf8()), ("status", pa.utf8())])
#: The last line of a traceback of this package's errors: Spark passes on only text. Rows of a DataFrame have no numbers.
_OUR_ERROR = re.compile(r"^quorumvault\.errors\.(\w+): (?:item \d+: )?(.*)$", re.MULTILINE)
#: Errors that are raised again by class; other classes have no constructor that takes only a text.
_PASSED_ON: dict[str, type[QuorumVaultError]] = {
    kind.__name__: kind
    for kind in (
        *(errors.AlreadyTokenized, errors.NotPermitted, errors.NoQuorum, errors.TokenCollision, errors.Unauthenticated),
        *(errors.Unreachable, errors.ValueTooLarge, EpochMoved, errors.UnexpectedAnswer),
    )
}
_LOST = "a text was not looked up: the DataFrame gave other rows when it was evaluated again; use df.localCheckpoint()"


def detokenize(
    df: DataFrame,
    columns: str | Sequence[str],
    *,
    urls: str | Sequence[str] | None = None,
    key_file: str | None = None,
    purpose: str | None = None,
    cacert: str | None = None,
    client_cert: str | None = None,
    policy: ClientPolicy | None = None,
    workers: int = WORKERS,
) -> DataFrame:
    """Returns the rows of ``df`` with values in place of the tokens in ``columns`` (strings), in no particular order.

    Adds a column NAME_status beside each: ``ok``, ``null``, ``not_found``, ``not_token`` (other text, which is never sent), or
    ``not_text`` (the value is a number or a boolean). The value is null unless the status is ``ok``. ``urls``, ``key_file``,
    ``purpose``, ``cacert``, ``client_cert``, ``policy``: see quorumvault.Client; files and environment are those of the workers.
    ``workers``: the partitions that ask the nodes at once.

    Raises ColumnError, and the client's errors in a worker: an outage is never null.
    """
    names, connection = _plan(df, columns, statuses=True), _Connection(urls, key_file, purpose, cacert, client_cert, policy)
    return _joined(df, names, _looked_up(df, names, "detokenize", connection, workers), True)


def tokenize(
    df: DataFrame,
    columns: str | Sequence[str],
    *,
    urls: str | Sequence[str] | None = None,
    key_file: str | None = None,
    purpose: str | None = None,
    cacert: str | None = None,
    client_cert: str | None = None,
    policy: ClientPolicy | None = None,
    workers: int = WORKERS,
) -> DataFrame:
    """Returns the rows of ``df`` with tokens, all of one epoch, in place of the strings in ``columns``. Null stays null.

    Make other columns strings first, in the spelling you want: ``df.withColumn("zip", lpad("zip", 5, "0"))``.
    Arguments and errors: see ``detokenize``.
    """
    names, connection = _plan(df, columns, statuses=False), _Connection(urls, key_file, purpose, cacert, client_cert, policy)
    return _joined(df, names, _looked_up(df, names, "tokenize", connection, workers), False)


@dataclass(frozen=True, slots=True)
class _Connection:
    """The settings with which a worker reaches the nodes. They travel in a Spark task's closure, so they contain no key."""

    urls: str | Sequence[str] | None
    key_file: str | None
    purpose: str | None
    cacert: str | None
    client_cert: str | None
    policy: ClientPolicy | None

    def open(self) -> Client:
        key = None if self.key_file is None else read_key(self.key_file)
        return Client(
            self.urls, api_key=key, purpose=self.purpose, cacert=self.cacert, client_cert=self.client_cert, policy=self.policy
        )


def _plan(df: DataFrame, columns: str | Sequence[str], statuses: bool) -> list[str]:
    """Returns the names of the columns to replace. Raises ColumnError."""
    names = [columns] if isinstance(columns, str) else list(columns)
    if not names:
        raise ColumnError("name one column or more")
    kinds = {field.name: field.dataType for field in df.schema.fields}
    folded = {name.lower() for name in kinds}  # by default Spark ignores the case of names
    if len(folded) < len(df.columns):
        raise ColumnError("two columns of the DataFrame have one name: give one of them another")
    for name in names:
        if name not in kinds:
            raise ColumnError(f"the DataFrame has no column {name}; it has {', '.join(df.columns)}")
        if not isinstance(kinds[name], StringType):
            raise ColumnError(f"column {name} is {kinds[name].simpleString()}, and only strings are looked up: cast it first")
    if statuses:
        require_status_free("the DataFrame", names, kinds)
    return names


def _looked_up(
    df: DataFrame, names: Sequence[str], operation: TableOperation, connection: _Connection, workers: int
) -> DataFrame:
    """Returns a row for each distinct text in these columns, kept by the executors: ``text``, ``result``, ``status``."""
    texts = _texts(df, names[0])
    for name in names[1:]:
        texts = texts.union(_texts(df, name))
    asked = texts.distinct().coalesce(workers).mapInArrow(_asker(operation, connection), from_arrow_schema(_SCHEMA))
    for _ in range(EPOCH_PASSES):
        with contextlib.suppress(EpochMoved):
            found = _kept(asked)
            if operation == "detokenize" or _epochs(found) < 2:
                return found
    raise EpochMoved


def _texts(df: DataFrame, name: str) -> DataFrame:
    return df.select(_text(name).alias("text")).where("text is not null")


def _text(name: str) -> Column:
    """Returns a column's texts, compared as bytes, whatever collation the column has."""
    return F.collate(_column(name), "UTF8_BINARY")


def _column(name: str) -> Column:
    return F.col("`" + name.replace("`", "``") + "`")


def _asker(operation: TableOperation, connection: _Connection) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Returns the function that looks up the record batches of one partition. Spark's plans show the function's name."""

    def quorumvault(batches: Iterable[Any]) -> Iterator[Any]:
        texts = (batch.column(0) for batch in batches)
        with connection.open() as vault:
            for window in look_up(vault, operation, texts, window_rows=_WINDOW_ROWS):
                for start in range(0, window.num_rows, _BATCH_ROWS):
                    yield window.slice(start, _BATCH_ROWS).cast(_SCHEMA)

    return quorumvault


def _kept(asked: DataFrame) -> DataFrame:
    """Evaluates ``asked`` once, now. Spark frees the result when nothing refers to it. Raises the errors of workers."""
    try:
        return asked.localCheckpoint()
    except PythonException as error:
        ours = _OUR_ERROR.findall(str(error))
        if not ours:
            raise
        name, words = ours[-1]
        raise _PASSED_ON.get(name, QuorumVaultError)(words) from None


def _epochs(found: DataFrame) -> int:
    """Counts the epochs of the tokens. A partition has one epoch, but a rotation may come between two partitions."""
    return int(found.select(F.substring_index("result", "_", 2)).distinct().count())


def _joined(df: DataFrame, names: Sequence[str], found: DataFrame, statuses: bool) -> DataFrame:
    """Returns the columns of ``df`` in order, with the answers in the named ones. A text without an answer raises."""
    rows, selected = df, {name: [_column(name)] for name in df.columns}
    for place, name in enumerate(names):
        text, result, status = (f"quorumvault {part} {place}" for part in found.columns)
        rows = rows.join(found.toDF(text, result, status), _text(name) == _column(text), "left")
        lost = _column(name).isNotNull() & _column(status).isNull()
        answered = F.when(lost, F.raise_error(_LOST)).otherwise(_column(result))
        selected[name] = [answered.alias(name)]
        if statuses:
            told = F.when(_column(name).isNull(), "null").when(lost, F.raise_error(_LOST)).otherwise(_column(status))
            selected[name].append(told.alias(status_name(name)))
    return rows.select(*(column for columns in selected.values() for column in columns))
