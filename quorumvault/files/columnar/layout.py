"""The layout of a Parquet file beside its rows: which properties an output takes from its source, and which it does not.

Bloom filters and page indexes are built anew from the output, not copied: those of the source would reveal its values.

Only DuckDB looks at column chunks: pyarrow ends the process if a damaged file describes a chunk that makes no sense.
"""

import glob
import math
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quorumvault.files.columnar.part_rows import Numbers, damaged
from quorumvault.files.sources import Source

#: Codecs that pyarrow's writer names otherwise than the file.
_CODECS: Final = {"UNCOMPRESSED": "NONE", "LZ4_RAW": "LZ4", "UNKNOWN": "SNAPPY"}
#: The false-positive rate of Bloom filters: pyarrow's default, since a file does not record it.
_FALSE_POSITIVES: Final = 0.05
#: Bits of a filter per distinct value at that rate (Putze et al., Cache-, Hash- and Space-Efficient Bloom Filters, 2009).
_FILTER_BITS: Final = -8 / math.log(1 - _FALSE_POSITIVES ** (1 / 8))
#: The bytes after the footer: its length, and PAR1.
_FILE_END: Final = 8
_CHUNKS: Final = """
    select row_group_id, column_id, compression, type, total_uncompressed_size as size, bloom_filter_length as filter,
        contains(encodings, 'DELTA_BYTE_ARRAY') as has_prefixes,
        not regexp_matches(encodings, 'DICTIONARY|DELTA|SPLIT') as is_plain,
        bloom_filter_offset is not null as has_filter, len(map_keys(key_value_metadata)) > 0 as has_metadata, greatest(
            least(data_page_offset, coalesce(nullif(dictionary_page_offset, 0), data_page_offset)) + total_compressed_size,
            bloom_filter_offset + coalesce(bloom_filter_length, 0)) as end
    from parquet_metadata(?) order by all"""


class Leaf(NamedTuple):
    """A column that Parquet stores: a column of the table, or a member of one. ``path`` has dots between names."""

    column: str
    path: str


