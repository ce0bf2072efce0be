#!/usr/bin/env -S python3 -ISB
"""Stand-ins for ssh, scp and sshd, chosen by the name of the call. They use plain TCP, without encryption or authentication.

``ssh`` starts in root's home, with an environment of its own.
"""

import base64
import json
import os
import socket
import socketserver
import subprocess
import sys
from pathlib import Path

PORT = 22
HOME = "/root"


class Session(socketserver.StreamRequestHandler):
    """One command: receives a line of JSON and the command's input; returns its exit code and output."""

    def handle(self) -> None:
        command = json.loads(self.rfile.readline())
        done = subprocess.run(["bash", "-c", command], input=self.rfile.read(), capture_output=True, cwd=HOME, check=False)
        printed = [base64.b64encode(output).decode() for output in (done.stdout, done.stderr)]
        self.wfile.write(json.dumps([done.returncode, *printed]).encode())


def sshd() -> None:
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("", PORT), Session) as server:
        print("up", flush=True)
        server.serve_forever()


def ssh(host: str, command: str, given: bytes) -> bytes:
    """Returns the command's output. Prints its errors, and exits with its exit code if that is not 0."""
    with socket.create_connection((host, PORT), timeout=10) as connection:
        connection.settimeout(None)
        connection.sendall(json.dumps(command).encode() + b"\n" + given)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            code, printed, complained = json.load(answer)
    sys.stderr.buffer.write(base64.b64decode(complained))
    if code:
        sys.exit(code)
    return base64.b64decode(printed)


def scp(source: str, target: str) -> None:
    host, colon, path = source.partition(":")
    content = ssh(host, f"cat {path}", b"") if colon else Path(source).read_bytes()
    host, colon, path = target.partition(":")
    if colon:
        ssh(host, f"cat > {path or Path(source).name}", content)
    else:
        Path(target).write_bytes(content)


def main() -> None:
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "sshd":
        sshd()
    elif name == "scp":
        scp(*arguments)
    else:
        given = b"" if os.isatty(0) else sys.stdin.buffer.read()
        sys.stdout.buffer.write(ssh(arguments[0], " ".join(arguments[1:]), given))


if __name__ == "__main__":
    main()
