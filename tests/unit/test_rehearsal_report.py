"""What a rehearsal shows."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from build_aware.rehearsal import legend, report, timeline
from build_aware.rehearsal.scenario import Options, plan
from build_aware.rehearsal.seen import Remark, Seen, SessionSeen, Visit, WorkerSeen
from build_aware.rehearsal.verdict import KINDS, Verdict, judge

VISIT = Visit("agent-1", "build-1.1", 5.3, None, (Remark(6.0, "build-1"),))
GOOD = SessionSeen(0, "build-1", 5, 8, None, (VISIT,))
MISROUTED = replace(GOOD, number=1, target="build-2")
LOST = replace(GOOD, number=2, visits=(), unanswered_s=5.1, left_s=17)
CUT = replace(GOOD, number=3, visits=(replace(VISIT, to_s=6.5),))
DOUBLED = replace(GOOD, number=4, target=None, visits=(VISIT, replace(VISIT, identity="agent-2")))
LATE = Visit("agent-3", "build-2.1", 18.3, None, (Remark(19.0, "build-2"),))
OUTDATED = SessionSeen(5, None, 18, 19.5, None, (LATE,))

OLD = WorkerSeen("build-1.1", "build-1", 0, 2, stop_s=9, exited_s=9.4)
NEVER = WorkerSeen("build-1.2", "build-1", 0, 2, stop_s=9, exited_s=39, gave_up_s=39)
CRASHED = WorkerSeen("build-2.1", "build-2", 4, 7, crashed_s=20, exited_s=20)
UNREADY = WorkerSeen("build-2.2", "build-2", 38, None)
NEWEST = WorkerSeen("build-3.1", "build-3", 1, 3)

SEEN = Seen(
    "stock",
    (GOOD, MISROUTED, LOST, CUT, DOUBLED, OUTDATED),
    (OLD, NEVER, CRASHED, UNREADY, NEWEST),
    targets=((0, "build-1"), (8, "build-2")),
    stops=((9, "build-1"),),
    end_s=40,
)
VERDICT = judge(SEEN)


def shown(*verdicts: Verdict) -> list[list[str]]:
    out = StringIO()
    Console(file=out, width=120).print(report.table(verdicts))
    return [line.split() for line in out.getvalue().splitlines()]


def test_the_table_has_a_row_for_each_contestant_and_all_numbers() -> None:
    other = replace(VERDICT, contestant="naive", troubles=(), delay=None, lingering=())
    heading, stock, naive = shown(VERDICT, other)
    assert " ".join(heading) == f"worker {' '.join(report.HEADINGS)}"
    assert stock[:8] == ["stock", "6", "5", "1", "1", "1", "1", "1"]
    assert stock[8:] == ["0.3", "s", "0.3", "s", "0.3", "s", "0.4", "to", "0.4", "s,", "1", "never"]
    assert naive == ["naive", "6", "5", "0", "0", "0", "0", "0", "-", "-", "-", "-"]


def test_the_table_fits_a_page() -> None:
    out = StringIO()
    long = replace(VERDICT, contestant="naive-false")
    Console(file=out, width=200).print(report.table([long]))
    assert max(len(line.rstrip()) for line in out.getvalue().splitlines()) <= 120


def test_lingering_is_never_only_if_no_worker_went() -> None:
    seen = replace(SEEN, workers=(NEVER,))
    assert report.lingering(judge(seen)) == "never"


def test_troubles_are_told_in_words_but_not_endlessly() -> None:
    assert report.troubles(VERDICT)[0] == (
        "stock: session 1 misrouted: asked for build-2, answered by build-1"
    )
    many = replace(VERDICT, troubles=VERDICT.troubles * 5)
    lines = report.troubles(many)
    assert len(lines) == report.SHOWN_TROUBLES + 1
    assert lines[-1] == f"stock: and {len(many.troubles) - report.SHOWN_TROUBLES} more"


def test_the_json_has_the_scenario_the_verdict_and_what_was_seen() -> None:
    options = Options(sessions=5, seed=3)
    content = json.loads(report.as_json(options, plan(options), [(SEEN, VERDICT)]))
    assert content["options"]["seed"] == 3
    assert len(content["scenario"]["sessions"]) == 5
    assert content["clean"] is False
    (stock,) = content["contestants"]
    assert {kind: stock[kind] for kind in KINDS} == dict.fromkeys(KINDS, 1)
    assert stock["lingering"] == {"build-1.1": pytest.approx(0.4), "build-1.2": None}
    assert len(stock["seen"]["workers"]) == 5


def test_the_states_of_a_worker_follow_each_other() -> None:
    assert timeline.states(OLD, 9.4) == [
        (0, 2, "starting"),
        (2, 9, "ready"),
        (9, 9.4, "draining"),
    ]
    assert timeline.states(UNREADY, 40) == [(38, 40, "starting")]


@pytest.mark.parametrize("suffix", timeline.SUFFIXES)
@pytest.mark.parametrize("count", [1, 3])
def test_the_picture_is_drawn_with_everything_in_it(
    tmp_path: Path, suffix: str, count: int
) -> None:
    file = tmp_path / f"rehearsal{suffix}"
    timeline.check_suffix(file)
    timeline.draw([(SEEN, VERDICT)] * count, file)
    content = file.read_bytes()
    if suffix == ".png":
        width = int.from_bytes(content[16:20])
        assert width == 1200
        return
    text = content.decode()
    for words in (
        "build-2.2",
        "stop build-1",
        "target: build-1",
        "killed: did not exit",
        "crashed",
    ):
        assert text.count(words) >= count, words
    for _, label in legend.MARKS.values():
        assert label in text


def test_a_picture_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a name that ends in \.svg or \.png"):
        timeline.check_suffix(Path("picture.jpeg"))


def test_builds_keep_their_colours_and_have_different_ones() -> None:
    found = timeline.colours(SEEN)
    assert list(found) == ["build-1", "build-2", "build-3"]
    assert len(set(found.values())) == 3
    assert len(set(timeline.COLOURS)) == len(timeline.COLOURS)
    assert set(legend.MARKS) == set(KINDS)
