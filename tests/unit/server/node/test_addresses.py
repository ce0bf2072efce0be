"""A node that starts before its host has its name or address waits for them, and then reports that it waited."""

import logging
import socket
from pathlib import Path

import pytest

from quorumvault.config.addresses import Address
from quorumvault.config.cluster import NodePlace, load_place
from quorumvault.errors import ConfigError, Unavailable
from quorumvault.server.http.server import listening_socket
from quorumvault.server.node.addresses import await_addresses
from tests.rigs.made import made

#: The first needs no DNS query; the second is reserved for documentation (RFC 5737).
NOT_THERE = ("256.1.1.1", "192.0.2.7")


class Boot:
    """A clock, and a host whose addresses appear one second apart, the first of them after ``first`` seconds."""

    def __init__(self, first: float) -> None:
        self.now, self._comes = 0.0, first
        self.asked: list[str] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def listen(self, where: Path, key: str, address: Address) -> socket.socket:
        self.asked.append(key)
        if self.now < self._comes + (key == "nodes.n1.peer"):
            raise Unavailable(where, key, f"cannot listen on {address}")
        return socket.socket()


@pytest.fixture
def place(tmp_path: Path) -> NodePlace:
    return load_place(made(tmp_path / "vault") / "cluster.yaml", "n1")


def test_it_goes_on_once_both_are_there_and_says_every_few_seconds_what_it_waits_for(
    place: NodePlace, caplog: pytest.LogCaptureFixture
) -> None:
    boot = Boot(first=8.0)
    with caplog.at_level(logging.WARNING):
        await_addresses(place, boot.clock, boot.sleep, boot.listen)
    assert boot.now == 9.0
    assert boot.asked[-2:] == ["nodes.n1.api", "nodes.n1.peer"]
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2
    assert "nodes.n1.api: cannot listen on 127.0.0.1:9000; waiting for it, 30 s more" in lines[0]


def test_it_gives_up_after_startup_wait(place: NodePlace) -> None:
    boot = Boot(first=3600.0)
    with pytest.raises(Unavailable):
        await_addresses(place, boot.clock, boot.sleep, boot.listen)
    assert boot.now == place.cluster.startup.wait


@pytest.mark.parametrize("host", NOT_THERE)
def test_a_name_or_an_address_may_come_by_itself(host: str) -> None:
    with pytest.raises(Unavailable, match=rf"^file: key: cannot listen on {host}:1: "):
        listening_socket(Path("file"), "key", Address(host, 1))


def test_a_port_that_another_process_has_does_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError) as refused:
        listening_socket(tmp_path, "key", Address(*taken.getsockname()))
    assert not isinstance(refused.value, Unavailable)