class Layout:
    """The layout in the footer of the file at ``path``. For a damaged file, raises RunError or errors of pyarrow and DuckDB."""

    def __init__(self, source: Source, path: Path, metadata: Any, schema: Any, con: duckdb.DuckDBPyConnection) -> None:
        self._metadata = metadata
        self._schema = schema
        found = con.execute(_CHUNKS, [glob.escape(str(path))]).fetchnumpy()
        places = found["row_group_id"], found["column_id"]
        shape = metadata.num_row_groups, metadata.num_columns
        #: Bytes before compression, shape (row groups, leaves).
        self.sizes: Numbers = np.zeros(shape, np.int64)
        self.sizes[places] = found["size"]
        self._codecs = np.full(shape, "", object)
        self._codecs[places] = found["compression"]
        self._filters: Numbers = np.zeros(shape, np.int64)
        self._filters[places] = np.where(found["has_filter"], np.maximum(np.ma.filled(found["filter"], 0), 1), 0)
        self._types = np.full(shape, "", object)
        self._types[places] = found["type"]
        self._has_prefixes: Numbers = np.full(shape, False)
        self._has_prefixes[places] = np.ma.filled(found["has_prefixes"], False)
        self._is_plain: Numbers = np.full(shape, False)
        self._is_plain[places] = np.ma.filled(found["is_plain"], False)
        self._has_metadata = bool(np.ma.filled(found["has_metadata"], False).any())
        self._has_timestamps = any(_is_timestamp(metadata.schema.column(place)) for place in range(shape[1]))
        self._has_page_index = _has_more(path, int(np.ma.filled(found["end"], 0).max(initial=0)))
        self.leaves = [
            Leaf(name, metadata.schema.column(place).path) for place, name in zip(range(shape[1]), _columns(schema), strict=False)
        ]
        #: The sorting columns of the row groups; in most files they are the same for all groups.
        self._orders = {metadata.row_group(group).sorting_columns for group in range(metadata.num_row_groups)}
        if any(not 0 <= each.column_index < len(self.leaves) for order in self._orders for each in order):
            raise damaged(source)

    @property
    def int96(self) -> list[Leaf]:
        return [leaf for leaf, kinds in zip(self.leaves, self._types.T, strict=True) if "INT96" in kinds]

    @property
    def prefixed(self) -> set[str]:
        """Returns the columns encoded with DELTA_BYTE_ARRAY, which pyarrow does not read as dictionaries."""
        return {leaf.column for leaf, groups in zip(self.leaves, self._has_prefixes.T, strict=True) if groups.any()}

    def writer_options(self, schema: Any, replaced: Collection[str]) -> dict[str, Any]:
        """Returns options of pyarrow's writer for an output of this ``schema``, with other texts in the columns ``replaced``.

        Decimals keep the file's representation.
        """
        if not self._metadata.num_row_groups:
            return {}
        codecs = {leaf.path: _CODECS.get(codec, codec) for leaf, codec in zip(self.leaves, self._codecs[0], strict=True)}
        filters = {
            leaf.path: {"ndv": _distinct(int(size)) if size > 1 else self._most_rows(), "fpp": _FALSE_POSITIVES}
            for leaf, size in zip(self.leaves, self._filters.max(axis=0), strict=True)
            if size and leaf not in self._unfiltered()
        }
        sorting = self._sorting(schema, replaced)
        return {
            "compression": codecs,
            "store_decimal_as_integer": True,
            "use_deprecated_int96_timestamps": bool(self.int96) and not self._has_timestamps,
            "write_page_index": self._has_page_index,
            **({"bloom_filter_options": filters} if filters else {}),
            **({"sorting_columns": sorting} if sorting else {}),
        }

    def with_dictionary(self, schema: Any, repeated: Collection[str]) -> list[str]:
        """Returns the leaves of an output of this ``schema`` that get dictionaries: those of columns with one in the source.

        A source column without a dictionary has few repeated texts, or its writer wanted none, and trying costs more than all
        other work. ``repeated`` columns get a dictionary in any case, since their new texts may repeat more than the old ones.
        """
        coded = {leaf.column for leaf, groups in zip(self.leaves, self._is_plain.T, strict=True) if not groups.all()}
        plain = {leaf.column for leaf in self.leaves} - coded - set(repeated)
        return [path for path, name in zip(_paths(schema), _columns(schema), strict=True) if name not in plain]

    def not_kept(self, replaced: Collection[str]) -> list[str]:
        """Names the properties that no option of the writer can reproduce."""
        coded = [field.name for field in self._schema if field.name in replaced and pa.types.is_dictionary(field.type)]
        found = [f"Arrow's dictionary type of {name}: that of its texts" for name in coded]
        if not self._metadata.num_row_groups:
            return found
        for leaf, codecs in zip(self.leaves, self._codecs.T, strict=True):
            if len(set(codecs)) > 1:
                found.append(f"codecs of {leaf.path}, which differ by row group: {codecs[0]} in all")
            elif codecs[0] == "LZ4":
                found.append(f"codec of {leaf.path}, which is an LZ4 that nobody writes any more: LZ4_RAW")
        if self._has_timestamps:
            found += [f"INT96 of {leaf.path}, beside times of another type: TIMESTAMP" for leaf in self.int96]
        found += [f"bloom filter of {leaf.path}" for leaf in self._unfiltered()]
        if len(self._orders) > 1:
            found.append("sorting columns, which differ by row group")
        for order in self._orders if len(self._orders) == 1 else ():
            lost = [self.leaves[each.column_index].path for each in order[len(self._sorted(replaced)) :]]
            found += [f"sorting columns from {lost[0]} on"] if lost else []
        if self._has_metadata:
            found.append("metadata of columns in row groups")
        return found

    def _most_rows(self) -> int:
        rows = [int(self._metadata.row_group(group).num_rows) for group in range(self._metadata.num_row_groups)]
        return max(1, *rows)

    def _unfiltered(self) -> list[Leaf]:
        """Returns the leaves whose filters pyarrow cannot make."""
        types = zip(self.leaves, self._filters.max(axis=0), self._types[0], strict=True)
        return [leaf for leaf, size, kind in types if size and kind == "BOOLEAN"]

    def _sorted(self, replaced: Collection[str]) -> list[Any]:
        """Returns the sorting columns of all row groups before the first replaced one: tokens sort differently from values."""
        (order,) = self._orders if len(self._orders) == 1 else ((),)
        return list(takewhile(lambda each: self.leaves[each.column_index].column not in replaced, order))

    def _sorting(self, schema: Any, replaced: Collection[str]) -> list[Any]:
        """Returns the same sorting columns for an output, in which leaves may have other numbers."""
        columns = list(_columns(schema))
        made = []
        for each in self._sorted(replaced):
            column = self.leaves[each.column_index].column
            within = each.column_index - next(place for place, leaf in enumerate(self.leaves) if leaf.column == column)
            made.append(pq.SortingColumn(columns.index(column) + within, each.descending, each.nulls_first))
        return made


def _is_timestamp(leaf: Any) -> bool:
    """Returns whether a leaf has timestamps of another type than INT96."""
    return bool(leaf.logical_type.type == "TIMESTAMP" and leaf.physical_type != "INT96")


def _columns(schema: Any) -> Iterator[str]:
    """Yields the name of each leaf's column. Paths do not determine it, since a name may contain a dot."""
    for field in schema:
        yield from [field.name] * _leaves(field.type)


def _paths(schema: Any) -> list[str]:
    """Returns the paths of the leaves as pyarrow's writer names them: other writers name the leaves of lists differently."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema):
        pass
    found = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    return [found.column(place).path for place in range(len(found))]


def _leaves(kind: Any) -> int:
    """Counts the leaf columns that Parquet stores for this Arrow type."""
    return sum(_leaves(kind.field(place).type) for place in range(kind.num_fields)) or 1


def _distinct(size: int) -> int:
    """Returns the number of distinct values for which the writer makes a filter of ``size`` bytes.

    Filter sizes are powers of two. The header, which ``size`` includes, is smaller than any filter.
    """
    return max(1, int(0.9 * 8 * 2 ** int(math.log2(size)) / _FILTER_BITS))


def _has_more(path: Path, end: int) -> bool:
    """Returns whether there are bytes between the last chunk, or filter, and the footer: these can only be page indexes.

    Filters of unknown length, from older writers, count as an index: a superfluous index does no harm.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _FILE_END))
        footer = int.from_bytes(file.read(4), "little")
    return 0 < end < size - _FILE_END - footer


def row_groups_cut(before: int, after: int) -> Sequence[str]:
    """Names the change if row groups were too large to be written whole."""
    return [f"row groups: {before} became {after}, since some were larger than a run holds in memory"] if after > before else []
