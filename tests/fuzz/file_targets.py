"""Files with values: any bytes give a table or an error with its place, and tokenized values come back unchanged."""

import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from quorumvault.crypto import canonical
from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import format_tokens
from quorumvault.errors import QuorumVaultError
from quorumvault.files.answers import CellAnswer, CellValue
from quorumvault.files.job import Job
from quorumvault.files.run import run
from quorumvault.files.sources import Format
from quorumvault.files.text.engine import TextSource, open_table
from quorumvault.files.text.rows import Converter, convert_rows
from quorumvault.formats.table import RowPlace
from quorumvault.model import Owner
from tests.fuzz.canaries import VALUE
from tests.fuzz.mutation import mutate
from tests.fuzz.target import InProcess, Violation
from tests.rigs.tables import desk, job

_CSV_WORDS = (
    b'"', b'""', b",", b"\r\n", b"\n", b"\r", b"\n\n", b'"\n"', b"\xef\xbb\xbf", b"\xff", b"\0", b" ", b"name", b'",',
    b"\xe2\x80\xa8",
)  # fmt: skip
_CSV_CELLS = (b"a", b'"b"', b'""', b"", b'"c""d"', b'"e,\r\nf"', VALUE.encode(), b" g ", "h\u00e9".encode(), b"qv_1_" + b"a" * 48)
_JSON_WORDS = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r\n", b"\xef\xbb\xbf", b"\xff", b"\0", b"null", b"1.0", b"-0"),
    *(b'"\\ud800"', b'"\\u00e9"', b'{"name":1}\n', b'"name":', b"[" * 70, b"9" * 5000, b" \t", b'"name":"x","name":"y"'),
)
_JSON_VALUES = (
    b'"a"', b'"\\u00e9"', b"42", b"-0", b"true", b"null", b"1.5", b"{}", b'["x"]', b'""', b'"\\""', b'"%b"' % VALUE.encode(),
)  # fmt: skip
_MISMATCH = "what was tokenized and detokenized is not what it was"


class Memory:
    """Implements Lookup for both directions: tokens of one key, and their values."""

    def __init__(self) -> None:
        self._keys = Keyring("s1", bytes(32)).epoch_keys(Owner("clinic"), 1)
        self._values: dict[str, bytes] = {}

    def tokenize(self, values: Sequence[CellValue]) -> list[CellAnswer]:
        return [self._token(value) for value in values]

    def _token(self, value: CellValue) -> CellAnswer:
        form = canonical.from_json(bytes(value)) if isinstance(value, msgspec.Raw) else canonical.from_str(value)
        if form is None:
            return CellAnswer("not_tokenizable")
        (token,) = format_tokens(1, self._keys.digests([form]))
        self._values[token] = form
        return CellAnswer("ok", token)

    def detokenize(self, tokens: Sequence[CellValue]) -> list[CellAnswer]:
        return [self._value(token) for token in tokens if isinstance(token, str)]

    def _value(self, token: str) -> CellAnswer:
        form = self._values.get(token)
        if form is None:
            return CellAnswer("not_found")
        return CellAnswer("ok", msgspec.Raw(msgspec.json.encode(canonical.to_json(form))))


class TextFiles(InProcess):
    """CSV and JSON Lines, converted as the commands do."""

    form: ClassVar[Format]

    def check_one(self, data: bytes) -> str:
        memory = Memory()
        try:
            tokens = self._converted(data, memory.tokenize, job_of("tokenize"))
        except QuorumVaultError as error:
            return type(error).__name__
        back = self._converted(tokens, memory.detokenize, job_of("detokenize"))
        self.compare(data, back)
        return "converted"

    def _converted(self, data: bytes, look_up: Any, given: Job) -> bytes:
        table = open_table(given, io.BytesIO(data), TextSource("FILE", self.form), ["name"], ())
        converter = Converter(given, table, "FILE", look_up)
        rows = convert_rows(table, converter, RowPlace(), lambda place: False)
        return table.header() + b"".join(batch.text for batch in rows)

    def compare(self, before: bytes, after: bytes) -> None:
        """Raises Violation."""


