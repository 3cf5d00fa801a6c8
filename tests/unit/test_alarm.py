"""What operators are told, and how often."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import pytest
from livekit.api import TwirpError, TwirpErrorCode
from livekit.protocol.models import Room
from prometheus_client import REGISTRY

from build_aware.adoption import alarm
from build_aware.adoption.alarm import FIRST_PAUSE_S, SHOWN_ROOMS, Alarm, Trouble
from build_aware.adoption.backoff import MAX_PAUSE_S, pause_s
from build_aware.adoption.launch import Busy
from build_aware.adoption.sweep import Sweep
from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.rooms import Rooms

BUSY: Final = Busy(0.951, 0.7)


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test may set."""
    now_s = [time.monotonic()]
    monkeypatch.setattr("build_aware.adoption.alarm.time.monotonic", lambda: now_s[0])
    return now_s


def rooms_of(*names: str) -> Rooms:
    rooms = Rooms()
    rooms.listed([Room(name=name, sid=f"RM_{name}", num_participants=1) for name in names], 0.0)
    return rooms


def record_of(rooms: Rooms, name: str) -> RoomRecord:
    record = rooms.get(name)
    assert record is not None
    return record


def warned(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Which rooms the warnings since the last question have named."""
    rooms = [vars(record)["rooms"] for record in caplog.records]
    caplog.clear()
    return rooms


# Rooms that wait


def test_a_room_is_named_at_once_and_again_once_a_minute(
    now_s: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    rooms = rooms_of("one", "two")
    told = Alarm(rooms)
    told.check(None)
    assert warned(caplog) == []
    record_of(rooms, "one").waits_for = ("build-B", "1.4.2")
    for expected in ([{"one": "'build-B or 1.4.2'"}], [], []):
        told.check(None)
        assert warned(caplog) == expected
        now_s[0] += 1
    record_of(rooms, "two").waits_for = ("build-B",)
    told.check(None)
    assert warned(caplog) == [{"two": "'build-B'"}]
    now_s[0] += alarm.WARNING_S
    told.check(None)
    assert warned(caplog) == [{"one": "'build-B or 1.4.2'", "two": "'build-B'"}]
    assert REGISTRY.get_sample_value("agent_rooms_waiting") == 2


def test_a_crowd_is_counted_and_only_some_of_it_named(
    now_s: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    rooms = rooms_of(*(f"room-{number:02}" for number in range(30)))
    for record in rooms.all():
        record.waits_for = ("x" * 500,)
    Alarm(rooms).check(None)
    (record_,) = caplog.records
    assert vars(record_)["count"] == 30
    shown = vars(record_)["rooms"]
    assert list(shown) == [f"room-{number:02}" for number in range(SHOWN_ROOMS)]
    assert all(len(target) <= alarm.SHOWN_TARGET for target in shown.values())


def test_rooms_that_wait_for_a_cpu_are_named_while_there_is_none(
    now_s: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    rooms = rooms_of("one")
    told = Alarm(rooms)
    record_of(rooms, "one").waits_for_cpu = True
    told.check(None)
    assert warned(caplog) == []
    told.check(BUSY)
    (record_,) = caplog.records
    assert (vars(record_)["load"], vars(record_)["threshold"]) == (0.95, 0.7)
    assert warned(caplog) == [["one"]]
    told.check(BUSY)
    assert warned(caplog) == []
    assert REGISTRY.get_sample_value("agent_rooms_waiting_for_cpu") == 1
    told.check(None)
    assert REGISTRY.get_sample_value("agent_rooms_waiting_for_cpu") == 0


# Calls that fail


def unavailable() -> TwirpError:
    return TwirpError(TwirpErrorCode.UNAVAILABLE, "try later", status=503)


def a_sweep() -> Sweep:
    return Sweep(lambda _rooms, _now_s: None)


def failing() -> float | None:
    return REGISTRY.get_sample_value("agent_adoption_failing")


def test_trouble_is_told_once_when_it_begins_and_once_when_all_works_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    rooms, sweep = rooms_of("one"), a_sweep()
    trouble = Trouble(sweep, rooms)
    trouble.worked(sweep)
    assert caplog.records == []
    for what in (sweep, record_of(rooms, "one"), sweep):
        trouble.failed(what, unavailable())
    assert (trouble.lasts, failing()) == (True, 1)
    trouble.worked(sweep)
    assert (trouble.lasts, failing()) == (True, 1)
    trouble.worked(record_of(rooms, "one"))
    assert (trouble.lasts, failing()) == (False, 0)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


def test_a_room_that_has_closed_troubles_nobody_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    rooms, sweep = rooms_of("one"), a_sweep()
    trouble = Trouble(sweep, rooms)
    trouble.failed(record_of(rooms, "one"), unavailable())
    rooms.listed([], 1_000.0)
    trouble.worked(sweep)
    assert failing() == 0
    assert len(caplog.records) == 2


@pytest.mark.parametrize(("error", "shown"), [(unavailable(), False), (KeyError("code"), True)])
def test_a_traceback_is_shown_for_errors_of_no_known_kind_only(
    error: Exception, shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = a_sweep()
    Trouble(sweep, Rooms()).failed(sweep, error)
    (record,) = caplog.records
    assert bool(record.exc_info) is shown
    assert vars(record)["error"] == str(error)


def test_calls_get_rarer_while_they_fail() -> None:
    sweep = a_sweep()
    trouble = Trouble(sweep, Rooms())
    pauses = [trouble.failed(sweep, unavailable()) for _ in range(7)]
    assert pauses == [FIRST_PAUSE_S, 4, 8, 16, 32, MAX_PAUSE_S, MAX_PAUSE_S]
    trouble.worked(sweep)
    assert trouble.failed(sweep, unavailable()) == FIRST_PAUSE_S


# The pauses


@pytest.mark.parametrize("failures", [-1, 0])
def test_after_no_failure_there_is_no_pause(failures: int) -> None:
    assert pause_s(4.0, failures) == 0


def test_pauses_double_up_to_a_minute() -> None:
    assert [pause_s(3.0, failures) for failures in range(1, 8)] == [3, 6, 12, 24, 48, 60, 60]
    assert pause_s(0.001, 10**9) <= MAX_PAUSE_S
