"""What a Parquet file tells pandas about the types of its columns: a cast column is told as text, and keeps a note to restore it.

pandas writes the types into an entry of the file's metadata, and a period into metadata of the field. With the old types it would
not read a column that has become text.
"""

from collections.abc import Collection
from typing import Any, Final

import msgspec
import pyarrow as pa

_PANDAS: Final = b"pandas"
_NOTE: Final = b"quorumvault.pandas"
_EXTENSION: Final = "ARROW:extension:"


class _Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """The types of a column as pandas has them, and the metadata of an extension type."""

    pandas_type: str = "unicode"
    numpy_type: str = "object"
    metadata: dict[str, Any] | None = None
    extension: dict[str, str] = {}


def told(schema: Any, cast: Collection[str], restored: Collection[str]) -> Any:
    """Returns a schema that tells pandas of ``cast`` columns that they are text, and of ``restored`` ones what they were."""
    metadata = dict(schema.metadata or {})
    try:
        notes = msgspec.json.decode(metadata.pop(_NOTE, b"{}"), type=dict[str, _Told])
        pandas = msgspec.json.decode(metadata.get(_PANDAS, b"{}"), type=dict[str, Any])
        entries = msgspec.convert(pandas.get("columns", []), list[dict[str, Any]])
    except (ValueError, RecursionError):  # another program's, or damaged
        return schema
    now = {name: notes.pop(name, _Told()) for name in restored} | dict.fromkeys(cast, _Told())
    fields = []
    for field in schema:
        own = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in (field.metadata or {}).items()}
        if field.name in cast:
            extension = {key: value for key, value in own.items() if key.startswith(_EXTENSION)}
            notes[field.name] = _Told(extension=extension)
            field = field.with_metadata({key: value for key, value in own.items() if key not in extension} or None)
        elif field.name in restored and now[field.name].extension:
            field = field.with_metadata(own | now[field.name].extension)
        fields.append(field)
    for entry in entries:
        name = str(entry.get("field_name", entry.get("name")))
        if name in cast:
            old = {key: entry.get(key) for key in ("pandas_type", "numpy_type", "metadata")}
            notes[name] = msgspec.convert(old | {"extension": notes[name].extension}, _Told)
        if name in cast or (name in restored and now[name] != _Told()):
            entry |= {key: getattr(now[name], key) for key in ("pandas_type", "numpy_type", "metadata")}
    if _PANDAS in metadata:
        metadata[_PANDAS] = msgspec.json.encode(pandas | {"columns": entries})
        metadata |= {_NOTE: msgspec.json.encode(notes)} if notes else {}
    return pa.schema(fields, metadata or None)
