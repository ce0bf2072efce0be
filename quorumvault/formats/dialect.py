"""How the text of a table is written, where its file name does not tell."""

from typing import Final, Literal, TypeAlias, get_args

import msgspec

Encoding: TypeAlias = Literal["utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "windows-1252"]
ENCODINGS: Final[tuple[Encoding, ...]] = get_args(Encoding)


class Dialect(msgspec.Struct, frozen=True):
    """``delimiter`` None: by the file's name. ``encoding`` None: by its first bytes (UTF-16 with a byte order mark, else UTF-8).

    ``quoting`` False: a quote is an ordinary character. ``nulls``: texts of cells that count as nulls, and stay as they are.
    """

    delimiter: str | None = None
    encoding: Encoding | None = None
    quoting: bool = True
    nulls: tuple[str, ...] = ()


#: The default dialect of a file.
PLAIN: Final = Dialect()
