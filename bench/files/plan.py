"""The plans of file runs: the tables to copy, and the number of texts to send through the client alone."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """A table: its number of rows, and the number of distinct tokens in it."""

    rows: int
    distinct: int


@dataclass(frozen=True, slots=True)
class FilesPlan:
    """A plan. ``texts``: the number of distinct texts for the comparison of Arrow with JSON."""

    name: str
    cases: tuple[Case, ...]
    texts: int
    repetitions: int

    @property
    def distinct(self) -> int:
        """The number of values that must be in the vault."""
        return max(self.texts, *(case.distinct for case in self.cases))


FILES = FilesPlan(
    name="files",
    cases=(Case(10_000_000, 100_000), Case(20_000_000, 100_000), Case(10_000_000, 5_000_000)),
    texts=1_000_000,
    repetitions=3,
)

#: Shows in half a minute that everything still works. Its figures mean nothing: starting a process takes longer than the work.
FILES_SMOKE = FilesPlan(
    name="files-smoke", cases=(Case(200_000, 2_000), Case(400_000, 2_000), Case(200_000, 50_000)), texts=20_000, repetitions=1
)
FILES_PLANS = {plan.name: plan for plan in (FILES, FILES_SMOKE)}
