"""``bin/python -m bench.files.memory [ROWS ...]``: the peak memory of ``tokenize``, by format and place, in MiB.

Tables have ROWS rows (default: 100,000 and 1,000,000) with 10,000 distinct texts. The vault is that of the environment
(QUORUMVAULT_URL, QUORUMVAULT_API_KEY), such as ``quorumvault dev``. Objects are in a local S3 server, a separate process, and in
stand-ins for Google's and Azure's stores. Stores whose libraries are not installed are left out. Memory must stay under 1 GiB and
not grow with the rows: the exit code is 1 if a run takes more, or if the last size takes twice as much as the first.
"""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import boto3
import duckdb
from deltalake import write_deltalake

from bench.files.child import measure
from chaos.testbed.azure_store import azure
from chaos.testbed.cluster import executable, wait_for
from chaos.testbed.google_store import google

DISTINCT: Final = 10_000
MOST_MIB, MOST_GROWTH = 1024.0, 2.0
#: The URL scheme of each store, and the library for it.
STORES: Final = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
#: A source and an output for each place; objects are put there and stay there.
PLACES: Final = {
    "CSV": ("{}.csv", "out.csv"),
    "CSV, gzip": ("{}.csv.gz", "out.csv.gz"),
    "JSON Lines": ("{}.jsonl", "out.jsonl"),
    "Parquet": ("{}.parquet", "out.parquet"),
    "DuckDB": ("{}.duckdb::t", "out.duckdb::t"),
    "Delta": ("{}.delta", "out.delta"),
    **{
        f"{name}, {scheme}://": (f"{scheme}://lake/{{}}.{suffix}", f"{scheme}://lake/out.{suffix}")
        for scheme, library in STORES.items()
        if importlib.util.find_spec(library) is not None
        for name, suffix in (("CSV", "csv"), ("Parquet", "parquet"))
    },
}
_TABLE: Final = """
    select range as id, 'patient-' || lpad((hash(range) % {})::varchar, 9, '0') as patient,
        'some words about row ' || range as note, (range % 1000 / 100)::decimal(9, 2) as amount
    from range({})
"""


def make(rows: int) -> None:
    """Makes the table in every format, in the current directory."""
    with duckdb.connect(f"{rows}.duckdb") as con:
        con.execute(f"create table t as {_TABLE.format(DISTINCT, rows)}")
        for suffix, options in (("csv", ""), ("csv.gz", "(format csv, compression gzip)"), ("parquet", "")):
            con.execute(f"copy t to '{rows}.{suffix}' {options}")
        con.execute(f"copy t to '{rows}.jsonl' (format json)")
        write_deltalake(f"{rows}.delta", con.sql("from t").to_arrow_table())


@contextlib.contextmanager
def stores(sizes: Sequence[int]) -> Iterator[None]:
    """Runs stores with the tables, which this process and its children use as S3, Google's and Azure's."""
    objects = {name: Path(name).read_bytes() for rows in sizes for name in (f"{rows}.csv", f"{rows}.parquet")}
    with s3(), google() as (address, of_google), azure() as (connection, of_azure):
        os.environ |= {"STORAGE_EMULATOR_HOST": address, "AZURE_STORAGE_CONNECTION_STRING": connection}
        of_google.objects |= objects
        of_azure.objects |= objects
        for name in objects:
            boto3.client("s3").upload_file(name, "lake", name)
        yield


@contextlib.contextmanager
def s3() -> Iterator[None]:
    """Runs a local S3 server with an empty bucket, which this process and its children use as S3."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([str(Path(sys.executable).with_name("moto_server")), "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        if not wait_for(lambda: _is_open(port), 60):
            raise RuntimeError(f"moto_server does not listen at 127.0.0.1:{port}: run it by hand to see why")
        boto3.client("s3").create_bucket(Bucket="lake")
        yield
    finally:
        server.terminate()
        server.wait()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> int:
    sizes = [int(each) for each in sys.argv[1:]] or [100_000, 1_000_000]
    print("| format and place |", " | ".join(f"{rows:,} rows" for rows in sizes), "|\n| --- |" + " --- |" * len(sizes))
    fits = True
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.ExitStack() as served:
        for rows in sizes:
            make(rows)
        served.enter_context(stores(sizes))
        for name, (source, output) in PLACES.items():
            mib = []
            for number, rows in enumerate(sizes):
                named = output.replace("out", f"out{number}")
                command = [executable(), "tokenize", source.format(rows), "--column", "patient", "-o", named]
                mib.append(measure(command, Path.cwd(), os.environ)[0].mib)
            print(f"| {name} |", " | ".join(f"{each:,.0f}" for each in mib), "|", flush=True)
            fits = fits and max(mib) < MOST_MIB and mib[-1] < MOST_GROWTH * mib[0]
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
