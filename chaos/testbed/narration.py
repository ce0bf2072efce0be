"""Prints a run for a person who watches: steps, remarks, and claims. A claim gets its mark only after its check."""

import os
from typing import TextIO

_BOLD, _GREEN, _RED, _PLAIN = "\x1b[1m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


class ClaimFailed(Exception):
    """A claim did not hold. ``saw``: what was found instead."""

    def __init__(self, text: str, saw: str) -> None:
        super().__init__(text)
        self.text = text
        self.saw = saw


class Narrator:
    """Writes to one stream, in colour if that is a terminal, and counts the claims that held."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colour = out.isatty() and "NO_COLOR" not in os.environ
        self._steps = 0
        self.held = 0

    def step(self, title: str) -> None:
        self._steps += 1
        self._write("")
        self._write(self._in(_BOLD, f"{self._steps}. {title}"))

    def say(self, text: str = "") -> None:
        self._write(f"   {text}".rstrip())

    def claim(self, text: str, held: bool, saw: str) -> None:
        """Prints a claim. Raises ``ClaimFailed`` unless it held."""
        if not held:
            raise ClaimFailed(text, saw)
        self.held += 1
        self._write(f" {self._in(_GREEN, '✓')} {text}")

    def failed(self, claim: ClaimFailed) -> None:
        self._write(f" {self._in(_RED, '✗')} {claim.text}")
        self.say(f"seen instead: {claim.saw}")

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text

    def _write(self, line: str) -> None:
        print(line, file=self._out, flush=True)
