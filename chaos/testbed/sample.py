"""Invented patients and their encounters, as CSV, for the demonstration and the tests. The same seed gives the same bytes.

The columns are those of common health data extracts, and the values are chosen to be hard: leading zeros, names in several
scripts and in both Unicode forms, quotes, commas and line breaks within a cell, empty cells (null) beside empty strings
(``""``). Numbers of the form 9xx-xx-xxxx are never issued as social security numbers.
"""

import random
import unicodedata
import uuid
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

Cell = str | None


class Patient(NamedTuple):
    Id: str
    BIRTHDATE: str
    SSN: str
    DRIVERS: Cell
    PASSPORT: Cell
    FIRST: str
    LAST: str
    MAIDEN: Cell
    ADDRESS: str
    CITY: str
    STATE: str
    ZIP: Cell


class Encounter(NamedTuple):
    Id: str
    START: str
    PATIENT: str  # a patient's Id
    CODE: str
    DESCRIPTION: str
    COST: str


#: The columns of a patient that identify a person.
IDENTIFIERS: Final = ("SSN", "DRIVERS", "PASSPORT", "FIRST", "LAST", "MAIDEN", "ADDRESS", "BIRTHDATE", "ZIP")

_FIRST = (
    "Ada", "Amélie", "Björn", "Chidi", "Dilnoza", "Eoghan", "Fatoumata", "Gül", "Hanneke", "Iñaki", "Jürgen", "Kwame",
    "Łucja", "María José", "Ngọc", "Øyvind", "Priya", "Rhys", "Siobhán", "Þóra", "Žofie", "Ελένη", "Наталья", "美咲", "수빈",
)  # fmt: skip
_LAST = (
    "Abara", "Bergström", "Castañeda", "D'Amico", "El-Sayed", "Fjeldstad", "Großmann", "Hâncu", "Ivanov", "Jørgensen",
    "Kowalczyk", "Lefèvre", "Müller-Lüdenscheidt", "Nguyễn", "O'Brien", "Pérez", "Quispe", "Rösch", "Smith", "Tūhoe",
    "van der Merwe", "Wójcik", "Yılmaz", "Παππάς", "佐藤",
)  # fmt: skip
_STREETS = ("Alder Row", "Brook Street", "Cooper's Lane", "Dock Road", "Elm Avenue", "Harbour View", "Mill Hill", "Old Toll Road")
_HOUSES = ('"The Gables"', '"Mill House"', "Flat 2, Rear Building", "c/o Jones, Smith & Sons", "Unit 7\nSecond Floor", "Apt. #4")
_PLACES = (
    ("Aldermere", "MA", "01"), ("Brookhaven Falls", "NH", "03"), ("Coldwater", "NJ", "07"), ("Dunmore", "CT", "06"),
    ("Eastwick", "ME", "04"), ("San Telmo", "PR", "00"), ("Fallbridge", "NY", "12"),
)  # fmt: skip
_REASONS = (
    ("185345009", "Encounter for symptom"),
    ("410620009", "Well child visit"),
    ("162673000", "General examination, adult"),
    ("50849002", "Emergency room admission"),
)


def patients(seed: int, count: int) -> list[Patient]:
    """Makes ``count`` patients. Names, cities and ZIP codes repeat among them; Id and SSN do not."""
    rng = random.Random(seed)
    numbers = rng.sample(range(10**8), count)
    return [_patient(rng, number) for number in numbers]


def encounters(seed: int, of: Iterable[Patient]) -> list[Encounter]:
    """Makes none to four encounters for each patient, joined by PATIENT = Patient.Id."""
    rng = random.Random(seed)
    return [_encounter(rng, patient) for patient in of for _ in range(rng.randrange(5))]


def to_csv(rows: Sequence[Patient] | Sequence[Encounter]) -> bytes:
    """Returns RFC 4180 with LF and a header, in UTF-8, for at least one row. Quotes cells that need it, and empty strings."""
    lines: list[Sequence[Cell]] = [rows[0]._fields, *rows]
    return "".join(",".join(map(_cell, line)) + "\n" for line in lines).encode()


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if value == "" or any(mark in value for mark in ',"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value


def _patient(rng: random.Random, number: int) -> Patient:
    city, state, zip_start = rng.choice(_PLACES)
    return Patient(
        Id=_uuid(rng),
        BIRTHDATE=str(date(1924, 1, 1) + timedelta(days=rng.randrange(36_500))),
        SSN=f"9{number // 10**6:02}-{number // 10**4 % 100:02}-{number % 10**4:04}",
        DRIVERS=rng.choice((f"S{rng.randrange(10**8):08}", None)),
        PASSPORT=rng.choice((f"X{rng.randrange(10**8):08}X", None, None)),
        FIRST=_in_some_form(rng, rng.choice(_FIRST)),
        LAST=_in_some_form(rng, rng.choice(_LAST)),
        MAIDEN=rng.choice((rng.choice(_LAST), "", None, None)),
        ADDRESS=_address(rng),
        CITY=city,
        STATE=state,
        ZIP=None if rng.random() < 0.1 else f"{zip_start}{rng.randrange(1000):03}",
    )


def _address(rng: random.Random) -> str:
    street = f"{rng.randrange(1, 1000)} {rng.choice(_STREETS)}"
    return f"{rng.choice(_HOUSES)}, {street}" if rng.random() < 0.3 else street


def _in_some_form(rng: random.Random, name: str) -> str:
    """Returns the name composed or decomposed: equal on a screen, but two values to a vault that does not normalise."""
    return unicodedata.normalize("NFD" if rng.random() < 0.1 else "NFC", name)


def _encounter(rng: random.Random, patient: Patient) -> Encounter:
    code, description = rng.choice(_REASONS)
    start = datetime(2023, 1, 1) + timedelta(minutes=rng.randrange(2 * 365 * 24 * 60))
    cost = f"{rng.randrange(20, 900)}.{rng.randrange(100):02}"
    return Encounter(_uuid(rng), f"{start.isoformat()}Z", patient.Id, code, description, cost)


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
