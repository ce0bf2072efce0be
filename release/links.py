"""The README's links. In a checkout they are paths; on the page of a package index paths lead nowhere."""

import re

_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)")


def absolute(text: str, source: str, version: str) -> str:
    """``text`` with its links to files as addresses of the files of this version at ``source``, the project's URL."""
    return _LINK.sub(lambda link: f"]({source}/blob/v{version}/{link[1]})", text)
