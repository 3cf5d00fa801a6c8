"""What a soak reads out of logs and measures."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.soak.growth import Sample, changes
from bench.soak.leftovers import lingering
from bench.soak.logs import kind_of, read
from bench.soak.timetable import Timetable
from build_aware.rehearsal.relay import Passage
from build_aware.rehearsal.seen import WorkerSeen

ROOT = Path("/checkout")

THEIRS = """Traceback (most recent call last):
  File "/checkout/.venv/lib/livekit/agents/worker.py", line 12, in run
    raise ConnectionError("no 12")
ConnectionError: no 12"""

OURS = """Traceback (most recent call last):
  File "/checkout/.venv/lib/livekit/agents/worker.py", line 12, in run
    await self.drain()
  File "/checkout/agent/worker.py", line 34, in drain
    self.nothing
AttributeError: 'Worker' has no attribute 'nothing'

"""


def record(level: str, message: str, **more: str) -> str:
    return json.dumps({"level": level, "message": message} | more)


def test_messages_are_counted_by_kind_from_a_warning_on() -> None:
    lines = [
        record("INFO", "fine"),
        record("WARNING", "retrying in 2s"),
        record("WARNING", "retrying in 4s"),
        record("ERROR", "retrying in 2s"),
    ]
    assert read(lines, ROOT).messages == {
        ("WARNING", "retrying in #"): 2,
        ("ERROR", "retrying in #"): 1,
    }


@pytest.mark.parametrize(
    "lines",
    [
        [record("ERROR", "it failed", exc_info=OURS)],
        [record("ERROR", f"it failed\n{OURS}")],
        [record("INFO", "it failed", exc_info=OURS)],
        ["printed before", *OURS.splitlines(), record("INFO", "fine")],
        OURS.splitlines(),
    ],
)
def test_a_traceback_through_our_code_is_ours(lines: list[str]) -> None:
    found = read(lines, ROOT)
    assert found.ours == 1
    (traceback,) = found.tracebacks
    assert traceback.ours == "agent/worker.py:34"
    assert traceback.cause == "AttributeError: 'Worker' has no attribute 'nothing'"


def test_tracebacks_of_others_are_counted_by_their_cause() -> None:
    found = read([record("ERROR", "failed", exc_info=THEIRS)] * 3 + THEIRS.splitlines(), ROOT)
    assert found.ours == 0
    assert [(t.cause, number) for t, number in found.tracebacks.items()] == [
        ("ConnectionError: no #", 3),
        ("ConnectionError: no #", 1),
    ]


def test_two_tracebacks_that_were_printed_are_two() -> None:
    assert sum(read([*OURS.splitlines(), *OURS.splitlines()], ROOT).tracebacks.values()) == 2


def test_a_cause_of_several_tasks_is_read_out_of_its_group() -> None:
    group = [
        "  + Exception Group Traceback (most recent call last):",
        '  |   File "/checkout/agent/worker.py", line 3, in run',
        "  | ExceptionGroup: unhandled errors (1 sub-exception)",
        "  +-+---------------- 1 ----------------",
        "    | Traceback (most recent call last):",
        '    |   File "/lib/x.py", line 5, in y',
        "    | ValueError: z",
        "    +------------------------------------",
    ]
    found = read([record("ERROR", "failed", exc_info="\n".join(group))], ROOT)
    (traceback,) = found.tracebacks
    assert (traceback.ours, traceback.cause) == ("agent/worker.py:3", "ValueError: z")


@pytest.mark.parametrize("file", ["/checkout/agents/x.py", "/other/agent/x.py", "agent/x.py"])
def test_only_the_agent_of_the_checkout_is_ours(file: str) -> None:
    text = OURS.replace("/checkout/agent/worker.py", file)
    assert read([record("ERROR", "failed", exc_info=text)], ROOT).ours == 0


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("room room-12 of AJ_x7 at 127.0.0.1:80", "room room-# of # at #.#.#.#:#"),
        ('blocked for 12ms at "/a/b.py", line 3, in x; move it', "blocked for #"),
        ("blocked for 12ms importing agent.offline", "blocked for #"),
        ("giving up on LiveKit; check its URL", "giving up on LiveKit"),
        ("first\nsecond", "first"),
        ("", ""),
    ],
)
def test_a_kind_is_a_message_without_what_differs(message: str, kind: str) -> None:
    assert kind_of(message) == kind


# Growth


def test_growth_is_the_median_at_the_end_over_that_in_the_middle() -> None:
    samples = [Sample(float(n), 100, 50, 10, 5, 3) for n in range(0, 601, 3)]
    assert {change.percent for change in changes(samples)} == {0}
    grown = [replace(s, pss_mib=60.0 if s.at_s >= 540 else s.pss_mib) for s in samples]
    grown[100] = replace(grown[100], pss_mib=5000.0)  # One peak is no growth.
    by_name = {change.name: change for change in changes(grown)}
    assert (by_name["pss_mib"].middle, by_name["pss_mib"].end) == (50, 60)
    assert by_name["pss_mib"].percent == pytest.approx(20)
    assert by_name["threads"].percent == 0


def test_too_few_samples_tell_nothing() -> None:
    assert changes([Sample(0, 1, 1, 1, 1, 1)] * 3) == []


# Left over

STOPPED = WorkerSeen("build-1.1", "build-1", started_s=0, ready_s=2, stop_s=20, exited_s=40)


def served(until_s: float | None) -> list[Passage]:
    return [Passage("room-1", "agent-1", "build-1.1", 5, until_s)]


@pytest.mark.parametrize(
    ("worker", "until_s", "why"),
    [
        (STOPPED, 39, None),
        (STOPPED, 10, None),
        (replace(STOPPED, exited_s=51), 10, "stayed 31 s for nobody"),
        (replace(STOPPED, exited_s=80), 60, None),
        (replace(STOPPED, exited_s=None), 10, "does not exit"),
        (replace(STOPPED, gave_up_s=39.0), 10, "does not exit"),
        (replace(STOPPED, stop_s=None, exited_s=None), 10, None),
        (replace(STOPPED, crashed_s=22.0, exited_s=99), 10, None),
    ],
)
def test_a_worker_that_stays_for_nobody_is_left_over(
    worker: WorkerSeen, until_s: float, why: str | None
) -> None:
    assert [left.why for left in lingering([worker], served(until_s))] == ([why] if why else [])


# The timetable


async def test_what_is_planned_after_a_late_fault_comes_later_too() -> None:
    late_s = 0.0

    def clock() -> float:
        return time.monotonic() + late_s

    times = Timetable([0.0, 0.02], clock)
    await times.fault(0)
    late_s = 50.0
    await times.user(0.01)  # Before the next fault: it waits for nothing.
    after = asyncio.create_task(times.user(0.04))
    await asyncio.sleep(0.01)
    assert not after.done()
    await times.fault(1)
    begun_s = clock()
    await after
    assert clock() - begun_s >= 0.02
