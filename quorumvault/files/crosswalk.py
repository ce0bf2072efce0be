"""Writes the crosswalk of retokenize: a Parquet file of old and new tokens, each pair once, sorted by the old token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from quorumvault.files.columnar.answers import MEMORY_LIMIT

#: The epochs are parts of the tokens.
_CROSSWALK = """
    select distinct old_token, new_token,
        cast(split_part(old_token, '_', 2) as uinteger) as old_epoch, cast(split_part(new_token, '_', 2) as uinteger) as new_epoch
    from pairs order by old_token"""


def write_crosswalk(pairs: Sequence[Path], output: Path, spill: Path) -> None:
    """Writes ``output``. ``pairs``: files with lines OLD,NEW; a line may be in several files."""
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(spill / "crosswalk")}) as con:
        columns = {"old_token": "VARCHAR", "new_token": "VARCHAR"}
        names: Any = [str(path) for path in pairs]  # several paths, though the parameter's type says one
        lines = con.read_csv(names, header=False, columns=columns, auto_detect=False)
        con.register("pairs", lines)
        con.sql(_CROSSWALK).write_parquet(str(output))
