"""The wheel ``quorumvault-client``: of the wheel of ``quorumvault`` what the SDK is made of, byte by byte, and what that needs.

A distribution of its own, since an extra can only add to what the base needs, and nodes need a store, a server and a command.
"""

import base64
import hashlib
import re
import zipfile
from email import message_from_string
from email.message import Message
from email.policy import compat32
from pathlib import Path

NAME = "quorumvault-client"
#: Its files, and folders with all that is in them.
PARTS = (
    *("quorumvault/__init__.py", "quorumvault/errors.py", "quorumvault/model.py", "quorumvault/py.typed"),
    *("quorumvault/client/", "quorumvault/analytics/"),
    *("quorumvault/crypto/__init__.py", "quorumvault/crypto/canonical.py", "quorumvault/crypto/tokens.py"),
)
#: What it needs without an extra, and the extras that its files serve.
NEEDS = ("httpx2", "msgspec")
EXTRAS = ("analytics", "dbt", "spark")
#: What the whole is besides, and the client is not: it has no command, no node and no plugin.
_OTHERS = ("Environment :: Console", "Framework :: Pytest", "Intended Audience :: System Administrators")
_DESCRIPTION = """\
# The client of QuorumVault, alone

    import quorumvault as qv

    with qv.Client("http://n1:8700,http://n2:8700,http://n3:8700") as vault:
        tokens = vault.tokenize(["Ada Lovelace", None, "42"])

The Python SDK and its DuckDB, dbt and Spark functions (extras `analytics`, `dbt`, `spark`), without what nodes and the command
`quorumvault` need. It has the same modules as the distribution `quorumvault`: install one of the two.
"""


def client_wheel(wheel: Path, into: Path) -> Path:
    """Makes the client's wheel in ``into`` out of the whole wheel. Returns its path."""
    _, version, tags = wheel.name.split("-", 2)
    stem = f"{NAME.replace('-', '_')}-{version}"
    path, record = into / f"{stem}-{tags}", list[str]()
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:

        def add(name: str, content: bytes, like: zipfile.ZipInfo) -> None:
            entry = zipfile.ZipInfo(name, like.date_time)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, like.external_attr
            made.writestr(entry, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            record.append(f"{name},sha256={digest},{len(content)}\n")

        for each in whole.infolist():
            folder, _, name = each.filename.partition("/")
            if each.filename.startswith(PARTS):
                add(each.filename, whole.read(each), each)
            elif folder.endswith(".dist-info") and name not in ("entry_points.txt", "RECORD"):
                content = whole.read(each)
                add(f"{stem}.dist-info/{name}", _metadata(content) if name == "METADATA" else content, each)
            elif name == "RECORD":
                last = each
        record.append(f"{stem}.dist-info/RECORD,,\n")
        add(f"{stem}.dist-info/RECORD", "".join(record).encode(), last)
    return path


def _metadata(text: bytes) -> bytes:
    """The core metadata of the client, out of those of the whole."""
    whole, made = message_from_string(text.decode()), Message()
    for key, value in whole.items():
        kept = _kept(key, value)
        if kept is not None:
            made[key] = kept
    made.set_payload(_DESCRIPTION)
    return made.as_bytes(policy=compat32.clone(max_line_length=None))


def _kept(key: str, value: str) -> str | None:
    match key:
        case "Name":
            return NAME
        case "Summary":
            return f"{value.split(':')[0]}: the Python client alone"
        case "Classifier":
            return None if value in _OTHERS else value
        case "Provides-Extra":
            return value if value in EXTRAS else None
        case "Requires-Dist":
            needed = re.match(r"[\w.-]+", value)
            extra = re.search(r'extra == "([\w-]+)"', value)
            if needed is None or not (extra[1] in EXTRAS if extra else needed[0] in NEEDS):
                return None
            return re.sub(r"^quorumvault\b", NAME, value)
    return value
