"""What a command writes is read back unchanged, whatever the names look like: numbers, dates, quotes, colons."""

import itertools
import json
import re
import shlex
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quorumvault.cli import main
from quorumvault.config.addresses import MAX_BASE_PORT, plan_nodes
from quorumvault.config.api_keys import Rates, load_keys, read_keyfile
from quorumvault.config.cluster import load_cluster, load_node, parse_cluster
from quorumvault.config.key_changes import create_key, new_keyfile, revoke_key
from quorumvault.errors import ConfigError, Refused
from quorumvault.formats.yaml import parse_yaml, quoted, with_scalars
from quorumvault.model import NODE_NAMES, OWNER_NAME, Owner
from quorumvault.protocol.views import Mode
from quorumvault.server.offline import init as initialise
from quorumvault.server.offline.init import cluster_yaml, init, read_back
from quorumvault.server.offline.rebuild import rebuild
from quorumvault.server.offline.replace_disk import replace_disk
from quorumvault.server.storage.data_directory import identity_of
from quorumvault.server.storage.disk_identity import DiskIdentity, read_identity, write_identity

NOW = datetime(2025, 6, 15, tzinfo=UTC)
FILE = Path("/vault/cluster.yaml")
DIGITS = "9007199254740993"

#: Text that some YAML reader takes for another type, that ends a scalar, or that a shell splits.
AWKWARD = st.sampled_from([
    "yes", "no", "on", "y", "null", "~", "true", "False", "1", "-1", "+1", "007", "0755", "0x10", "0o17", "0b1", "1_000", "1.5",
    ".5", "1.", "1e3", "1E3", "1.0e+3", ".inf", ".nan", "12:30", "2026-11-28", "2026-11-28T09:00:00Z", "=", "<<", DIGITS,
    "1234567890e12345", "a: b", "a:", "- a", "-", "?", "? a", "# a", "a # b", "'", '"', "it's", '"a"', "\\", "a\\nb", "&a", "*a",
    "!t", "!!int 1", "|", ">", "%", "@", "`", "{", "}", "[a]", ",", "$HOME", "$(id)", ";", "a b", " a", "a ", "a\nb", "a\tb",
    "\t", "\r\n", "\n", "é", "名前", "😀", "\u2028", "\x85", "\ufeff", "\xa0", "\x7f", "\x1b[31m", "---", "...", "--help",
])  # fmt: skip
ANY_TEXT = AWKWARD | st.text() | st.lists(AWKWARD).map("".join)
OWNERS = AWKWARD.filter(OWNER_NAME.fullmatch) | st.from_regex(OWNER_NAME, fullmatch=True)
IDS = st.binary(min_size=8, max_size=8).map(bytes.hex) | st.from_regex(r"[0-9]{16}", fullmatch=True)
VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64)
MASTER_IDS = st.sampled_from(["1", "2024", "007", "null", "true", "1e3", "0x10", "yes", "s1"]) | st.from_regex(
    r"[a-z0-9]{1,16}", fullmatch=True
)
HOSTS = (
    st.sampled_from(["no", "1e3", "0x10", "10", "007", "null", "2026-11-28", "1.5", "a.example", "10.0.0.1"])
    | st.ip_addresses().map(str)
    | st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?(\.[A-Za-z0-9]{1,20})?", fullmatch=True)
).filter(lambda host: host not in ("0.0.0.0", "::"))
RATES = st.builds(
    Rates,
    st.none() | st.floats(0, 1e6, exclude_min=True),
    st.none() | st.floats(0, 1e9, exclude_min=True),
    st.none() | st.floats(1, 1e12),
)
#: One part of a path.
NAMES = (ANY_TEXT.map(lambda text: re.sub("[/\0]", "_", text)) | AWKWARD).filter(
    lambda name: name not in (".", "..", "") and len(name.encode()) <= 120
)


