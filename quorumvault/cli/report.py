"""The result of a run over files, in words or as JSON."""

import shlex
from collections.abc import Sequence

from quorumvault.cli.output import print_json, say, visible
from quorumvault.files.job import Report

#: The cells that ``detokenize`` counts. It writes no tokens, so its report has no epoch.
BACK = "values that came back"


def print_report(report: Report, what: str, *, as_json: bool, err: bool = False) -> None:
    """Prints a report: words to standard error, JSON to standard output, or to standard error (``err``) if rows go to output."""
    if as_json:
        print_json(report, err=err)
    else:
        say(_words(report, what), err=True)
        for column, cells in report.values.items():
            _warn_of_nulls(column, report.like_nulls.get(column, {}), cells)
        for column, cells in report.damaged.items():
            what = f"{cells:,} cell{'s that begin like tokens and are' if cells > 1 else ' that begins like a token and is'} none"
            say(f"warning: {visible(column)} has {what}: mistyped, cut or changed; the text stays as it is", err=True)
        for told in report.still_there or ():
            say(f"note: {visible(told)}", err=True)
        if report.left:
            say(f"left as they are: {_shown(report.left)}", err=True)


def _warn_of_nulls(column: str, spellings: dict[str, int], cells: int) -> None:
    """Warns if more than one cell in a thousand has a usual spelling of a missing value."""
    if 1000 * sum(spellings.values()) > cells:
        shown = ", ".join(f"{spelling or 'nothing in quotes'} ({count:,})" for spelling, count in spellings.items())
        ways = " ".join(f"--null {shlex.quote(spelling)}" for spelling in spellings)
        words = f"{visible(column)} has cells that say {shown}, and all that say the same share one token"
        say(f"warning: {words}; if they are nulls: {ways}", err=True)


#: The most names of unchanged columns to show to people; JSON has all.
_NAMES_SHOWN = 40


def _shown(columns: Sequence[str]) -> str:
    more = f", and {len(columns) - _NAMES_SHOWN} more" if len(columns) > _NAMES_SHOWN else ""
    return ", ".join(map(visible, columns[:_NAMES_SHOWN])) + more


def _words(report: Report, what: str) -> str:
    columns = ", ".join(f"{visible(column)} {count:,}" for column, count in report.values.items())
    files = f"{report.files:,} files, " if report.files > 1 else ""
    words = [f"{files}{report.rows:,} rows; {what}: {columns}"]
    if report.there:
        words.append(f"{sum(report.values.values()):,} moved, {report.there:,} there")
    if report.untouched:
        words.append(f"{report.untouched:,} of the files had nothing to move, and stay as they are")
    if what != BACK:
        words.append(f"epoch {', '.join(map(str, report.epochs)) or 'unknown: no token was written'}")
    counts = (
        (report.kept_tokens, "cells had tokens already"),
        (report.not_found, "tokens not found"),
        (report.unavailable, "tokens could not be told, ask again"),
        (report.collision, "tokens in which two values met"),
        (report.no_token, "cells without a token"),
        (report.rejected, "cells listed as rejects"),
        (report.look_ups, "look-ups"),
        (report.parts_kept, "parts were there already"),
    )
    words += [f"{count:,} {what}" for count, what in counts if count]
    if report.left_out:
        words.append(f"metadata left out, which has values in it: {', '.join(map(visible, report.left_out))}")
    if report.not_kept:
        words.append(f"not kept: {', '.join(map(visible, report.not_kept))}")
    if report.in_order:
        words.append(f"rows are in the order of the values, which tells of them: {', '.join(map(visible, report.in_order))}")
    return "; ".join(words)
