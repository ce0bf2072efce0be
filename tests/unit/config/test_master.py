"""Where the master secret comes from: a file, a credential, a descriptor, a command; and what is left of it in memory."""

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.testbed.cluster import wait_for
from quorumvault.cli import main
from quorumvault.config import credentials
from quorumvault.config.certificates import load_credentials
from quorumvault.config.cluster import load_cluster, load_node, load_place, with_secret
from quorumvault.config.secrets import read_secret
from quorumvault.errors import ConfigError, Unavailable
from tests.rigs.clusters import runs as is_running
from tests.rigs.made import made

SECONDS = 60
#: However a test below writes the secret, no piece of it is a word.
SECRET = bytes.fromhex("9f3ac07be1d25846fa0b94c37d6e2518aa70c1935be48f26d03719c45bf86e2a")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("made") / "vault")


@pytest.fixture
def vault(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "vault")


@pytest.fixture
def key(vault: Path) -> Path:
    """The secret's file, moved away from where the cluster expects it."""
    kept = vault.parent / "kept.key"
    (vault / "secrets" / "master-s1.key").rename(kept)
    kept.write_text(f"{SECRET.hex()}\n")
    return kept


def comes_from(vault: Path, *lines: str, seconds: float = 20) -> Path:
    """Have cluster.yaml name another source of the secret."""
    file = vault / "cluster.yaml"
    text = re.sub(r"\n    file: .*", "".join(f"\n    {line}" for line in lines), file.read_text(), count=1)
    file.write_text(f"{text}\ntimeouts:\n  secret: {seconds}\n")
    return file


def runs(vault: Path, script: str, *, seconds: float = 20) -> Path:
    """Have the secret come from a shell script beside cluster.yaml."""
    path = vault / "ask"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return comes_from(vault, "command: [./ask]", seconds=seconds)


def refusal(file: Path, kind: type[ConfigError] = ConfigError) -> str:
    with pytest.raises(ConfigError) as caught:
        load_node(file, "n1")
    said = str(caught.value)
    assert type(caught.value) is kind, said
    assert "\n" not in said
    assert SECRET.hex()[:6] not in said
    return said


def is_gone(pid: int) -> bool:
    """Wait until a killed process has ended."""
    return wait_for(lambda: not is_running(pid), SECONDS)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "secrets.master: expected one of file, descriptor, command, not none"),
        (("file: a", "command: [b]"), "secrets.master: expected one of file, descriptor, command, not file and command"),
        (("descriptor: 2",), "secrets.master.descriptor: expected 0, or 3 and more"),
        (("descriptor: -1",), "secrets.master.descriptor: expected a file descriptor: 0, or a whole number from 3 to 1023"),
        (("command: []",), "secrets.master.command: expected a list of 1 to 64 texts"),
        (("command: cat key",), "secrets.master.command: expected a list of 1 to 64 texts"),
        (("file: 5",), "secrets.master.file: expected the path of a file"),
        ((f"file: '{SECRET.hex()}'",), "secrets.master.file: expected the path of a file, not the secret itself"),
        (("comand: [a]",), "secrets.master.comand: unknown key; did you mean command?"),
    ],
)
def test_a_secret_has_one_source(vault: Path, lines: tuple[str, ...], words: str) -> None:
    assert words in refusal(comes_from(vault, *lines))


# A command.


def test_what_a_command_prints_is_the_secret(vault: Path, key: Path) -> None:
    assert load_node(comes_from(vault, "command: [cat, ../kept.key]"), "n2").master_secret == SECRET  # in cluster.yaml's folder


