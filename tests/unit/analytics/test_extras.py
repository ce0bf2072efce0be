"""dbt and Spark are extras: without them everything else works, and what needs them says so. tests/extras runs the real ones."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import quorumvault as qv
from quorumvault.client.settings import read_key
from quorumvault.errors import ConfigError
from tests import ROOT


@pytest.mark.parametrize(
    ("package", "module", "name", "words"),
    [
        ("pyspark", "spark", "spark", r"quorumvault\.spark needs pyspark.*pip install 'quorumvault\[spark\]'"),
        ("duckdb", "tables", "detokenize", r"quorumvault\.detokenize needs duckdb.*quorumvault\[analytics\]"),
    ],
)
def test_without_the_extra_its_names_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, package: str, module: str, name: str, words: str
) -> None:
    monkeypatch.delitem(sys.modules, f"quorumvault.analytics.{module}", raising=False)
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(AttributeError, match=words):
        getattr(qv, name)
    with pytest.raises(ModuleNotFoundError, match=words):
        exec(f"from quorumvault import {name}")


WITHOUT_EXTRAS = """
import pydoc, sys
sys.modules.update(dict.fromkeys(["duckdb", "narwhals", "pyarrow", "pyspark"]))
import quorumvault as qv
print(sorted(name for name in dir(qv) if not hasattr(qv, name)))
print(pydoc.plain(pydoc.render_doc(qv)))
"""


def test_help_dir_and_hasattr_need_no_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, timeout=60, check=True)
    lacking, _, helped = done.stdout.partition("\n")
    assert lacking == "['detokenize', 'register', 'spark', 'tokenize']"
    for words in ("class Client", "class ClientPolicy", "silence within one try", qv.__version__):
        assert words in helped


def test_the_version_is_that_of_what_is_installed() -> None:
    assert importlib.metadata.version("quorumvault") == qv.__version__


def test_names_of_extras_are_taken_by_no_star() -> None:
    assert not {"spark", "detokenize"} & set(qv.__all__)


@pytest.mark.parametrize("content", [b"", b"  \n", b"one two", b"x" * 5000, "ключ".encode()])
def test_a_key_file_holds_one_key_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.key: expected one API key and nothing else"):
        read_key(path)


@pytest.mark.parametrize(("says", "found"), [("exit 127", "none"), ("echo 'openjdk version \"11.0.2\"' >&2", "11")])
def test_without_java_the_tests_of_extras_fail_with_one_line(tmp_path: Path, says: str, found: str) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\n{says}\n")
    java.chmod(0o755)
    done = subprocess.run(
        [ROOT / "bin" / "test", "--extras"],
        env=os.environ | {"JAVA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    words = f"needs Java 17 or newer for Spark, found {found}; on Debian: apt-get install openjdk-17-jre-headless"
    assert (done.returncode, done.stderr) == (1, f"bin/test --extras: {words}\n")
