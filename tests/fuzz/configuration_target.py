"""Configuration files: any bytes give a value or a ConfigError, and files written by a command are read back unchanged."""

import re
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from quorumvault.config.api_keys import load_keys, read_keyfile
from quorumvault.config.cluster import load_place, with_secret
from quorumvault.config.fields import load_fields
from quorumvault.config.key_changes import create_key
from quorumvault.config.secrets import write_secret
from quorumvault.errors import ConfigError
from tests.fuzz.mutation import mutate
from tests.fuzz.target import InProcess, Violation

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_CLUSTER = """\
cluster_id: 'c0ffee'
nodes:
  n1: {api: 127.0.0.1:8700, peer: 127.0.0.1:8710}
  n2: {api: 127.0.0.1:8701, peer: 127.0.0.1:8711, listen_api: '0.0.0.0:8701'}
  n3: {api: '[::1]:8702', peer: 'h-3.example:8712'}
secrets:
  cluster: cluster.key
  master: {id: s1, file: master.key}
fields: fields.yaml
limits: {items: 10000, body_bytes: 16777216}
timeouts: {request: 5.0, hedge: 0.05}
healing: {share: 0.5}
events: {keep: 8}
log_level: info
"""
_FIELDS = """\
fields:
  - $.ssn
  - $.name.family
  - $.contacts[*].phone
  - $['given name'][0]
  - '$["it\\u0027s"]'
"""
_KEYS = f"""\
owners: [clinic, lab]
keys:
- {{id: 3fq7tzd2, owner: clinic, sha256: {"a1" * 32}, allow: [tokenize, detokenize], note: x, created: '2025-03-01T09:00+00:00'}}
- {{id: aaaabbbb, owner: lab, sha256: {"b2" * 32}, allow: [rotate], rate: 50, revoked: '2025-03-02'}}
"""
_TEXTS = (
    ": ", "- ", "\n", "  ", "{", "}", "[", "]", ",", "'", '"', "#", "&a ", "*a", "!!python/object:x ", "!x ", "|\n", ">\n",
    "? ", "---\n", "...\n", "%YAML 1.1\n", "<<: ", "~", "null", "true", "yes", "0x10", "1e3", ".inf", ".nan", "-1", "0",
    "2026-01-01", '"\\0"', '"\\ud800"', '"\\x00"', '"\\u2028"', "\t", "\r", "\ufeff", "\x85", "\x7f", "\x00", "é",
    "1" * 400 + ".0", "9" * 20, "[" * 500, "{a: " * 500, "$", "$.", "$[*]", "$..a", "$.a[0]", "['", "\\'", "fields", "nodes",
    "n1", "n4", "limits", "keys", "/", "..", "/dev/null", ".", '"a\\0b"', "10000000000", "0.000001", "127.0.0.1:0", "[::]:1",
    "x:99999",
)  # fmt: skip
_WORDS = tuple(text.encode("utf-8", "surrogatepass") for text in _TEXTS)
_SCALAR = re.compile(rb"[^\s{}\[\],:#-][^\s{}\[\],]*")


class Configuration(InProcess):
    """An input is the name of a file, a line end, and the file's content."""

    def open(self, stack: ExitStack) -> None:
        self._path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_secret(self._path / "cluster.key", b"c" * 32)
        write_secret(self._path / "master.key", b"m" * 32)

    def make(self, rng: Random) -> bytes:
        name, content = rng.choice((("cluster.yaml", _CLUSTER), ("fields.yaml", _FIELDS), ("api_keys.yaml", _KEYS)))
        if rng.random() < 0.02:
            return name.encode() + b"\n" + content.encode(rng.choice(("utf-16", "utf-32", "latin-1")))
        if rng.random() < 0.5:
            return name.encode() + b"\n" + _with_another(rng, content.encode())
        return name.encode() + b"\n" + mutate(rng, content.encode(), _WORDS)

    def check_one(self, data: bytes) -> str:
        name, _, content = data.partition(b"\n")
        if name not in (b"cluster.yaml", b"fields.yaml", b"api_keys.yaml"):
            return "no such file"
        path = self._path / name.decode()
        path.write_bytes(content)
        path.chmod(0o600)
        try:
            match name:
                case b"cluster.yaml":
                    place = load_place(path, "n1")
                    if place.cluster.secrets.master.file is not None:  # else an input would choose what to run or close
                        repr(with_secret(place))
                case b"fields.yaml":
                    str(load_fields(path).paths)
                case b"api_keys.yaml":
                    self._check_keys(path)
        except ConfigError as error:
            if "\n" in str(error):
                raise Violation("an error of more than one line") from None
            return f"{name.decode()} refused"
        return f"{name.decode()} read"

    def _check_keys(self, path: Path) -> None:
        load_keys(path)
        before = read_keyfile(path)
        create_key(path, "newcomer", now=_NOW, entropy=lambda size: bytes(range(size)), new_owner=True)
        after = read_keyfile(path)
        if after.owners[: len(before.owners)] != before.owners or after.keys[: len(before.keys)] != before.keys:
            raise Violation("keys that are others once one was added")


def _with_another(rng: Random, content: bytes) -> bytes:
    """Replaces one or two names or values; everything else stays valid."""
    for _ in range(rng.choice((1, 1, 2))):
        start, end = rng.choice([match.span() for match in _SCALAR.finditer(content)])
        content = content[:start] + rng.choice(_WORDS) + content[end:]
    return content
