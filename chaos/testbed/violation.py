"""The violation that a checker reports."""

from dataclasses import dataclass


@dataclass(eq=False)  # not frozen: Python sets the traceback and the cause of what is raised
class Violation(Exception):
    """``rule`` is a short name, the same for the same kind of wrong; ``op`` is where it shows, -1 at the very end."""

    rule: str
    detail: str
    op: int = -1

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"
