"""The page of a run: well-formed, self-contained and true to the run's data; with and without a violation, and after an abort."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest

from chaos import report
from chaos import summary as told
from chaos.testbed.history import Action, Begun, Complete, FaultBegan, FaultEnded, Invoke, Note, Outcome, Record

VOID = re.compile(r"<((?:meta|link|br|hr|img|input|col|wbr)\b[^>]*)>")
BEGUN = Begun(7, "run", "2026-01-02T03:04:05+00:00", 90.0, ("kill", "pause"), "proxies", ("quorumvault",))
KILLED, STOPPED = "n1 is killed, with 3 requests at hand", "n2 is stopped (SIGSTOP) & goes on <later>"
SERVED, MISSED = told.Share(200, 200), told.Share(150, 149)
FAULTS = (
    told.FaultSeen(0, "kill", ("n1",), 2.0, 4.0, KILLED, True, SERVED, SERVED, 0.25, 0.5, 0.0, 2.5, 6.0, 0.0125, False),
    told.FaultSeen(1, "pause", ("n2",), 5.0, 7.5, STOPPED, True, MISSED, MISSED, None, 6.25, 0.0, None, 9.0, None, True),
)
RECORDS: list[Record] = [
    BEGUN,
    Note(0.0, "the work begins"),
    Invoke(0, Action.TOKENIZE, "acme", "n1", ("=1", "=2", "=3"), at=1.0),
    Complete(0, Outcome.OK, ("qv_1_0", "qv_1_1", "qv_1_2"), 1, at=1.004),
    Invoke(1, Action.DETOKENIZE, "zeta", "n3", ("qv_1_9",), at=1.5),
    FaultBegan(0, "kill", ("n1",), 2.0, KILLED),
    Invoke(2, Action.DETOKENIZE, "acme", "n2", ("qv_1_1",), at=3.0),
    Complete(2, Outcome.FAIL, at=3.5, why="no-quorum"),
    FaultEnded(0, 4.0, "n1 runs again"),
    Invoke(3, Action.DETOKENIZE, "acme", "n2", ("qv_1_0", "qv_1_1"), at=4.5),
    Complete(3, Outcome.OK, ("=1", "not_found"), at=4.512),
    FaultBegan(1, "pause", ("n2",), 5.0, STOPPED),
]
VIOLATION = told.Broken("lost", "operation 3: qv_1_1 is not found, and stood for =2 before", 3, (0, 2, 3))


def spread(least: float, median: float, most: float) -> told.Spread:
    return told.Spread(90, least, median, most)


def aims(**changed: object) -> told.Aims:
    seen = told.Aims(
        served=told.Share(350, 349),
        quiet=told.Share(350, 349),
        between=(0.9788, 0.99999),
        served_aim=0.999,
        recovery=told.Spread(2, 0.5, 3.375, 6.25),
        recovery_aim=5.0,
        mending=None,
        mending_aim=30.0,
        convergence=told.Spread(1, 2.5, 2.5, 2.5),
        convergence_aim=10.0,
        overtaken=1,
        convergence_by_kind={"kill": told.Spread(1, 2.5, 2.5, 2.5)},
    )
    return msgspec.structs.replace(seen, **changed)


def summary(**changed: object) -> told.Summary:
    valid = told.Summary(
        verdict=told.Verdict.VALID,
        too_busy=False,
        reasons=(),
        violation=None,
        seed=7,
        profile="run",
        started=BEGUN.started,
        seconds=90.0,
        net="proxies",
        command=BEGUN.command,
        version="0.1.0",
        bucket_seconds=0.5,
        operations={
            "detokenize": told.Operation(40, 38, 1, 1, 90, 0.004, 0.02, 0.31),
            "rotate": told.Operation(1, 0, 1, 0, 0, None, None, None),
        },
        series={"detokenize": told.Series((10, 0, 20, 10), (10, 0, 19, 9), (0.004, None, 0.005, 0.3), (0.01, None, 0.02, 0.31))},
        availability={"n1": told.Through((5, 0, 9), (5, 0, 0)), "n2": told.Through((4, 4, 4), (4, 3, 4))},
        faults=FAULTS,
        fault_counts={"kill": 1, "pause": 1},
        unavailable={"full-disk": "takes root"},
        aims=aims(),
        machine=told.Load(
            1,
            spread(0.001, 0.002, 0.3),
            spread(0.0, 0.0, 0.01),
            spread(0.1, 0.3, 0.9),
            spread(0.0, 0.5, 0.8),
            spread(0.5, 1.0, 9.0),
        ),
        final=told.FinalReads(3, 9, ("through n1", "through n2", "through n3")),
        exits=(told.Exit("n3", 6.0, 3, True, "its disk is full"),),
    )
    return msgspec.structs.replace(valid, **changed)


NOTHING = summary(
    verdict=told.Verdict.UNKNOWN, reasons=("too little was asked",), operations={}, series={}, availability={}, faults=(),
    fault_counts={}, unavailable={}, machine=None, final=told.NOTHING_READ,
    aims=aims(served=told.Share(0, 0), between=(0.0, 1.0), recovery=None, convergence=None),
    exits=(), version="",
)  # fmt: skip
INVALID = summary(verdict=told.Verdict.INVALID, reasons=(f"lost: {VIOLATION.detail}",), violation=VIOLATION)
RUNS = {"valid": (summary(), RECORDS), "invalid": (INVALID, RECORDS), "broken off": (NOTHING, [])}


def parsed(html: str) -> list[ElementTree.Element]:
    """The elements of a page in order. Every element that is opened has to be closed."""
    return list(ElementTree.fromstring(VOID.sub(r"<\1/>", html.removeprefix("<!doctype html>"))).iter())


def rows_of(html: str) -> list[str]:
    return [" ".join(" ".join(element.itertext()).split()) for element in parsed(html) if element.tag.endswith("tr")]


@pytest.fixture(params=RUNS)
def html(request: pytest.FixtureRequest) -> str:
    return report.render(*RUNS[request.param])


def test_the_page_is_whole_and_needs_nothing_else(html: str) -> None:
    page = parsed(html)
    ids = [element.attrib["id"] for element in page if "id" in element.attrib]
    assert len(set(ids)) == len(ids)
    assert {name for element in page for name in element.get("aria-labelledby", "").split()} <= set(ids)
    assert not re.search(r"https?:|url\(|@import|<script|<link|\b(?:src|href)=", html)
    headings = [element.tag for element in page if re.fullmatch(r"h\d", element.tag)]
    assert (headings[0], headings.count("h1")) == ("h1", 1)


def test_the_picture_is_an_image_that_says_what_it_shows(html: str) -> None:
    svg = html[html.index("<svg") : html.index("</svg>") + len("</svg>")]
    image = ElementTree.fromstring(svg)
    assert (image.get("role"), [child.tag for child in image][:2]) == ("img", ["title", "desc"])
    assert not re.search(r"\b(?:nan|inf)\b", svg)


def test_the_verdict_comes_first() -> None:
    for run, records in RUNS.values():
        html = report.render(run, records)
        text = re.sub(r"<[^>]+>", " ", html[html.index("<body>") :])
        assert f"three nodes under faults {run.verdict}" in " ".join(text.split())
        assert all(reason in text for reason in run.reasons)


def test_figures_are_there_beside_the_picture() -> None:
    rows = rows_of(report.render(summary(), RECORDS))
    assert "0 10 10 4.0 10.0" in rows
    assert "1 20 19 5.0 20.0" in rows
    assert "detokenize 40 38 1 1 90 4.0 20.0 310.0" in rows
    assert "rotate 1 0 1 0 0 – – –" in rows
    assert f"0 kill n1 2.0 4.0 {KILLED} 100 % of 200 0.25 s 0.50 s 2.50 s 12.5" in rows
    assert f"1 pause n2 5.0 7.5 {STOPPED} 99.33 % of 150 – 6.25 s* – –" in rows
    assert "6.0 n3 3 its disk is full yes" in rows


def test_the_machine_s_load_stands_beside_the_figures() -> None:
    words = (
        "load average 0.5 to 9.0; nodes and harness took 30% of the CPU, others 50% (0% to 80%); the control probe was 2 ms late "
        "(up to 300); too busy to judge by times in 1 of 90 s"
    )
    page = report.render(summary(), RECORDS)
    assert words in page
    assert "The replicas were the same after kill, alone: 2.5 to 2.5 s, 2.5 s at the median of 1." in page


def test_an_aim_that_was_missed_is_not_rounded_away() -> None:
    nearly = summary(aims=aims(served=told.Share(10**6, 10**6 - 1), recovery=spread(0.0, 1.0, 5.0)))
    served = {tile.words.split(",")[0]: tile for tile in report.tiles(nearly)}
    assert [(tile.figure, tile.held) for tile in served.values()][1:3] == [("99.99 %", True), ("5.00 s", True)]
    missed = report.tiles(summary())
    assert [(tile.figure, tile.held) for tile in missed[1:4]] == [("99.71 %", False), ("6.25 s", False), ("2.50 s", True)]
    assert [tile.held for tile in report.tiles(NOTHING)] == [None] * 5


def test_a_violation_is_shown_by_its_calls_with_what_they_have_in_common() -> None:
    html = report.render(INVALID, RECORDS)
    rows = rows_of(html)
    start = next(number for number, row in enumerate(rows) if row.startswith("1.000"))
    assert rows[start : start + 5] == [
        "1.000 4.0 0 n1 acme tokenize =2 → qv_1_1 and 2 more ok, epoch 1",
        f"2.000 fault 0 begins: {KILLED}",
        "3.000 500.0 2 n2 acme detokenize qv_1_1 fail: no-quorum",
        "4.000 fault 0 ends: n1 runs again",
        "4.500 12.0 3 n2 acme detokenize qv_1_1 → not_found and 1 more ok",
    ]
    assert html.count('<tr class="guilty">') == 1
    assert "qv_1_9" not in html


def test_words_of_a_run_are_text() -> None:
    html = report.render(INVALID, RECORDS)
    assert "<later>" not in html
    assert html.count("&lt;later&gt;") == html.count("later") > 1


def test_the_run_can_be_had_again() -> None:
    assert report.replay(summary(), BEGUN) == "bin/chaos run --minutes 1.5 --seed 7 --faults kill,pause --net proxies"
    assert report.replay(summary(profile="demo"), BEGUN) == "bin/chaos demo"
    assert report.replay(summary(profile="mutant", command=("run", "no-sync")), BEGUN) == "bin/chaos mutants no-sync"


def test_the_page_is_written_beside_what_it_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(msgspec.json.encode(INVALID))
    (tmp_path / "history.jsonl").write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in RECORDS))
    (tmp_path / "tokens.tsv").write_text("qv_1_1\tqv_1_a_whole_token\n")
    page = report.write(tmp_path)
    assert (page, page.read_text()) == (tmp_path / "report.html", report.render(INVALID, RECORDS))
    assert set(re.findall(r"qv_\w+", page.read_text())) == {"qv_1_1"}
