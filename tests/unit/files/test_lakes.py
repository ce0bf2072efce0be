"""Tables of Delta Lake, Iceberg and Hudi are not mistaken for folders of Parquet files."""

from pathlib import Path

import pytest

from quorumvault.files.lakes import LakeError
from quorumvault.files.sources import expand

LAKES = {
    "delta": "lake/t/_delta_log/00000000000000000000.json",
    "iceberg": "lake/t/metadata/00000-0000.metadata.json",
    "hadoop-iceberg": "lake/t/metadata/version-hint.text",
    "hudi": "lake/t/.hoodie/hoodie.properties",
}


@pytest.fixture(params=LAKES)
def lake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    for name in ("lake/t/day=1/a.parquet", "lake/b.parquet", LAKES[request.param]):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return {"delta": "Delta", "hudi": "Hudi"}.get(request.param, "Iceberg")


@pytest.mark.parametrize("name", ["lake/t", "lake/t/", "lake", "lake/t/day=1", "lake/t/day=1/a.parquet", "lake/**/*.parquet"])
def test_a_table_is_refused_with_a_way_out(name: str, lake: str) -> None:
    with pytest.raises(LakeError, match=rf"lake/t is a table of {lake}, .*Spark"):
        expand([name])


def test_what_is_beside_a_table_is_taken(lake: str) -> None:
    assert [source.path for source in expand(["lake/*.parquet"])] == [Path("lake/b.parquet")]


def test_a_link_to_a_table_is_one(lake: str) -> None:
    Path("link").symlink_to("lake/t")
    for name in ("link", "link/day=1/a.parquet"):
        with pytest.raises(LakeError, match="is a table"):
            expand([name])


def test_a_folder_called_metadata_makes_no_table(tmp_path: Path) -> None:
    for name in ("t/a.parquet", "t/metadata/notes.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert len(expand([str(tmp_path / "t")])) == 1
