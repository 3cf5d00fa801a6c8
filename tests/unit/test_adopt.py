"""What is adopted when, and what is remembered of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import pytest
from livekit.protocol.agent import Job, JobState
from livekit.protocol.agent_dispatch import AgentDispatch
from prometheus_client import REGISTRY

from build_aware.adoption import adopt
from build_aware.adoption.adopt import (
    BUSY_TURN_S,
    BUSY_WAIT_S,
    CRASH_PAUSE_S,
    FULL_S,
    REFUSED_S,
    Adopter,
    pause_s,
)
from build_aware.adoption.backoff import MAX_PAUSE_S
from build_aware.adoption.judgement import Fits
from build_aware.adoption.launch import Busy, IsFree, Outcome
from build_aware.adoption.left_jobs import LeftJobs
from build_aware.adoption.look import Lookout
from build_aware.adoption.own_jobs import OwnJobs
from build_aware.dispatch.following import Following
from build_aware.dispatch.records import DispatchRecord
from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.rooms import Rooms
from tests.support.stub_api import NAME, ROOM, StubServer, a_user, an_agent, asks, candidate

FRENCH: Final = asks("fr", "fr")
HANGS_S: Final = 2.0
"""Where a test would hang, it fails after this."""


@dataclass
class Worker:
    """A worker that adopts.

    Attributes:
        outcome: what becomes of the jobs that it launches.
        error: what a launch raises, if anything.
        launched: the jobs that it was to launch.
        free: whether the identity `fixed` was free, each time.
        full: whether it takes no more rooms.
        busy: what LiveKit measures of it, if it is full by that.
    """

    server: StubServer = field(default_factory=StubServer)
    outcome: Outcome = "launched"
    error: Exception | None = None
    launched: list[Job] = field(default_factory=list)
    free: list[bool] = field(default_factory=list)
    sessions: dict[str, Job] = field(default_factory=dict)
    full: bool = False
    busy: Busy | None = None

    def __post_init__(self) -> None:
        self.has_launched = asyncio.Event()
        self.server.has(FRENCH)
        self.rooms = Rooms()
        self.rooms.listed(self.server.rooms, time.monotonic())
        self.own = OwnJobs()
        self.adopter = Adopter(
            Lookout(candidate(), self.own),
            self.own,
            sessions=self._sessions,
            may_adopt=lambda: not self.full,
            busy=lambda: self.busy,
            launch=self._launch,
            left=LeftJobs(Following("ours")),
        )

    @property
    def record(self) -> RoomRecord:
        record = self.rooms.get(ROOM)
        assert record is not None
        return record

    @property
    def known(self) -> DispatchRecord:
        return self.record.of(FRENCH)

    async def adopt(self, waited_s: float = 0.0) -> float:
        fits = Fits(FRENCH, "target", waited_s)
        async with asyncio.timeout(HANGS_S):
            return await self.adopter.adopt(self.server.api, self.record, fits)

    def _sessions(self) -> Mapping[str, Job]:
        return self.sessions

    async def _launch(self, job: Job, *, is_free: IsFree) -> Outcome:
        assert self.adopter.starting == {job.id}
        self.launched.append(job)
        self.free.append(await is_free("fixed"))
        if self.error is not None:
            raise self.error
        if self.outcome == "launched":
            self.sessions[job.id] = job
            self.has_launched.set()
        return self.outcome


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(adopt, "ARRIVAL_CHECK_S", 0.001)
    return Worker()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def agent_comes(worker: Worker) -> None:
    """Once its job has started, its agent joins."""
    await worker.has_launched.wait()
    worker.server.participants[ROOM].append(an_agent("fr"))


# One adoption


async def test_a_room_is_adopted_and_looked_at_again_once_its_agent_is_there(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = REGISTRY.get_sample_value("agent_rooms_adopted_total", {"reason": "target"}) or 0
    coming = asyncio.create_task(agent_comes(worker))
    assert await worker.adopt() == 0.0
    await coming
    (job,) = worker.launched
    assert (job.dispatch_id, job.agent_name, job.room) == ("fr", NAME, worker.record.room)
    assert worker.adopter.starting == set()
    (logged,) = caplog.records
    assert logged.getMessage() == "adopting a waiting room"
    assert (vars(logged)["room"], vars(logged)["attempt"]) == (ROOM, 1)
    after = REGISTRY.get_sample_value("agent_rooms_adopted_total", {"reason": "target"})
    assert after == before + 1


async def test_it_is_not_waited_for_an_agent_whose_job_has_ended(worker: Worker) -> None:
    adopting = asyncio.create_task(worker.adopt())
    await worker.has_launched.wait()
    worker.sessions.clear()
    assert await adopting == 0.0
    assert worker.server.participants[ROOM] == [a_user()]


async def test_nor_longer_than_a_join_takes(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopt, "ARRIVAL_S", 0.02)
    assert await worker.adopt() == 0.0
    assert worker.sessions


async def test_a_job_that_cannot_be_started_is_told(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker.error = RuntimeError("no process became available")
    assert await worker.adopt() == 0.0
    assert worker.adopter.starting == set()
    (logged,) = caplog.records
    assert logged.levelno == logging.ERROR
    assert vars(logged)["error"] == "no process became available"
    assert worker.known.attempts == 1


async def test_whether_an_identity_is_free_is_asked_of_the_room(worker: Worker) -> None:
    worker.outcome = "taken"
    await worker.adopt()
    worker.server.participants[ROOM] = [a_user("fixed")]
    await worker.adopt()
    assert worker.free == [True, False]


# What the request handler refuses


async def test_a_handler_is_not_asked_again_for_what_it_has_refused(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker.outcome = "refused"
    before_s = time.monotonic()
    assert await worker.adopt() == 0.0
    assert worker.known.refused_until_s >= before_s + REFUSED_S
    assert worker.known.attempts == 0
    assert messages(caplog) == ["the request handler refused a waiting room"]
    assert worker.record.of(asks("de", "de")).refused_until_s < before_s


async def test_a_room_that_was_taken_meanwhile_is_tried_ever_more_rarely(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker.outcome = "taken"
    await worker.adopt()
    await worker.adopt()
    assert worker.known.attempts == 2
    assert worker.known.not_before_s > time.monotonic() + CRASH_PAUSE_S / 2
    assert "taken" in messages(caplog)[0]


# When there is no place


async def test_a_full_worker_adopts_nothing(worker: Worker) -> None:
    worker.full = True
    assert await worker.adopt() == FULL_S
    assert worker.launched == []


async def test_a_worker_that_is_full_by_cpu_waits_a_while_and_says_so(worker: Worker) -> None:
    worker.busy = Busy(0.95, 0.7)
    assert await worker.adopt(waited_s=4.0) == BUSY_WAIT_S - 4.0
    assert worker.launched == []
    assert worker.record.waits_for_cpu


async def test_then_it_adopts_one_room_at_a_time(worker: Worker) -> None:
    worker.busy = Busy(0.95, 0.7)
    first = asyncio.create_task(worker.adopt(waited_s=BUSY_WAIT_S))
    await worker.has_launched.wait()
    again_in_s = await worker.adopt(waited_s=BUSY_WAIT_S)
    assert (again_in_s, worker.record.waits_for_cpu) == (BUSY_TURN_S, True)
    assert len(worker.launched) == 1
    worker.sessions.clear()
    assert await first == 0.0


# Sessions that crash


def crashed(attempts: int, *, taken_before: bool = False) -> DispatchRecord:
    jobs = [Job(state=JobState(participant_identity="agent"))] if taken_before else []
    dispatch = AgentDispatch(id="fr")
    dispatch.state.jobs.extend(jobs)
    return DispatchRecord(dispatch, attempts=attempts)


def test_the_first_retry_comes_at_once_and_the_next_ones_ever_more_rarely() -> None:
    pauses = [pause_s(crashed(attempts), 0) for attempts in range(1, 9)]
    assert pauses == [0, 4, 8, 16, 32, MAX_PAUSE_S, MAX_PAUSE_S, MAX_PAUSE_S]


def test_the_run_that_the_dispatcher_began_counts_too() -> None:
    pauses = [pause_s(crashed(attempts, taken_before=True), 0) for attempts in range(1, 6)]
    assert pauses == [4, 8, 16, 32, MAX_PAUSE_S]


async def test_a_run_here_counts_before_the_server_lists_it(worker: Worker) -> None:
    """livekit-server lists a job that it has dispatched some five seconds later."""
    for running in ({"AJ_1": Job(id="AJ_1", dispatch_id=FRENCH.id)}, {}):
        worker.own.update(running, time.monotonic())
    adopting = asyncio.create_task(worker.adopt())
    await worker.has_launched.wait()
    worker.sessions.clear()
    await adopting
    assert worker.known.not_before_s == worker.known.adopted_s + CRASH_PAUSE_S


@pytest.mark.parametrize(("user_came", "attempts"), [("before", 4), ("since", 1)])
async def test_who_came_after_the_last_run_waits_for_none_of_its_crashes(
    user_came: str, attempts: int, worker: Worker
) -> None:
    now_s = time.monotonic()
    worker.known.attempts, worker.known.adopted_s = 3, now_s - 30
    worker.own.update({"AJ_1": Job(id="AJ_1", dispatch_id=FRENCH.id)}, now_s - 40)
    worker.own.update({}, now_s - 20)
    fits = Fits(FRENCH, "target", first_user_s=60 if user_came == "before" else 10)
    await worker.adopter.start(worker.server.api, worker.record, fits)
    assert worker.known.attempts == attempts
    pause_s = worker.known.not_before_s - worker.known.adopted_s
    assert pause_s == pytest.approx(CRASH_PAUSE_S * 4 if user_came == "before" else 0)


@pytest.mark.parametrize("crashed_here", range(1, 6))
def test_runs_are_not_counted_twice(crashed_here: int) -> None:
    assert pause_s(crashed(crashed_here + 1), crashed_here) == pause_s(crashed(crashed_here + 1), 0)


def test_a_dispatch_that_never_stops_crashing_is_never_given_up() -> None:
    assert pause_s(crashed(10**6), 0) == MAX_PAUSE_S


async def test_the_pause_begins_with_the_adoption(worker: Worker) -> None:
    for attempt in range(1, 5):
        began_s = time.monotonic()
        worker.has_launched.clear()
        adopting = asyncio.create_task(worker.adopt())
        await worker.has_launched.wait()
        worker.sessions.clear()
        await adopting
        pause = pause_s(crashed(attempt), 0)
        assert began_s + pause <= worker.known.not_before_s <= time.monotonic() + pause