def job_of(operation: Any) -> Job:
    return Job(operation=operation, sources=(), output=None, columns=("name",), if_token="keep", typed=True)


class Csv(TextFiles):
    form = "csv"

    def make(self, rng: Random) -> bytes:
        end = rng.choice((b"\n", b"\r\n"))
        names = rng.choice(([b"name"], [b"id", b"name"], [b'"name"', b"x", b"y"]))
        rows = [names] + [[rng.choice(_CSV_CELLS) for _ in names] for _ in range(rng.choice((0, 1, 3, 10)))]
        whole = end.join(b",".join(row) for row in rows) + rng.choice((b"", end))
        return mutate(rng, whole, _CSV_WORDS) if rng.random() < 0.8 else whole

    def compare(self, before: bytes, after: bytes) -> None:
        if after != before:
            raise Violation(_MISMATCH)


class JsonLines(TextFiles):
    form = "jsonl"

    def make(self, rng: Random) -> bytes:
        lines = [
            b'{"id": %d, "name": %b, "rest": {"a": [1.10, "%b"]}}' % (number, rng.choice(_JSON_VALUES), VALUE.encode())
            for number in range(rng.choice((1, 1, 3, 10)))
        ]
        whole = rng.choice((b"\n", b"\r\n")).join(lines) + rng.choice((b"", b"\n"))
        return mutate(rng, whole, _JSON_WORDS) if rng.random() < 0.8 else whole

    def compare(self, before: bytes, after: bytes) -> None:
        """Expects the same records. -0 becomes 0 once it was a value."""
        if [_record(line) for line in before.split(b"\n")] != [_record(line) for line in after.split(b"\n")]:
            raise Violation(_MISMATCH)


def _record(line: bytes) -> Any:
    text = line.removeprefix(b"\xef\xbb\xbf").strip()
    if not text:
        return None
    record = json.loads(text, parse_int=lambda digits: ("integer", digits), parse_float=lambda digits: ("float", digits))
    if record.get("name") == ("integer", "-0"):
        record["name"] = ("integer", "0")
    return record


class ParquetFiles(InProcess):
    """Parquet, through a whole run over a vault in memory."""

    def open(self, stack: ExitStack) -> None:
        self._desk = stack.enter_context(desk())
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def make(self, rng: Random) -> bytes:
        rows = [rng.choice((VALUE, "a", "é", "", None)) for _ in range(rng.choice((0, 1, 5, 20)))]
        kind = rng.choice((pa.utf8(), pa.large_utf8(), pa.dictionary(pa.int32(), pa.utf8())))
        table = pa.table({"name": pa.array(rows, kind), "n": pa.array(range(len(rows)), pa.int64())})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=4, compression=rng.choice(("none", "snappy", "zstd")))
        whole = bytes(sink.getvalue())
        return mutate(rng, whole) if rng.random() < 0.95 else whole

    def check_one(self, data: bytes) -> str:
        shutil.rmtree(self._folder)
        self._folder.mkdir()
        source, tokens, back = (self._folder / name for name in ("in.parquet", "tokens.parquet", "back.parquet"))
        source.write_bytes(data)
        self._desk.rig.vault.asked.clear()
        self._desk.rig.events.written.clear()
        try:
            run(job(source, tokens), self._desk.client)
        except QuorumVaultError as error:
            return type(error).__name__
        run(job(tokens, back, "detokenize"), self._desk.client)
        if not _column(back).equals(_column(source)):
            raise Violation(_MISMATCH)
        return "converted"


def _column(path: Path) -> Any:
    return pq.read_table(path, columns=["name"]).column("name").cast(pa.large_utf8()).combine_chunks()