def test_a_command_gets_no_key_no_descriptor_and_no_input(vault: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = vault.parent / "seen"
    for name in ("QUORUMVAULT_API_KEY", "NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC", "KMS_ENDPOINT"):
        monkeypatch.setenv(name, "x")
    file = runs(vault, f"(env; cat; ls /proc/self/fd) > {seen}; cat {key}")
    inherited, other = os.pipe()
    os.set_inheritable(inherited, True)
    try:
        assert load_node(file, "n1").master_secret == SECRET
    finally:
        os.close(inherited)
        os.close(other)
    lines = seen.read_text().splitlines()
    assert "KMS_ENDPOINT=x" in lines
    assert any(line.startswith("PATH=") for line in lines)
    assert not [line for line in lines if re.match("QUORUMVAULT|NOTIFY|LISTEN|WATCHDOG", line)]
    assert [line for line in lines if "=" not in line] == ["0", "1", "2", "3"]  # 3 is ls's own


def test_a_command_that_fails_says_how_and_a_start_ends_with_4(vault: Path) -> None:
    file = runs(vault, "echo 'error: Permission denied (key \"alias/qv\", request 9f3a-c07b): ask your admin.' >&2; exit 7")
    said = refusal(file, Unavailable)
    assert said == (
        f"{file}: secrets.master.command: {vault}/./ask ended with exit code 7: error: Permission denied (key … request … "
        "ask your admin."
    ).replace("/./", "/")
    started = CliRunner().invoke(main, ["serve", "--config", str(file), "--node", "n1"])
    assert (started.exit_code, started.stderr.count("ended with exit code 7")) == (4, 1)


def test_a_command_that_a_signal_ends(vault: Path) -> None:
    assert "was killed by signal 15" in refusal(runs(vault, "kill $$"), Unavailable)


@pytest.mark.parametrize(
    "written",
    [
        SECRET.hex(),
        SECRET.hex().upper(),
        SECRET.hex(" "),
        SECRET.hex(" ", 2),
        SECRET.hex(":"),
        base64.b64encode(SECRET).decode(),
        base64.b32encode(SECRET).decode(),
        base64.b85encode(SECRET).decode(),
        repr(SECRET),
        " ".join(map(str, SECRET)),
    ],
    ids=["hex", "HEX", "pairs", "fours", "colons", "base64", "base32", "base85", "repr", "numbers"],
)
def test_a_secret_that_a_command_says_on_its_way_out_is_shown_in_no_part(vault: Path, written: str) -> None:
    (vault / "said").write_text(f"the secret is '{written}'\nkey={written}\n{written}\n")
    said = refusal(runs(vault, "cat said >&2; exit 1"), Unavailable)
    assert said.endswith("ended with exit code 1: the secret is …")


@pytest.mark.parametrize(
    "printed", ["", "0", SECRET.hex()[:-1], f"{SECRET.hex()} {SECRET.hex()}", "x" * 64, f"key: {SECRET.hex()}"]
)
def test_what_is_no_secret_is_not_shown(vault: Path, printed: str) -> None:
    said = refusal(runs(vault, f"printf '%s' '{printed}'"))
    assert "secrets.master.command: expected 64 hexadecimal digits (32 bytes) and nothing else" in said


def test_a_command_that_prints_without_end_is_ended(vault: Path) -> None:
    said = refusal(runs(vault, "echo $$ > pid; exec yes"))
    assert "expected 64 hexadecimal digits (32 bytes) and nothing else, not 256 bytes or more" in said
    assert is_gone(int((vault / "pid").read_text()))


def test_a_command_that_hangs_is_ended_with_all_that_it_started(vault: Path) -> None:
    """The command is killed although it has closed its output streams."""
    file = runs(vault, "echo waiting for the agent >&2; exec >&- 2>&-\nsleep 600 & echo $! > pid; wait", seconds=1)
    assert refusal(file, Unavailable).endswith("did not end within 1 s and was killed: waiting for the agent")
    assert is_gone(int((vault / "pid").read_text()))


def test_what_a_command_leaves_behind_is_not_waited_for(vault: Path, key: Path) -> None:
    assert load_node(runs(vault, f"sleep 600 & echo $! > pid; cat {key}"), "n1").master_secret == SECRET
    assert is_gone(int((vault / "pid").read_text()))


_ASKS = (
    "import sys; from pathlib import Path; from quorumvault.config.cluster import load_node; load_node(Path(sys.argv[1]), 'n1')"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_command_ends_with_the_process_that_asks(vault: Path, number: signal.Signals) -> None:
    kill = f"kill -{number.value} $PPID"
    heeds = f"import signal; signal.signal({number.value}, signal.SIG_DFL)"  # a background job ignores some signals
    command = [sys.executable, "-c", f"{heeds}; {_ASKS}", str(runs(vault, f"echo $$ > pid; {kill}; exec sleep 600"))]
    assert subprocess.run(command, timeout=SECONDS, check=False).returncode == -number
    assert is_gone(int((vault / "pid").read_text()))


def test_a_node_that_is_asked_to_read_its_files_again_while_it_starts_goes_on(vault: Path) -> None:
    """The node goes on until the command fails, and then reports that failure."""
    config = runs(vault, "kill -HUP $PPID; sleep 0.1; echo closed >&2; exit 3")
    command = [sys.executable, "-m", "quorumvault", "serve", "--config", str(config), "--node", "n1"]
    done = subprocess.run(command, timeout=SECONDS, capture_output=True, text=True, check=False)
    assert (done.returncode, "closed" in done.stderr) == (4, True)


_ASKED_TO_END_AT_ONCE = """
import os, signal, subprocess, sys
from pathlib import Path
from quorumvault.config.cluster import load_node
class Popen(subprocess.Popen):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        Path(sys.argv[2]).write_text(str(self.pid))
        os.kill(os.getpid(), signal.SIGTERM)
subprocess.Popen = Popen
load_node(Path(sys.argv[1]), "n1")
"""


def test_so_it_does_if_that_is_asked_to_end_while_the_command_is_started(vault: Path) -> None:
    command = [sys.executable, "-c", _ASKED_TO_END_AT_ONCE, str(runs(vault, "exec sleep 600")), str(vault / "pid")]
    assert subprocess.run(command, timeout=SECONDS, check=False).returncode == -signal.SIGTERM
    assert is_gone(int((vault / "pid").read_text()))


@pytest.mark.parametrize("name", ["cluster.yaml", "ask"])
def test_nothing_is_run_that_others_can_change(vault: Path, name: str) -> None:
    file = runs(vault, "touch was-run")
    (vault / name).chmod(0o757)
    assert f"{vault / name}: everybody can write it" in refusal(file)
    assert not (vault / "was-run").exists()


@pytest.mark.parametrize(("program", "words"), [("no-such-kms", "none of this name in PATH"), ("./none", "No such file")])
def test_a_program_that_is_not_there(vault: Path, program: str, words: str) -> None:
    assert words in refusal(comes_from(vault, f"command: [{program}]"))


def test_a_file_that_is_no_program(vault: Path) -> None:
    file = runs(vault, "")
    (vault / "ask").chmod(0o644)
    assert "ask: expected a program that can be run: Permission denied" in refusal(file)


# A descriptor.


@pytest.fixture
def given(key: Path) -> Iterator[int]:
    """A descriptor of the secret's file, open as if this process had inherited it."""
    descriptor = os.open(key, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    yield descriptor
    if os.path.exists(f"/proc/self/fd/{descriptor}"):
        os.close(descriptor)


def piped(text: str, *, ended: bool = True) -> tuple[int, int]:
    """A pipe that holds ``text``: its read end, and its write end, which is closed if ``ended``."""
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    os.write(writing, text.encode())
    if ended:
        os.close(writing)
    return reading, writing


def test_a_file_that_was_opened_is_read_once_for_all_nodes_and_closed(vault: Path, given: int) -> None:
    file = comes_from(vault, f"descriptor: {given}")
    nodes = with_secret(*(load_place(file, node) for node in ("n1", "n2", "n3")))
    assert [node.master_secret for node in nodes] == [SECRET] * 3
    assert not os.path.exists(f"/proc/self/fd/{given}")
    assert f"descriptor {given}: expected one that is open for reading: Bad file descriptor" in refusal(file)


def test_a_file_that_two_nodes_were_given_is_read_by_both(vault: Path, given: int) -> None:
    again = os.dup(given)  # both descriptors share one file offset
    os.set_inheritable(again, True)
    for descriptor in (given, again):
        assert (
            load_node(comes_from(made(vault.parent / f"of-{descriptor}"), f"descriptor: {descriptor}"), "n1").master_secret
            == SECRET
        )


def test_a_pipe(vault: Path) -> None:
    reading, _ = piped(f"{SECRET.hex()}\n")
    assert load_node(comes_from(vault, f"descriptor: {reading}"), "n1").master_secret == SECRET


def test_a_pipe_that_somebody_else_has_read(vault: Path) -> None:
    emptied, _ = piped("")
    assert "and nothing else, not 0 characters" in refusal(comes_from(vault, f"descriptor: {emptied}"))
    os.close(emptied)


def test_a_pipe_whose_end_does_not_come(vault: Path) -> None:
    reading, writing = piped(SECRET.hex(), ended=False)
    said = refusal(comes_from(vault, f"descriptor: {reading}", seconds=0.05), Unavailable)
    assert said.endswith(f"descriptor {reading}: expected the secret, and then the end, within 0.05 s")
    os.close(reading)
    os.close(writing)


def test_a_file_without_a_name_is_nobody_else_s_and_one_that_others_can_read_is_refused(
    vault: Path, key: Path, given: int
) -> None:
    file = comes_from(vault, f"descriptor: {given}")
    key.chmod(0o644)
    assert f"descriptor {given}: expected mode 0600, not 0644" in refusal(file)
    key.unlink()
    assert load_node(file, "n1").master_secret == SECRET


@pytest.mark.parametrize(
    ("path", "flags", "words"),
    [
        ("kept.key", os.O_WRONLY, "expected one that is open for reading: Bad file descriptor"),
        (os.devnull, os.O_RDONLY, "expected a file, a pipe or a socket"),
        (".", os.O_RDONLY, "expected a file, a pipe or a socket"),
    ],
)
def test_what_is_no_source(vault: Path, key: Path, path: str, flags: int, words: str) -> None:
    descriptor = os.open(key.parent / path, flags)
    os.set_inheritable(descriptor, True)
    assert words in refusal(comes_from(vault, f"descriptor: {descriptor}"))
    os.close(descriptor)


def test_a_descriptor_of_our_own_is_none_that_we_were_given(vault: Path, key: Path) -> None:
    with key.open() as own:
        said = refusal(comes_from(vault, f"descriptor: {own.fileno()}"))
    assert "expected one that this process was started with; it is not" in said


_AS_INPUT = """
import os, sys
from pathlib import Path
from quorumvault.config.cluster import load_node
print(load_node(Path(sys.argv[1]), "n1").master_secret.hex(), os.readlink("/proc/self/fd/0"))
"""


def test_standard_input(vault: Path, key: Path) -> None:
    file = comes_from(vault, "descriptor: 0")
    command = [sys.executable, "-c", _AS_INPUT, str(file)]
    done = subprocess.run(command, input=key.read_text(), capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout.split() == [SECRET.hex(), "/dev/null"]


# The credential directory.


def test_the_credential_directory(vault: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret and a certificate's key, as systemd provides them: files of mode 0400 in a directory of mode 0500."""
    file = comes_from(vault, 'file: "{credentials}/master"')
    file.write_text(f'{file.read_text()}peers:\n  certificate: "{{credentials}}/{{node}}.pem"\n')
    assert "expected $CREDENTIALS_DIRECTORY to name the directory that {credentials} stands for" in refusal(file)
    place = vault.parent / "credentials"
    place.mkdir()
    key.rename(place / "master")
    (vault / "secrets" / "n1.pem").rename(place / "n1.pem")
    for path in place.iterdir():
        path.chmod(0o400)
    place.chmod(0o500)
    monkeypatch.setenv(credentials.VARIABLE, str(place))
    config = load_node(file, "n1")
    config.require_guarded()
    assert config.master_secret == SECRET
    assert "peers" in load_credentials(config.cluster, "n1").ends()
    (place / "master").chmod(0o644)
    assert f"{place}/master: expected mode 0600, not 0644" in refusal(file)
    monkeypatch.setenv(credentials.VARIABLE, "credentials")
    assert "expected $CREDENTIALS_DIRECTORY to name" in refusal(file)


# Commands that work on the files of nodes.


def test_pack_asks_nobody_for_the_secret_and_says_what_it_has_not(vault: Path, key: Path, tmp_path: Path) -> None:
    file = runs(vault, "touch was-run; exit 1")
    packed = CliRunner().invoke(main, ["pack", str(vault), "--node", "n2", "-o", str(tmp_path / "n2.tar")])
    assert packed.exit_code == 0, packed.output
    assert "Not in it, since its host has it of its own: secrets.master.command." in packed.output
    assert not (vault / "was-run").exists()
    cluster = load_cluster(file)
    assert cluster.of_hosts("n2") == ["secrets.master.command"]
    assert cluster.secrets.master.place(file) == f"{file}: secrets.master.command"  # backup tells the operator to keep this


def test_recover_asks_once(vault: Path, key: Path) -> None:
    runs(vault, f"echo asked >> asked; cat {key}")
    recovered = CliRunner().invoke(main, ["recover", str(vault)])
    assert recovered.exit_code == 0, recovered.output
    assert (vault / "asked").read_text() == "asked\n"


def test_a_pipe_in_place_of_a_file_for_who_restores(tmp_path: Path) -> None:
    reading, _ = piped(SECRET.hex())
    path = Path(f"/dev/fd/{reading}")
    with pytest.raises(ConfigError, match="expected a file"):
        read_secret(tmp_path, "key", path)
    assert read_secret(tmp_path, "key", path, patience=SECONDS) == SECRET
    os.close(reading)


# What is left in memory.


_HOLDS = """
import sys
from pathlib import Path
from quorumvault.config.cluster import load_node
from quorumvault.crypto.keys import Keyring, fingerprint
from quorumvault.model import Owner
config = load_node(Path(sys.argv[1]), "n1")
fingerprint(config.master_secret)
Keyring("s1", config.master_secret).epoch_keys(Owner("clinic"), 1)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("source", ['file: "../kept.key"', "command: [cat, ../kept.key]"])
def test_a_process_has_the_secret_once_and_in_a_locked_page(vault: Path, key: Path, source: str) -> None:
    """Seen from outside, after it has derived keys: memory holds no hex digits of the secret and no second copy."""
    command = [sys.executable, "-c", _HOLDS, str(comes_from(vault, source))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        copies = [memory.count(text) for memory in readable(process.pid) for text in (SECRET, SECRET.hex().encode())]
        locked = re.search(r"VmLck:\s*(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        process.stdin.close()
        assert process.wait(SECONDS) == 0
    assert sum(copies) == 1
    assert locked is not None
    assert int(locked[1]) >= 4


def readable(pid: int) -> Iterator[bytes]:
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            region, rights, *_ = line.split()
            if "r" in rights and not line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                start, end = (int(bound, 16) for bound in region.split("-"))
                memory.seek(start)
                yield memory.read(end - start)


_MAY_NOT_LOCK = """
import os, resource
from quorumvault.config.process_memory import locked_page
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.geteuid() == 0:
    os.setuid(65534)
print(len(locked_page("the master secret")) > 0)
"""


def test_where_memory_may_not_be_locked_a_warning_says_so() -> None:
    done = subprocess.run([sys.executable, "-c", _MAY_NOT_LOCK], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout == "True\n"
    assert done.stderr.startswith("the master secret may be written to swap: it could not be locked into memory (")


def test_no_command_leaves_a_core_or_lets_others_look_into_it() -> None:
    """This holds for clients too, not only for nodes: clients hold API keys and values."""
    program = (
        "import atexit, ctypes, resource, sys; from quorumvault.cli import main; sys.argv = ['quorumvault', '--version'];"
        "atexit.register(lambda: print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))); main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout.splitlines()[-1] == "(0, 0) 0"
