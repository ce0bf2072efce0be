"""One table of the outcomes of a cell: by the status of its text and the options of the job. Both engines use it.

A new status goes at the end of ``CellStatus`` (columns of codes rely on the order), and into ``TABLE`` with a row for each of its
outcomes. A cell gets its status from an answer (answers.py, columnar/answers.py), or from text/rows.py if the vault is not asked.
"""

from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from quorumvault.files.job import CellCounts, IfToken, Job, Missing

#: The status of one text: a status of the API, or one for values that are not sent, since no node would take them.
CellStatus: TypeAlias = Literal[
    "null",  # there was no text
    "ok",  # there is a replacement
    "not_found",
    "not_token",  # text of another form, which is not looked up
    "unavailable",
    "collision",
    "already_token",
    "too_large",
    "not_tokenizable",
    "typed",  # a JSON number or boolean, whose token differs from that of its text in other files
    "there",  # retokenize: a token of the active epoch
    "damaged",  # text that begins like a token and is none; it is not sent either
]
#: All statuses. Columns of codes rely on the order: a code is a position in this tuple.
STATUSES: Final[tuple[CellStatus, ...]] = get_args(CellStatus)
#: The name of each status in a column of statuses, in the same order. ``there`` is ``ok``, as in the API.
_NAMES: Final[dict[CellStatus, str]] = {"there": "ok", "damaged": "not_token"}
STATUS_NAMES: Final[tuple[str, ...]] = tuple(_NAMES.get(status, status) for status in STATUSES)
#: Statuses that are not cached: the next batch asks again. All other answers are cached for the whole run.
PASSING: Final[frozenset[CellStatus]] = frozenset({"unavailable"})


class CellOutcome(Enum):
    KEEP = "the cell stays as it is"
    NULL = "the cell is null in the output"
    REPLACE = "the answer takes the place of the text"
    FAIL = "the run ends, with the row and the problem"


class CellRule(NamedTuple):
    """A row of the table. It applies to jobs with these options; None matches any.

    ``counter``: the field of CellCounts that counts such cells (``values`` counts them for each column). ``code``: the code of
    such a cell in a list of rejects, the API's code if it has one; None if the cell is not listed. ``problem``: the reason why
    such a cell ends the run, with {column} for the column's name.
    """

    status: CellStatus
    outcome: CellOutcome
    counter: Literal["values", "damaged", "no_token", "not_found", "unavailable", "collision", "kept_tokens", "there"] | None = (
        None
    )
    code: str | None = None
    problem: str = ""
    tokenizes: bool | None = None
    if_token: IfToken | None = None
    missing: Missing | None = None
    has_rejects: bool | None = None

    def problem_at(self, column: str) -> str:
        return f"{column}: {self.problem.format(column=column)}"

    def holds(self, job: Job) -> bool:
        asked = self.tokenizes, self.if_token, self.missing, self.has_rejects
        given = job.operation == "tokenize", job.if_token, job.missing, job.rejects is not None
        return all(option is None or option == own for option, own in zip(asked, given, strict=True))


_TOKEN = "there is a token already; --if-token keep leaves tokens as they are"  # noqa: S105 - no password
_DAMAGED = "the text begins like a token and is none: it was mistyped, cut or changed"
_COLLISION = "token-collision: another value has the token that this one would get"
_LARGE = "the value is larger than a node takes"
_NO_VALUE = "a number with a fraction, an object, an array or -0 is no value to tokenize: make it a string"
_NO_TEXT = "a number or a boolean, and files say text: --cast {column} takes its text, --typed makes tokens of another kind"

TABLE: Final = (
    CellRule("null", CellOutcome.KEEP),
    CellRule("ok", CellOutcome.REPLACE, "values"),
    CellRule("there", CellOutcome.KEEP, "there"),
    CellRule("not_token", CellOutcome.KEEP, "no_token"),
    CellRule("damaged", CellOutcome.KEEP, "damaged", missing="keep"),
    CellRule("damaged", CellOutcome.KEEP, "damaged", missing="null"),
    CellRule("damaged", CellOutcome.FAIL, problem=_DAMAGED, missing="error"),
    CellRule("unavailable", CellOutcome.KEEP, "unavailable", "unavailable"),
    CellRule("collision", CellOutcome.KEEP, "collision", "token-collision", tokenizes=False),
    CellRule("collision", CellOutcome.NULL, "collision", "token-collision", tokenizes=True, has_rejects=True),
    CellRule("collision", CellOutcome.FAIL, problem=_COLLISION, tokenizes=True, has_rejects=False),
    CellRule("not_found", CellOutcome.KEEP, "not_found", "not-found", missing="keep"),
    CellRule("not_found", CellOutcome.NULL, "not_found", "not-found", missing="null"),
    CellRule("not_found", CellOutcome.FAIL, problem="no value of yours has this token", missing="error"),
    CellRule("already_token", CellOutcome.KEEP, "kept_tokens", if_token="keep"),  # noqa: S106 - no password
    CellRule("already_token", CellOutcome.NULL, code="already-tokenized", if_token="fail", has_rejects=True),  # noqa: S106
    CellRule("already_token", CellOutcome.FAIL, problem=_TOKEN, if_token="fail", has_rejects=False),  # noqa: S106
    CellRule("too_large", CellOutcome.NULL, code="value-too-large", has_rejects=True),
    CellRule("too_large", CellOutcome.FAIL, problem=_LARGE, has_rejects=False),
    CellRule("not_tokenizable", CellOutcome.NULL, code="not-tokenizable", has_rejects=True),
    CellRule("not_tokenizable", CellOutcome.FAIL, problem=_NO_VALUE, has_rejects=False),
    CellRule("typed", CellOutcome.NULL, code="typed-value", has_rejects=True),
    CellRule("typed", CellOutcome.FAIL, problem=_NO_TEXT, has_rejects=False),
)
#: The status of a value that cannot be tokenized, by the API's code.
FAULTS: Final[dict[str, CellStatus]] = {rule.code: rule.status for rule in TABLE if rule.code is not None and rule.has_rejects}


def cell_rules(job: Job) -> dict[CellStatus, CellRule]:
    """Returns the rows of the table for a job, one for each status; without a ``code`` if the job has no list of rejects."""
    lists = job.rejects is not None
    return {rule.status: rule if lists else rule._replace(code=None) for rule in TABLE if rule.holds(job)}


def count(totals: CellCounts, column: str, rule: CellRule, cells: int = 1) -> None:
    """Adds cells of a column to the counter of their rule."""
    if rule.counter == "values":
        totals.values[column] += cells
    elif rule.counter == "damaged":
        totals.damaged[column] = totals.damaged.get(column, 0) + cells
        totals.no_token += cells
    elif rule.counter is not None:
        setattr(totals, rule.counter, getattr(totals, rule.counter) + cells)
