"""The violation that a checker reports."""

from dataclasses import dataclass


@dataclass(eq=False)  # not frozen: Python sets traceback and cause of a raised exception
class Violation(Exception):
    """``rule``: a short name, the same for all violations of one kind. ``op``: the operation where it shows, -1 at the end."""

    rule: str
    detail: str
    op: int = -1

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"
