"""Google's and Azure's stores, through the libraries of the extra ``cloud``, against stand-ins: the promises made for S3 hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from chaos.testbed.azure_store import azure
from chaos.testbed.google_store import google
from quorumvault.cli import main
from quorumvault.files import new_object, object_store
from quorumvault.files.new_object import NewObject
from quorumvault.files.urls import Url
from tests.rigs import tables
from tests.rigs.vault import key_text


class Place(NamedTuple):
    """A bucket of a store, and its objects by name."""

    scheme: str
    objects: dict[str, bytes]

    def url(self, name: str) -> Url:
        return Url(self.scheme, f"lake/{name}")


@pytest.fixture(params=["gs", "az"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """At the end no upload to Google may be left incomplete. Azure discards uncommitted blocks by itself."""
    monkeypatch.setattr(new_object, "BLOCK_BYTES", 1 << 20)
    with google() as (address, of_google), azure() as (connection, of_azure):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        object_store.forget()
        yield Place(request.param, of_google.objects if request.param == "gs" else of_azure.objects)
        object_store.forget()
        assert of_google.sessions == {}


@pytest.mark.parametrize("size", [0, 5, 1 << 20, (1 << 20) + 1, 5 << 19])
def test_an_object_appears_at_its_end_and_stays(size: int, place: Place) -> None:
    url, content = place.url("a/out"), bytes(range(256)) * (size // 256 + 1)
    for is_first in (True, False):
        made, left = NewObject(url, exclusive=True, size=size), size
        while left > made.block:
            made.write(content[: made.block])
            left -= made.block
        assert ("a/out" in place.objects) is not is_first
        made.write(content[:left])
        assert made.complete() is is_first
    assert len(place.objects["a/out"]) == size


def test_what_is_discarded_never_appears(place: Place) -> None:
    made = NewObject(place.url("out"), exclusive=False, size=3 << 20)
    made.write(bytes(1 << 20))
    made.discard()
    new_object.require_writable([place.url("out")])
    assert place.objects == {}


def test_a_run_from_the_store_to_the_store(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows: list[tables.Row] = [("someone", "here"), (None, "there")]
    tables.write(Path("in.csv"), rows)
    for name in ("raw/a.csv", "raw/b/c.csv", "raw/_SUCCESS"):
        place.objects[name] = Path("in.csv").read_bytes()
    with tables.desk() as desk:
        environment = {"QUORUMVAULT_URL": desk.url, "QUORUMVAULT_API_KEY": key_text("admin")}
        for arguments in (
            ("tokenize", f"{place.scheme}://lake/raw/", "--column", "name", "-o", f"{place.scheme}://lake/out"),
            ("detokenize", f"{place.scheme}://lake/out/b/c.csv", "--column", "name", "-o", "back.csv"),
        ):
            done = CliRunner().invoke(main, arguments, env=environment)
            assert done.exit_code == 0, done.stderr
    assert sorted(place.objects) == ["out/a.csv", "out/b/c.csv", "raw/_SUCCESS", "raw/a.csv", "raw/b/c.csv"]
    assert tables.read(Path("back.csv")) == rows
