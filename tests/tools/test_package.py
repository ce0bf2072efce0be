"""What is published: built once, and inspected. bin/package --try installs it, which needs the package index: see .ci/run."""

import email
import re
import subprocess
import zipfile
from collections.abc import Mapping
from email.message import Message
from pathlib import Path

import pytest

import quorumvault
from release.build import Distributions, build
from release.client import NEEDS
from setup import absolute
from tests import ROOT
from tests.tools.test_house import imports

SERVERS = {"click", "cryptography", "google-crc32c", "httptools", "plyvel", "plyvel-next", "rbloom", "starlette", "uvicorn"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return build(tmp_path_factory.mktemp("dist"))


def contents(wheel: Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(files: Mapping[str, bytes]) -> Message:
    (text,) = (content for name, content in files.items() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(text)


def needed(described: Message, extra: str = "") -> set[str]:
    """The packages that the distribution needs, or that an extra adds."""
    lines = [line.partition(";") for line in described.get_all("Requires-Dist", [])]
    asked = [name for name, _, marker in lines if re.findall('extra == "(.*)"', marker) == ([extra] if extra else [])]
    return {re.split(r"[^\w.\[\]-]", name)[0] for name in asked}


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package_and_says_what_it_is(made: Distributions) -> None:
    files = contents(made.wheel)
    known = subprocess.run(
        ["git", "ls-files", "quorumvault"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {name for name in files if ".dist-info/" not in name} == set(known)
    described = metadata(files)
    assert (described["Name"], described["Version"]) == ("quorumvault", quorumvault.__version__)
    assert described["License-Expression"] == "Apache-2.0"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in files)
    classifiers = described.get_all("Classifier", [])
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)} <= set(classifiers)
    assert {url.partition(",")[0] for url in described.get_all("Project-URL", [])} >= {"Source", "Documentation", "Changelog"}
    assert set(described.get_all("Provides-Extra", [])) >= {"analytics", "dbt", "spark"}


@pytest.mark.slow
def test_links_of_its_readme_are_addresses_of_files_that_are_there(made: Distributions) -> None:
    page = metadata(contents(made.wheel)).get_payload()
    assert isinstance(page, str)
    links = re.findall(r"\]\(([^)]+)\)", page)
    own = re.compile(rf"https://github\.com/quorumvault/quorumvault/(?:blob|raw)/v{re.escape(quorumvault.__version__)}/([^#]+)")
    files = [found[1] for link in links if (found := own.match(link))]
    assert len(files) > 10
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert [link for link in links if not link.startswith("https://")] == []


def test_only_paths_become_addresses() -> None:
    text = "[a](docs/a.md#b) [b](#c) [c](https://example.org/d) ![e](f.svg)"
    made = "[a](S/blob/v1/docs/a.md#b) [b](#c) [c](https://example.org/d) ![e](S/raw/v1/f.svg)"
    assert absolute(text, "S", "1") == made


@pytest.mark.slow
def test_the_client_s_wheel_is_whole_and_brings_no_library_of_a_server(made: Distributions) -> None:
    whole, files = contents(made.wheel), contents(made.client)
    own = {name: content for name, content in files.items() if ".dist-info/" not in name}
    assert own.items() <= whole.items()
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in own if name.endswith(".py")}
    for module in {*(modules - {"quorumvault"}), "quorumvault.__init__"}:
        assert {each for each in imports(module) if each.partition(".")[0] == "quorumvault"} <= modules, module
    described = metadata(files)
    assert described["Name"] == "quorumvault-client"
    assert "Framework :: Pytest" not in described.get_all("Classifier", [])
    assert needed(described) == set(NEEDS)
    assert needed(described, "dbt") >= {"quorumvault-client[analytics]", "dbt-core"}
    assert not any("entry_points" in name for name in files)
    recorded = [line.split(",")[0] for name, text in files.items() if name.endswith("/RECORD") for line in text.decode().split()]
    assert set(recorded) == set(files)
    assert SERVERS & needed(metadata(whole))
