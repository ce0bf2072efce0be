"""Owners on two clusters that share nothing: each owner's client uses the cluster where the owner lives, with its key there."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import quorumvault as qv
from quorumvault.config.api_keys import PERMISSIONS
from quorumvault.errors import BadArgument, ConfigError
from quorumvault.model import Owner
from quorumvault.testing.fake import FakeNode

OWNERS = {"clinic-a": "north", "clinic-b": "south", "clinic-c": "south"}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file that says on which of two running clusters each owner lives."""
    with FakeNode(("$.ssn",)) as north, FakeNode(("$.ssn",)) as south:
        nodes = {"north": north, "south": south}
        text = "".join(f'[clusters.{name}]\nurls = ["{node.url}"]\n' for name, node in nodes.items())
        for owner, name in OWNERS.items():
            (tmp_path / f"{owner}.key").write_text(nodes[name].admit(Owner(owner), PERMISSIONS) + "\n")
            text += f'[owners.{owner}]\ncluster = "{name}"\nkey_file = "{owner}.key"\n'
        (tmp_path / "clusters.toml").write_text(text)
        yield tmp_path / "clusters.toml"


def test_each_owner_has_its_own_values_epochs_and_tokens_where_it_lives(file: Path) -> None:
    with qv.Clusters(file) as clusters:
        assert clusters.owners == sorted(OWNERS)
        tokens = {owner: clusters.of(owner).tokenize(["Ada"])[0] for owner in OWNERS}
        assert len(set(tokens.values())) == len(OWNERS)
        for owner in OWNERS:
            found = [result.value for result in clusters.of(owner).detokenize(list(tokens.values()))]
            assert found == ["Ada" if other == owner else None for other in OWNERS]
        assert clusters.of("clinic-b").rotate(1) == 2
        assert [clusters.of(owner).epoch() for owner in OWNERS] == [1, 2, 1]
        assert clusters.of("clinic-a") is clusters.of("clinic-a")
        assert clusters.of("clinic-a").urls != clusters.of("clinic-b").urls == clusters.of("clinic-c").urls


def test_the_same_from_asyncio(file: Path) -> None:
    async def main() -> list[object]:
        async with qv.AsyncClusters(file) as clusters:
            tokens = [(await clusters.of(owner).tokenize(["Ada"]))[0] for owner in OWNERS]
            return [(await clusters.of(owner).detokenize([token]))[0].value for owner, token in zip(OWNERS, tokens, strict=True)]

    assert asyncio.run(main()) == ["Ada"] * 3


def test_a_key_opens_nothing_on_another_cluster(file: Path) -> None:
    """If the map sends an owner to the wrong cluster, that cluster refuses it: no value ends up among those of other owners."""
    file.write_text(file.read_text().replace('[owners.clinic-a]\ncluster = "north"', '[owners.clinic-a]\ncluster = "south"'))
    with qv.Clusters(file) as clusters, pytest.raises(qv.Unauthenticated):
        clusters.of("clinic-a").tokenize(["Ada"])


def test_an_owner_that_lives_nowhere_is_refused_by_name(file: Path) -> None:
    with qv.Clusters(file) as clusters, pytest.raises(BadArgument) as refused:
        clusters.of("clinic-x")
    assert str(refused.value) == (f"owner: 'clinic-x' lives on no cluster of {file}, which has clinic-a, clinic-b, clinic-c")


_NO_CLUSTER = r": owners\.clinic-a\.cluster: there is no \[clusters\.west\]; the file has north, south"
_ONE_KEY = r": owners\.clinic-c\.key_file: has the API key of clinic-b: a key is of one owner"


@pytest.mark.parametrize(
    ("shown", "instead", "words"),
    [
        pytest.param('cluster = "north"', 'cluster = "west"', _NO_CLUSTER, id="no such cluster"),
        pytest.param("clinic-b.key", "clinic-c.key", _ONE_KEY, id="one key for two"),
        pytest.param("clinic-b.key", "x", "/x: the API key cannot be read: No such file or directory", id="no key file"),
        pytest.param('cluster = "north"', "", r": owners\.clinic-a: .*missing required field `cluster`", id="no cluster"),
        pytest.param("key_file", "api_key", r": owners\.clinic-a: .*unknown field `api_key`", id="unknown field"),
        pytest.param("[owners.", "[people.", r": .*unknown field `people`", id="unknown table"),
        pytest.param("http:", "ftp:", r": clusters\.north\.urls: expected http://HOST:PORT or https://HOST:PORT", id="no URL"),
        pytest.param("[clusters.north]", "[clusters.north", r": expected TOML: .*line 1.*", id="no TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(file: Path, shown: str, instead: str, words: str) -> None:
    file.write_text(file.read_text().replace(shown, instead))
    with pytest.raises(ConfigError) as refused:
        qv.Clusters(file)
    assert re.search(f"^/.*{words}$", str(refused.value)), refused.value
    assert "qvk_" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        qv.AsyncClusters(tmp_path / "none.toml")


def test_no_key_is_shown(file: Path) -> None:
    with qv.Clusters(file) as clusters:
        clusters.of("clinic-a")
        assert repr(clusters) == f"Clusters({str(file)!r})"
        assert "qvk_" not in repr(vars(clusters))