@contextmanager
def folder(name: str = "vault") -> Iterator[Path]:
    """A path with this name in a directory that is removed when the block ends. Each example has its own."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / name


def entropy(first: bytes = b"") -> Callable[[int], bytes]:
    """Gives ``first`` once, for the cluster id, and then numbers: 1, 2 and so on."""
    numbers = itertools.count(1)
    given = iter([first] if first else [])
    return lambda size: next(given, b"") or next(numbers).to_bytes(size, "big")


def make(directory: Path, owners: list[str], cluster_id: str = "00c0ffee00c0ffee", base_port: int = 8700) -> None:
    nodes = plan_nodes(["127.0.0.1"], base_port)
    init(directory, nodes, [Owner(name) for name in owners], now=NOW, entropy=entropy(bytes.fromhex(cluster_id)))


@given(ANY_TEXT)
def test_quoted_text_is_text(text: str) -> None:
    assert parse_yaml(FILE, f"- {quoted(text)}\n- 1\n") == [text, 1]
    assert "\n" not in quoted(text)


@given(ANY_TEXT, ANY_TEXT)
def test_a_scalar_takes_the_place_of_another(old: str, new: str) -> None:
    before = f"# a\r\nx:\r\n  y: {quoted(old)} # b\r\n  z: [1, 2]\r\ny: {quoted(old)}\r\n"
    after = with_scalars(before, {("x", "y"): new, ("y",): old})
    assert after == f"# a\r\nx:\r\n  y: {quoted(new)} # b\r\n  z: [1, 2]\r\ny: {quoted(old)}\r\n"
    assert parse_yaml(FILE, after) == {"x": {"y": new, "z": [1, 2]}, "y": old}


@given(IDS | VISIBLE, st.lists(HOSTS, min_size=3, max_size=3, unique=True), st.integers(1, MAX_BASE_PORT), MASTER_IDS)
@example(DIGITS, ["10", "1e3", "::1"], 8700, "2024")
def test_cluster_yaml_says_what_it_was_made_of(cluster_id: str, hosts: list[str], port: int, master: str) -> None:
    nodes = plan_nodes(hosts, port)
    cluster = parse_cluster(FILE, cluster_yaml(cluster_id, nodes, master))
    assert (cluster.cluster_id, cluster.nodes, cluster.secrets.master.id) == (cluster_id, nodes, master)
    assert cluster.secrets.master.file == f"secrets/master-{master}.key"


@given(st.ip_addresses(v=6).map(str), st.text("abc0", min_size=1))
def test_an_address_that_means_something_on_one_machine_alone_is_refused(host: str, scope: str) -> None:
    with pytest.raises(ValueError, match="scope"):
        plan_nodes([f"{host}%{scope}"], 8700)


@given(st.lists(OWNERS, min_size=1, max_size=3, unique=True), ANY_TEXT, RATES)
@example(["1e3", "0x10", "2026-11-28"], "~", Rates(1e-7, 1e-7, 1e12))
@example(["no"], "2026-11-28", Rates(5e-324))
def test_a_key_file_says_what_it_was_told(owners: list[str], note: str, rates: Rates) -> None:
    with folder() as path:
        new_keyfile(path)
        random = entropy()
        for owner in owners:
            create_key(path, owner, now=NOW, entropy=random, note=note, rates=rates, new_owner=True)
        revoke_key(path, read_keyfile(path).keys[0].id, now=NOW)
        file = read_keyfile(path)
        assert file.owners == owners
        assert [(entry.owner, entry.note, entry.rates) for entry in file.keys] == [(owner, note, rates) for owner in owners]
        assert {owner.name for owner in load_keys(path).owners} == set(owners)


@given(VISIBLE | IDS, st.sampled_from(NODE_NAMES), st.binary(min_size=16, max_size=16), st.integers(0, 2**53 - 1))
def test_a_disks_identity_says_what_it_was_told(cluster_id: str, node: str, disk: bytes, incarnation: int) -> None:
    identity = DiskIdentity(cluster_id, node, disk, incarnation, Mode.JOINING, None)
    with folder() as path:
        write_identity(path, identity)
        assert read_identity(path) == identity


@pytest.mark.slow
@settings(max_examples=20)
@given(NAMES, IDS, st.lists(OWNERS, min_size=1, max_size=2, unique=True))
@example("a: b 'c' \"d\" $HOME é", DIGITS, ["1e3", "2026-11-28"])
def test_what_init_made_starts_wherever_it_is_and_so_does_what_pack_took(name: str, cluster_id: str, owners: list[str]) -> None:
    with folder(name) as home, folder() as elsewhere:
        make(home, owners, cluster_id)
        for node in NODE_NAMES:
            config = load_node(home / "cluster.yaml", node)
            read_back(config)
            assert config.cluster.cluster_id == cluster_id
        assert {owner.name for owner in load_keys(home / "api_keys.yaml").owners} == set(owners)
        tar = home.parent / f"{home.name[:20]}.tar"
        packed = CliRunner().invoke(main, ["pack", "--node", "n2", "-o", str(tar), "--", str(home)])
        assert packed.exit_code == 0, packed.stderr
        with tarfile.open(tar) as members:
            members.extractall(elsewhere, filter="data")
        config = load_node(elsewhere / "cluster.yaml", "n2")
        read_back(config)
        assert identity_of(config) == read_identity(home / "n2" / "disk.json")


@pytest.mark.slow
@settings(max_examples=15)
@given(NAMES.filter(str.isprintable))  # other names are not printed as they are
@example("a b; $(id) 'c'")
def test_commands_that_are_printed_can_be_pasted(name: str) -> None:
    with folder(name) as home:
        made = CliRunner().invoke(main, ["init", "--", str(home)])
        assert made.exit_code == 0, made.stderr
        printed = shlex.split(made.stdout[made.stdout.index("Start the nodes") :], comments=False)
        assert printed.count(str(home / "cluster.yaml")) == len(NODE_NAMES)
        tar = home.parent / "a b.tar"
        packed = CliRunner().invoke(main, ["pack", "--node", "n1", "-o", str(tar), "--", str(home)])
        assert "\n  tar -xf 'a b.tar'\n" in packed.stdout


def test_addresses_that_are_printed_can_be_pasted(tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["init", str(tmp_path / "vault"), "--host", "::1"])
    (line,) = re.findall("export .*", made.stdout)
    assert shlex.split(line)[1] == "QUORUMVAULT_URL=http://[::1]:8700,http://[::1]:8701,http://[::1]:8702"
    assert "'" in line  # brackets are patterns to a shell


@pytest.mark.slow
@settings(max_examples=10)
@given(HOSTS, IDS)
@example("1e3", DIGITS)
def test_a_node_that_moves_and_a_cluster_made_of_one_disk_say_what_they_were_told(host: str, cluster_id: str) -> None:
    with folder() as home, folder("new") as new:
        make(home, ["clinic"])
        replaced = replace_disk(home, "n2", host, entropy=entropy())
        assert (replaced.endpoints.api.host, replaced.endpoints.api.port) == (host, 8701)
        assert load_cluster(home / "cluster.yaml").nodes["n2"] == replaced.endpoints
        rebuilt = rebuild(
            load_node(home / "cluster.yaml", "n1"), new, now=NOW, entropy=entropy(bytes.fromhex(cluster_id)), tell=lambda _: None
        )
        for node in NODE_NAMES:
            config = load_node(rebuilt.cluster_file, node)
            read_back(config)
            assert (config.cluster.cluster_id, config.cluster.nodes["n2"]) == (cluster_id, replaced.endpoints)


@pytest.mark.parametrize(
    ("name", "instead", "words"),
    [
        (
            "write_secrets",
            lambda directory, *_: (directory / "secrets").mkdir(),
            "secrets.master.file: .* expected a readable secret file",
        ),
        ("write_keys", lambda *_, **__: {}, r"api_keys\.yaml: expected a file that can be read"),
        ("make_disk", lambda *_: BytesIO(), r"disk\.json: expected a disk identity; there is none"),
        ("DiskIdentity", lambda _, *rest: DiskIdentity("another", *rest), r"disk\.json: expected the data of n1 of this cluster"),
        (
            "with_scalars",
            lambda text, own: with_scalars(text, own | {("cluster_id",): ""}),
            "cluster_id: expected 1 to 64 visible ASCII characters",
        ),
    ],
)
def test_what_cannot_be_read_back_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, instead: Callable[..., object], words: str
) -> None:
    """Whatever goes wrong, init reports it and leaves nothing behind."""
    home = tmp_path / "vault"
    monkeypatch.setattr(initialise, name, instead)
    with pytest.raises(ConfigError, match=words):
        make(home, ["clinic"], DIGITS)
    assert not home.exists() or list(home.iterdir()) == []


def test_pack_reads_what_it_takes(tmp_path: Path) -> None:
    home, tar = tmp_path / "vault", tmp_path / "n1.tar"
    make(home, ["clinic"])
    for name in ("fields.yaml", "api_keys.yaml", "n1/disk.json"):
        kept = (home / name).read_bytes()
        (home / name).write_text("{")
        packed = CliRunner().invoke(main, ["pack", str(home), "--node", "n1", "-o", str(tar)])
        assert (packed.exit_code, tar.exists()) == (1, False)
        assert f"{home / name}: " in packed.stderr
        (home / name).write_bytes(kept)


def test_a_cluster_is_not_made_of_one_disk_with_a_file_that_no_node_could_read(tmp_path: Path) -> None:
    home, new = tmp_path / "vault", tmp_path / "new"
    make(home, ["clinic"])
    (home / "fields.yaml").write_text("fields: 1\n")
    with pytest.raises(ConfigError, match=re.escape(f"{home}/fields.yaml: fields")):
        rebuild(load_node(home / "cluster.yaml", "n1"), new, now=NOW, entropy=entropy(), tell=lambda _: None)
    assert not new.exists()


def test_a_key_file_that_would_be_read_as_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "api_keys.yaml"
    new_keyfile(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"keys\[0\]\.note: expected text in UTF-8"):
        create_key(path, "a", now=NOW, entropy=entropy(), note="\udcff", new_owner=True)
    with pytest.raises(ConfigError, match="a file of at most"):
        create_key(path, "a", now=NOW, entropy=entropy(), note="a" * (1 << 20), new_owner=True)
    monkeypatch.setattr("quorumvault.config.key_changes._render", lambda _: "owners: []\nkeys: []\n")
    with pytest.raises(Refused, match="would be read as something else; nothing was changed"):
        create_key(path, "a", now=NOW, entropy=entropy(), new_owner=True)
    assert path.read_bytes() == before


def test_a_directory_that_leveldb_cannot_open_is_refused_in_words(tmp_path: Path) -> None:
    home = tmp_path / "a\udcff"
    made = CliRunner().invoke(main, ["init", str(home)])
    assert made.exit_code == 1
    assert "expected a path that is text in UTF-8" in made.stderr
    assert list(home.iterdir()) == []


def test_paths_that_are_not_utf8_are_told_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "vault", ["clinic"])
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(main, ["pack", "vault", "--node", "n1", "-o", "a\udcff.tar"])
    assert (told.exit_code, "a\\udcff.tar" in told.stdout) == (0, True)
    told = CliRunner().invoke(main, ["pack", "vault", "--node", "n1", "-o", "a\udcff.tar", "--force", "--json"])
    assert json.loads(told.stdout)["tar"] == "a\udcff.tar"
