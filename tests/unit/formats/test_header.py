"""A first line that looks like data is never shown."""

import io
from collections.abc import Callable

import pytest

from quorumvault.crypto.tokens import format_token
from quorumvault.errors import ColumnError
from quorumvault.formats.csv import COMMAS, CsvTable
from quorumvault.formats.header import looks_like_data, shown_names
from quorumvault.formats.lines import Lines

HEADERS = [
    ("id", "ssn", "given name", "zip_5", "2 of 3", "", "diagnosis (ICD-10)"),
    ("id", "2019", "2020", "2021"),
    ("Körpergröße, cm",),
]
DATA = [
    ("1", "Ann", "Berlin"),
    ("Ann", "123-45-6789"),
    ("Ann", " 1970-01-31 "),
    ("ann@example.org", "x"),
    ("Ann", "+49 30 1234567"),
    ("Ann", "1987", "x"),
    ("Ann", "1987", "1.5", "1988"),
    ("x", format_token(1, bytes(20))),
    ("Ann;123-45-6789",),
]


@pytest.mark.parametrize("names", HEADERS)
def test_names_of_columns_are_shown(names: tuple[str, ...]) -> None:
    assert not looks_like_data(names)
    assert shown_names(names) == list(names)


@pytest.mark.parametrize("names", DATA)
def test_values_are_not(names: tuple[str, ...]) -> None:
    table = CsvTable(Lines(io.BytesIO(",".join(names).encode()), "n.csv"), COMMAS)
    asks: tuple[Callable[[], None], ...] = (
        lambda: table.select_named(["ssn"]),
        lambda: table.select_configured(["$.ssn"]),
        lambda: table.leave([], only_listed=True),
    )
    for ask in asks:
        with pytest.raises(ColumnError) as caught:
            ask()
        assert str(caught.value).startswith("n.csv: its first line looks like data: has it a header?")
        assert not any(name in str(caught.value) for name in names if len(name) > 1)


def test_columns_that_are_left_are_told_by_their_places() -> None:
    table = CsvTable(Lines(io.BytesIO(b"1,123-45-6789,x\n"), "n.csv"), COMMAS)
    table.select_named(["1"])
    table.leave([], only_listed=False)
    assert table.left == ("column 2 (its name looks like data)", "x")
