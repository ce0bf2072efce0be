"""Object names keep every slash, and show nothing secret."""

import pytest

from quorumvault.files.sources import compression_of, delimiter_of, format_of, known_suffix
from quorumvault.files.urls import Url, UrlError, is_plain, url_of

SIGNED = "https://who:hush@example.org:8443/a/b%20c.tsv.gz?X-Amz-Signature=hush&id=1#hush"


def known(name: str) -> Url:
    url = url_of(name)
    assert url is not None
    return url


@pytest.mark.parametrize(
    "name", ["s3://b", "s3://b/", "s3://b//a///c.csv", "gs://b/a::b.csv", "az://c@acct.dfs.core.windows.net/x", SIGNED]
)
def test_a_request_has_all_of_it(name: str) -> None:
    assert known(name).text == name


def test_one_object_has_one_name() -> None:
    assert known("s3a://b/k") == known("S3://b/k") == known("s3n://b/k")
    assert known("abfss://c@a.dfs.core.windows.net/k").scheme == "az"
    assert known("gcs://b/k").text == "gs://b/k"
    assert url_of("/a/file.csv") is url_of("s3:/b/k") is url_of("lake.duckdb::t") is None


def test_nothing_secret_is_shown() -> None:
    url = known(SIGNED)
    assert str(url) == "https://example.org:8443/a/b%20c.tsv.gz"
    assert "hush" not in f"{url} {url!r} {url.name} {url.digest}"
    assert (url.name, format_of(url), compression_of(url), delimiter_of(url)) == ("b%20c.tsv.gz", "csv", "gzip", "\t")
    assert known_suffix(url) == ".tsv.gz"
    assert known_suffix(known("s3://b/x.unknown")) == ""


def test_below_a_folder() -> None:
    assert known("s3://b/out").below("a", "x.csv").text == known("s3://b/out/").below("a", "x.csv").text == "s3://b/out/a/x.csv"
    assert known("s3://b//").below("x").text == "s3://b//x"
    assert [folder.text for folder in known("s3://b/a/x").folders()] == ["s3://b", "s3://b/a"]
    assert [known(name).is_folder for name in ("s3://b", "s3://b/", "s3://b/a/", "s3://b/a")] == [True, True, True, False]
    assert [is_plain(name) for name in ("a/b", "/a", "a//b", "../a", "a/.", "", "a\0")] == [True] + 6 * [False]


@pytest.mark.parametrize(
    "name",
    ["ftp://h/x", "http://h/x.csv", "s3://", "s3:///x", "s3://k:hush@b/x", "s3://k@b/x", "s3://b/x?versionId=hush", "https://h/"],
)
def test_what_cannot_be_worked_with_is_refused(name: str) -> None:
    with pytest.raises(UrlError) as refused:
        url_of(name)
    assert "hush@" not in str(refused.value)


def test_names_are_utf_8() -> None:
    assert known("s3://b/ü.csv").name == "ü.csv"
    with pytest.raises(UrlError, match=r"no UTF-8"):
        url_of("s3://b/\udcff.csv")
