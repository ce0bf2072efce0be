"""Whether the first line of a CSV file is a header: if its cells look like values, no error or report shows them.

A value is known by its form alone. A first line of plain words is taken for a header.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from quorumvault.crypto.tokens import is_token
from quorumvault.errors import ColumnError

#: Forms of identifiers, by what they are called.
FORMS: Final[Mapping[str, re.Pattern[str]]] = {
    "e-mail addresses": re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}"),
    "US social security numbers": re.compile(r"\d{3}-\d{2}-\d{4}"),
    "UUIDs": re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
    "IP addresses": re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-fA-F]{0,4}:){3,7}[0-9a-fA-F]{0,4}"),
    "MAC addresses": re.compile(r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}"),
    "IBANs": re.compile(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?"),
    "web addresses": re.compile(r"https?://\S+"),
    "phone numbers": re.compile(r"(?=(?:\D*\d){7,15}\D*\Z)(?!\d{4}-\d\d-\d\d)(?:\+[\d ()./-]+|\(?\d+[)]?[ ./-][\d ()./-]+)"),
}
INTEGER = re.compile(r"-?\d+")
#: Numbers with a fraction, dates and times, which are often distinct without being identifiers.
MEASURE = re.compile(
    r"-?\d+[.,]\d+(?:[eE][+-]?\d+)?"
    r"|\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?"
    r"|\d\d?[./]\d\d?[./]\d{2,4}"
)
#: Years are names of columns in a table that has one for each.
_YEAR: Final = re.compile(r"(?:19|20)\d\d")
#: Delimiters that a sole column may really have several values between.
LIKELY_DELIMITERS: Final = "\t;|,"
_WORDS: Final = (
    "its first line looks like data: has it a header? It is not shown, and CSV without a line of column names is not read"
)


def looks_like_value(name: str) -> bool:
    """Returns whether a column's name has the form of an identifier, a number, a date or a token."""
    text = name.strip()
    return is_token(text) or any(form.fullmatch(text) for form in (INTEGER, MEASURE, *FORMS.values()))


def looks_like_data(names: Sequence[str]) -> bool:
    """Returns whether one of the names of a table's columns looks like a value."""
    parts = names if len(names) != 1 else re.split(f"[{LIKELY_DELIMITERS}]", names[0])
    years = [part for part in parts if _YEAR.fullmatch(part)]
    return any(looks_like_value(part) for part in parts if len(years) < 2 or part not in years)


def require_header(names: Sequence[str], source: str) -> None:
    """Raises ColumnError, without a name, if the first line looks like data."""
    if looks_like_data(names):
        raise ColumnError(f"{source}: {_WORDS}")


def shown_names(names: Sequence[str]) -> list[str]:
    """The names for a report: of one that looks like a value, its place."""
    if not looks_like_data(names):
        return list(names)
    return [f"column {at} (its name looks like data)" if looks_like_value(name) else name for at, name in enumerate(names, 1)]
