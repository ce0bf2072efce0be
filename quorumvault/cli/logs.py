"""A node's logs, on stderr: one line for each message, with time (UTC), level, node and logger.

    2025-06-15T15:06:40.250Z WARNING n1 quorumvault.server.peers: n2 is down

or one JSON object for each message. A traceback follows its line, indented; in JSON it is a member.
"""

import logging
import sys
import traceback
from datetime import UTC, datetime

import msgspec

from quorumvault.cli.output import visible, visible_json


class _Line(msgspec.Struct, omit_defaults=True):
    time: str
    level: str
    node: str
    logger: str
    message: str
    traceback: str = ""


class LineFormatter(logging.Formatter):
    def __init__(self, node: str, *, as_json: bool) -> None:
        super().__init__()
        self._node = node
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        trace = "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else ""
        line = _Line(stamp, record.levelname, self._node, record.name, " ".join(record.getMessage().splitlines()), trace)
        if self._as_json:
            return visible_json(msgspec.json.encode(line).decode())
        text = f"{line.time} {line.level} {line.node} {line.logger}: {line.message}"
        return "\n    ".join(map(visible, (text, *trace.splitlines())))


def log_to_stderr(node: str, level: str, *, as_json: bool) -> None:
    """Logs everything in this process from ``level`` on, except uvicorn's messages below WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(node, as_json=as_json))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.captureWarnings(True)
