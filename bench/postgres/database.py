"""PostgreSQL on this machine: a primary and two standbys on loopback, with quorum commit, as durable as the vault.

A commit returns once it is on the primary's disk and on that of one standby (``ANY 1 (s1, s2)``, fsync on). Pages have checksums,
as LevelDB's blocks have. Other settings are what a team would set on a machine of this size.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from bench.processes import cpu_seconds
from chaos.testbed.cluster import HOST, environment, wait_for

PRIMARY, *STANDBYS = NAMES = ("primary", "s1", "s2")
_USER = "postgres"
_PATIENCE_SECONDS = 60.0
_LOG_TAIL_LINES = 10
#: The directory in which Debian installs each version of PostgreSQL.
INSTALLED = Path("/usr/lib/postgresql")

_SETTINGS = f"""
listen_addresses = '{HOST}'
unix_socket_directories = ''
max_connections = 60
synchronous_commit = on
fsync = on
full_page_writes = on
wal_level = replica
max_wal_senders = 6
# Tables and indexes of some million records stay in memory.
shared_buffers = 2GB
effective_cache_size = 8GB
maintenance_work_mem = 256MB
huge_pages = try
# Checkpoints are rare and spread: after each, the first change of a page puts the whole page into the log.
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9
max_wal_size = 8GB
min_wal_size = 2GB
wal_buffers = 64MB
wal_compression = lz4
# One plan for each prepared statement, made once; compiling it would take longer than running it.
plan_cache_mode = force_generic_plan
jit = off
random_page_cost = 1.1
"""
#: Records refer to an owner by number, and sealed values are not compressed, which would be useless. The primary key is the only
#: index.
_SCHEMA = """
CREATE TABLE owners (id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, epoch int4 NOT NULL DEFAULT 1);
CREATE TABLE records (
  owner int4 NOT NULL, epoch int4 NOT NULL, digest bytea NOT NULL, sealed bytea NOT NULL,
  PRIMARY KEY (owner, epoch, digest)
);
ALTER TABLE records ALTER COLUMN digest SET STORAGE PLAIN, ALTER COLUMN sealed SET STORAGE EXTERNAL;
"""


class PostgresError(Exception):
    """PostgreSQL is missing, or failed."""


def programs() -> Path:
    """Returns the directory with the programs of the newest PostgreSQL installed. Raises PostgresError."""
    installed = sorted(INSTALLED.glob("[0-9]*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = str(installed[-1]) if installed else shutil.which("initdb")
    if found is None:
        raise PostgresError("PostgreSQL is not on this machine; Debian's package postgresql has it: apt-get install postgresql")
    return Path(found).resolve().parent


class Database:
    """A primary and two standbys in a new directory, on three ports. Call ``start``, and ``stop`` at the end."""

    def __init__(self, directory: Path, ports: tuple[int, int, int]) -> None:
        self._programs = programs()
        self._within = ["setpriv", "--pdeathsig", "QUIT"]
        directory.mkdir()
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            self._within += ["--reuid", _USER, "--regid", _USER, "--clear-groups"]
            owner = pwd.getpwnam(_USER)
            os.chown(directory, owner.pw_uid, owner.pw_gid)
            directory.parent.chmod(0o711)
        self._directory = directory
        self._ports = dict(zip((PRIMARY, *STANDBYS), ports, strict=True))
        self._password = secrets.token_hex(16)
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def version(self) -> str:
        return self._run("postgres", "--version").strip()

    def variables(self, name: str = "primary") -> dict[str, str]:
        """Returns the environment variables of libpq for a server and its user."""
        port = str(self._ports[name])
        return {"PGHOST": HOST, "PGPORT": port, "PGUSER": _USER, "PGPASSWORD": self._password, "PGDATABASE": "postgres"}

    def start(self) -> None:
        """Makes the primary, copies it to the standbys, and returns when commits wait for a standby."""
        password = self._directory / "password"
        password.write_text(self._password)
        password.chmod(0o644)  # its directory is closed to other users
        primary = self._directory / PRIMARY
        sign_in = ("--auth=scram-sha-256", "--username", _USER, "--pwfile", str(password))
        self._run("initdb", "--pgdata", str(primary), "--data-checksums", "--encoding=UTF8", "--no-locale", *sign_in)
        password.unlink()
        with primary.joinpath("postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
        self._start(PRIMARY)
        for name in STANDBYS:
            where = str(self._directory / name)
            self._run("pg_basebackup", "--pgdata", where, "--checkpoint=fast", "--write-recovery-conf", "--no-sync")
            self._start(name)
        self.ask("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (s1, s2)'")
        self.ask("SELECT pg_reload_conf()")
        quorum = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'"
        if not wait_for(lambda: self.ask(quorum) == "2", _PATIENCE_SECONDS):
            raise PostgresError(f"the standbys do not follow; {self._log_tail(PRIMARY)}")
        self.ask(_SCHEMA)

    def stop(self) -> None:
        """Stops at once, since the data is no longer needed."""
        for server in self._servers.values():
            if server.poll() is None:
                server.send_signal(signal.SIGQUIT)
        for server in self._servers.values():
            server.wait()

    def analyze(self) -> None:
        """Updates the planner's statistics, as autovacuum would do a minute later."""
        self.ask("ANALYZE records, owners")

    def settle(self) -> None:
        """Vacuums the tables, and flushes everything to disk, on the standbys too."""
        self.ask("VACUUM ANALYZE records, owners")
        for name in self._servers:
            self.ask("CHECKPOINT", name)

    def ask(self, statement: str, name: str = "primary") -> str:
        """Returns the result of a statement as text. Raises PostgresError."""
        return self._run("psql", "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-Atc", statement, name=name).strip()

    def pids(self) -> list[int]:
        """Returns all processes: postmasters, backends, WAL senders and receivers, replay, checkpointers, writers."""
        return [pid for server in self._servers.values() for pid in (server.pid, *_children(server.pid))]

    def cpu_seconds(self) -> float:
        """Returns the CPU seconds of all processes so far, ended ones included."""
        return sum(cpu_of_tree(server.pid) for server in self._servers.values())

    def _start(self, name: str) -> None:
        log = self._directory / f"{name}.log"
        own = [f"--port={self._ports[name]}", f"--cluster_name={name}"]
        with log.open("ab") as out:
            self._servers[name] = subprocess.Popen(
                [*self._within, str(self._programs / "postgres"), "-D", str(self._directory / name), *own],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._directory,
                env=environment(),
                start_new_session=True,
            )
        if not wait_for(lambda: self._answers(name), _PATIENCE_SECONDS):
            raise PostgresError(f"{name} does not start; {self._log_tail(name)}")

    def _answers(self, name: str) -> bool:
        if self._servers[name].poll() is not None:
            raise PostgresError(f"{name} ended; {self._log_tail(name)}")
        ready = [str(self._programs / "pg_isready"), "--quiet"]
        return subprocess.run(ready, check=False, env=environment(**self.variables(name))).returncode == 0

    def _run(self, program: str, *arguments: str, name: str = "primary") -> str:
        done = subprocess.run(
            [*self._within, str(self._programs / program), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self._directory,
            env=environment(**self.variables(name)),
            check=False,
        )
        if done.returncode != 0:
            raise PostgresError(f"{program}: {done.stderr.strip()}")
        return done.stdout

    def _log_tail(self, name: str) -> str:
        lines = (self._directory / f"{name}.log").read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n    ".join(["the end of its log:", *lines])


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def cpu_of_tree(pid: int) -> float:
    """Returns the CPU seconds of a process and its children. Children it has reaped count with it, in hundredths (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    reaped = sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")
    total = reaped + cpu_seconds(pid)
    for child in _children(pid):
        with suppress(OSError):  # it has ended meanwhile, and counts as reaped next time
            total += cpu_seconds(child)
    return total
