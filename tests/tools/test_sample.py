"""Invented records: the same seed gives the same records, and they are as hard to handle as promised."""

import csv
import io
import unicodedata

from chaos.testbed.sample import Patient, encounters, patients, to_csv

PATIENTS = patients(seed=7, count=400)


def test_the_seed_decides() -> None:
    assert to_csv(patients(7, 400)) == to_csv(PATIENTS) != to_csv(patients(8, 400))
    assert encounters(1, PATIENTS) == encounters(1, PATIENTS) != encounters(2, PATIENTS)


def test_csv_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(PATIENTS).decode(), newline="")))
    assert [Patient(**row) for row in rows] == [Patient(*(cell or "" for cell in patient)) for patient in PATIENTS]


def test_null_and_the_empty_string_are_spelt_apart() -> None:
    plain = PATIENTS[0]._replace(LAST="Abara", ADDRESS="1 Elm Avenue")
    assert ",Abara,,1 Elm Avenue," in to_csv([plain._replace(MAIDEN=None)]).decode()
    assert ',Abara,"",1 Elm Avenue,' in to_csv([plain._replace(MAIDEN="")]).decode()
    assert {None, ""} < {patient.MAIDEN for patient in PATIENTS}


def test_values_are_hard() -> None:
    assert len({patient.Id for patient in PATIENTS}) == len({patient.SSN for patient in PATIENTS}) == len(PATIENTS)
    assert all(patient.SSN.startswith("9") for patient in PATIENTS)
    assert any(patient.ZIP is not None and patient.ZIP.startswith("00") for patient in PATIENTS)
    assert any(unicodedata.normalize("NFC", patient.FIRST) != patient.FIRST for patient in PATIENTS)
    addresses = "".join(patient.ADDRESS for patient in PATIENTS)
    assert all(mark in addresses for mark in '",\n')
