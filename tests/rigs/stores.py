"""A local S3 server in this process (moto), and its content; a web server."""

import contextlib
import functools
import http.server
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import boto3
import pytest
from moto.server import ThreadedMotoServer

from chaos.testbed.http_servers import Quiet, Server, serving
from quorumvault.files import object_store
from tests.rigs import certificates

BUCKET = "lake"
_KEYS = {"AWS_ACCESS_KEY_ID": "an-access-key", "AWS_SECRET_ACCESS_KEY": "a-secret-key", "AWS_DEFAULT_REGION": "us-east-1"}


class Store:
    """The bucket ``lake`` of a server, used through the client of another library than the one under test."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.environment = {**_KEYS, "AWS_ENDPOINT_URL": address}
        self._s3 = boto3.client(
            "s3",
            endpoint_url=address,
            region_name=_KEYS["AWS_DEFAULT_REGION"],
            aws_access_key_id=_KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        self._s3.create_bucket(Bucket=BUCKET)

    def put(self, key: str, content: bytes) -> str:
        """Stores an object. Returns its URL."""
        self._s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        return f"s3://{BUCKET}/{key}"

    def get(self, key: str) -> bytes:
        return bytes(self._s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def keys(self, prefix: str = "") -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def uploads(self) -> list[str]:
        """The keys of uploads that are neither complete nor discarded."""
        return [each["Key"] for each in self._s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]

    def is_multipart(self, key: str) -> bool:
        return "-" in self._s3.head_object(Bucket=BUCKET, Key=key)["ETag"]

    def presigned(self, key: str) -> str:
        return str(self._s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": key}))

    def clear(self) -> None:
        for key in self.keys():
            self._s3.delete_object(Bucket=BUCKET, Key=key)


@contextlib.contextmanager
def store() -> Iterator[Store]:
    """A server that everything in this process takes for S3 within the block."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        made = Store(f"http://{host}:{port}")
        for name, value in made.environment.items():
            patch.setenv(name, value)
        object_store.forget()
        try:
            yield made
        finally:
            object_store.forget()
            server.stop()


class _Handler(Quiet, http.server.SimpleHTTPRequestHandler):
    """A handler without support for ranges, as on many servers. Keeps what was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()


@contextlib.contextmanager
def web(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server for a folder, over TLS. Yields its URL, and the list of requested paths."""
    _Handler.asked.clear()
    server = Server(functools.partial(_Handler, directory=str(folder)))
    server.socket = certificates.api_context().wrap_socket(server.socket, server_side=True)
    with serving(server) as address:
        yield f"https://{address}", _Handler.asked
