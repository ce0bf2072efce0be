"""How the text of a table is written, where its file name does not tell."""

from typing import Final, Literal, TypeAlias, get_args

import msgspec

Encoding: TypeAlias = Literal["utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "windows-1252"]
ENCODINGS: Final[tuple[Encoding, ...]] = get_args(Encoding)

#: Spellings of a missing value in files of others. An empty cell without quotes is a null of CSV itself.
USUAL_NULLS: Final = frozenset(
    {
        *("", "NULL", "null", "Null", "(null)", "NIL", "nil", "\\N", "-", "--", ".", "?"),
        *("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "None", "none"),
    }
)


class Dialect(msgspec.Struct, frozen=True):
    """``delimiter`` and ``encoding`` None: by the file's name, and by its first bytes (UTF-16 with a mark, else UTF-8).

    ``quoting`` False: a quote is a character like any other. ``nulls``: texts of cells that are nulls, and stay as they are.
    """

    delimiter: str | None = None
    encoding: Encoding | None = None
    quoting: bool = True
    nulls: tuple[str, ...] = ()


#: As files are by default.
PLAIN: Final = Dialect()
