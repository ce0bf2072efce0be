"""DuckDB alone: copies a table with values from a local table in place of tokens, in row order.

    python bench/files/alone.py INPUT.parquet VALUES.duckdb OUTPUT.parquet

This is the baseline. It uses no vault, since the values are in a table beside the file.
"""

import sys
from pathlib import Path

import duckdb


def copy(source: Path, values: Path, output: Path) -> None:
    """Makes the copy. ``values``: a database with a table ``known`` of ``token`` and ``value``. Spills beside ``output``."""
    with duckdb.connect() as con:
        con.execute("set temp_directory = $folder", {"folder": str(output.parent / "spill")})
        con.execute(f"attach {_text(values)} as vault (read_only)")
        con.execute(
            f"""
            copy (
                select i.id, known.value as token, i.amount
                from read_parquet({_text(source)}, file_row_number = true) i left join vault.known on i.token = known.token
                order by i.file_row_number
            ) to {_text(output)} (format parquet)
            """
        )


def _text(path: Path) -> str:
    """Returns a path as a SQL literal."""
    return "'" + str(path).replace("'", "''") + "'"


if __name__ == "__main__":
    copy(*map(Path, sys.argv[1:]))
