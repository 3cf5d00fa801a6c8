"""Adoption on a server in memory: what comes after what, and what a drain still owes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import pytest
from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo

from build_aware.adoption import adopt, adoption, watchlist
from build_aware.adoption.adoption import OWED_S, Adoption
from build_aware.adoption.judgement import Fits
from build_aware.adoption.launch import IsFree, Outcome
from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.rooms import Rooms
from build_aware.testbed.waiting import until
from tests.support.stub_api import (
    ROOM,
    StubServer,
    a_user,
    an_agent,
    asks,
    candidate,
    job_of,
)

FRENCH: Final = asks("fr", "fr", build="ours")
GERMAN: Final = asks("de", "de", build="ours", created_s=2)
ANYBODYS: Final = asks("any", "it")
SOON_S: Final = 10.0
"""Where a test would hang, it fails after this."""


@dataclass
class Worker:
    """A worker that adopts, and whose agents join at once.

    Attributes:
        refuses: ids of dispatches that its request handler refuses.
        crashes: whether its jobs end before their agents have joined.
    """

    server: StubServer = field(default_factory=StubServer)
    rooms: Rooms = field(default_factory=Rooms)
    sessions: dict[str, Job] = field(default_factory=dict)
    launched: list[str] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    crashes: bool = False
    connected: bool = True

    def __post_init__(self) -> None:
        self.adoption = Adoption(
            candidate(),
            self.rooms,
            api=self.server.open,
            sessions=self._sessions,
            accepting=tuple,
            may_adopt=lambda: self.connected,
            busy=lambda: None,
            launch=self._launch,
        )

    def _sessions(self) -> Mapping[str, Job]:
        return self.sessions

    async def _launch(self, job: Job, *, is_free: IsFree) -> Outcome:
        self.launched.append(job.dispatch_id)
        if job.dispatch_id in self.refuses:
            return "refused"
        if not self.crashes:
            self.serves(job)
        return "launched"

    def serves(self, job: Job, identity: str | None = None) -> ParticipantInfo:
        """A job runs here, and its agent is in its room."""
        agent = an_agent(job.dispatch_id, job_id=job.id, identity=identity)
        self.sessions[job.id] = job
        self.server.participants[job.room.name].append(agent)
        return agent

    async def has_launched(self, *dispatch_ids: str) -> None:
        await until(lambda: len(self.launched) >= len(dispatch_ids), f"{dispatch_ids} here", SOON_S)
        assert self.launched == [*dispatch_ids]

    async def sweeps(self, count: int = 2) -> None:
        before = self.server.calls["ListRooms"]
        await until(lambda: self.server.calls["ListRooms"] >= before + count, "some sweeps", SOON_S)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it in the twinkling of an eye."""
    monkeypatch.setattr(adoption, "TICK_S", 0.001)
    monkeypatch.setattr(adopt, "ARRIVAL_CHECK_S", 0.001)
    monkeypatch.setattr("build_aware.adoption.sweep.SWEEP_S", 0.01)
    monkeypatch.setattr("build_aware.adoption.sweep.FIRST_SWEEP_S", 0.0)
    monkeypatch.setattr("build_aware.adoption.sweep.MAX_SHARE", 1.0)


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def running(worker: Worker) -> AsyncIterator[Worker]:
    """A worker whose adoption runs."""
    task = asyncio.create_task(worker.adoption.run())
    yield worker
    task.cancel()
    await asyncio.wait({task})


# What comes after what


async def test_a_room_is_adopted_for_each_dispatch_that_waits_one_after_the_other(
    running: Worker,
) -> None:
    running.server.has(GERMAN, FRENCH)
    await running.has_launched("fr", "de")
    await running.sweeps()
    assert running.launched == ["fr", "de"]
    assert running.server.removed == []


async def test_a_room_is_adopted_for_the_one_that_is_missing(running: Worker) -> None:
    running.server.has(GERMAN, FRENCH, there=[a_user(), an_agent("fr")])
    await running.has_launched("de")
    await running.sweeps()
    assert running.launched == ["de"]


async def test_a_dispatch_that_the_handler_refuses_holds_up_no_other(running: Worker) -> None:
    running.refuses.add("fr")
    running.server.has(GERMAN, FRENCH)
    await running.has_launched("fr", "de")
    await running.sweeps(5)
    assert running.launched == ["fr", "de"]


async def test_a_session_that_crashes_is_replaced_at_once_then_ever_more_rarely(
    running: Worker,
) -> None:
    running.crashes = True
    running.server.has(FRENCH)
    await running.has_launched("fr", "fr")
    await running.sweeps(20)
    assert running.launched == ["fr", "fr"]
    record = running.rooms.get(ROOM)
    assert record is not None
    left_s = record.of(FRENCH).not_before_s - time.monotonic()
    assert 0 < left_s <= adopt.CRASH_PAUSE_S


async def test_the_agent_of_a_dead_job_is_replaced_and_its_namesakes_live_on(
    running: Worker,
) -> None:
    running.server.has(FRENCH, there=[a_user()], room="other")
    running.server.has(FRENCH)
    running.serves(job_of(FRENCH, "AJ_other", "other"), identity="fixed")
    running.serves(job_of(FRENCH, "AJ_dead"), identity="fixed")
    await running.sweeps()
    assert running.launched == []
    del running.sessions["AJ_dead"]
    await running.has_launched("fr")
    await running.sweeps()
    assert running.server.removed == ["fixed"]
    assert [each.sid for each in running.server.participants["other"]] == [
        "PA_user",
        "PA_AJ_other",
    ]


async def test_an_agent_that_publishes_nothing_is_missed_soon(
    running: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchlist, "CHECK_S", 0.02)
    running.server.has(FRENCH, there=[a_user(), an_agent("fr", job_id="AJ_elsewhere")])
    await running.sweeps()
    looks = running.server.calls["ListDispatch"]
    checked = running.server.calls["ListParticipants"] + 3
    await until(lambda: running.server.calls["ListParticipants"] >= checked, "three checks", SOON_S)
    assert running.server.calls["ListDispatch"] == looks
    running.server.participants[ROOM] = [a_user()]
    await running.has_launched("fr")


async def test_a_room_that_is_served_here_is_left_alone(running: Worker) -> None:
    running.server.has(FRENCH)
    running.serves(job_of(FRENCH))
    running.rooms.offered(job_of(FRENCH), time.monotonic())
    await running.sweeps(5)
    assert set(running.server.calls) == {"ListRooms"}


async def test_unless_it_asks_for_one_more(running: Worker) -> None:
    running.server.has(FRENCH, GERMAN)
    running.serves(job_of(FRENCH))
    running.rooms.offered(job_of(FRENCH), time.monotonic())
    running.rooms.offered(job_of(GERMAN), time.monotonic())
    await running.has_launched("de")


async def test_errors_are_waited_out(
    running: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("build_aware.adoption.alarm.FIRST_PAUSE_S", 0.01)
    running.server.has(FRENCH)
    running.server.error = OSError("the network is down")
    await until(lambda: running.server.calls["ListRooms"] >= 3, "three calls", SOON_S)
    states = [running.adoption.state]
    running.server.error = None
    await running.has_launched("fr")
    await running.sweeps()
    assert [*states, running.adoption.state] == ["failing", "on"]
    assert [record.levelno for record in caplog.records if record.name.endswith("alarm")] == [
        logging.WARNING
    ]


async def test_a_room_whose_node_is_gone_is_no_trouble_and_looked_at_when_somebody_is_back(
    running: Worker,
) -> None:
    running.server.has(FRENCH, there=[a_user(), an_agent("fr")])
    running.server.ghosts = {"user", "agent-AJ_fr"}
    await until(lambda: running.server.asked_for["user"], "a look", SOON_S)
    await running.sweeps()
    assert running.adoption.state == "on"
    assert running.launched == []

    back = a_user("back")
    back.joined_at += 1
    there = [*running.server.participants[ROOM], back]
    running.server.has(FRENCH, there=there)
    await running.has_launched("fr")


async def test_a_worker_that_is_cut_off_calls_nothing(running: Worker) -> None:
    running.connected = False
    running.server.has(FRENCH)
    for _ in range(20):
        await asyncio.sleep(0.001)
    calls = running.server.calls.total()
    running.connected = True
    await running.has_launched("fr")
    assert calls <= 1


# What a drain still owes


def record_of(worker: Worker, dispatch: AgentDispatch, *, seen_s_ago: float = 0.0) -> RoomRecord:
    room = worker.server.has(dispatch)
    worker.rooms.listed([room], time.monotonic() - seen_s_ago)
    record = worker.rooms.get(ROOM)
    assert record is not None
    return record


def adoptable(
    worker: Worker,
    record: RoomRecord,
    *,
    only_ours: bool = True,
    asked_s: float = 100.0,
    patient: bool = True,
) -> float:
    fits = Fits(FRENCH, "target", asked_s=asked_s, only_ours=only_ours)
    return worker.adoption._adoptable_in_s(record, fits, patient=patient)


@pytest.mark.parametrize("only_ours", [True, False])
def test_a_worker_that_serves_takes_whatever_it_may(worker: Worker, only_ours: bool) -> None:
    assert adoptable(worker, record_of(worker, FRENCH), only_ours=only_ours) <= 0


def test_one_that_drains_takes_what_only_its_build_may_serve(worker: Worker) -> None:
    record = record_of(worker, FRENCH)
    worker.adoption.drain_begins()
    assert adoptable(worker, record) <= 0
    assert adoptable(worker, record, only_ours=False) == float("inf")


@pytest.mark.parametrize(("later_s", "owed"), [(OWED_S - 1, True), (OWED_S + 1, False)])
@pytest.mark.parametrize("last", ["room", "dispatch"])
def test_and_what_it_knew_soon_after_the_signal(
    worker: Worker, last: str, later_s: float, owed: bool
) -> None:
    """The signal was a minute ago; a room or a dispatch in it was first seen some time after."""
    record = record_of(worker, FRENCH)
    worker.adoption.drain_begins()
    now_s = time.monotonic()
    worker.adoption._drain_began_s = now_s - 60
    record.first_seen_s = now_s - 60 + (later_s if last == "room" else 0)
    asked_s = 60 - later_s if last == "dispatch" else 100.0
    assert (adoptable(worker, record, asked_s=asked_s) <= 0) is owed


def test_pauses_and_refusals_hold_it_back_and_a_last_look_only_refusals(worker: Worker) -> None:
    record = record_of(worker, FRENCH)
    known, now_s = record.of(FRENCH), time.monotonic()
    known.not_before_s = now_s + 8
    assert 7 < adoptable(worker, record) <= 8
    assert adoptable(worker, record, patient=False) <= 0
    known.refused_until_s = now_s + 60
    assert 59 < adoptable(worker, record) <= 60
    assert 59 < adoptable(worker, record, patient=False) <= 60


async def test_the_last_look_adopts_what_nobody_else_may_serve(running: Worker) -> None:
    await running.sweeps()
    running.adoption.drain_begins()
    running.server.has(FRENCH)
    assert await running.adoption.last_look()
    assert running.launched == ["fr"]


async def test_it_leaves_to_others_what_they_may_serve(running: Worker) -> None:
    await running.sweeps()
    running.adoption.drain_begins()
    running.server.has(ANYBODYS)
    assert not await running.adoption.last_look()
    assert running.launched == []


async def test_it_takes_a_room_whose_session_has_just_crashed(running: Worker) -> None:
    running.server.has(FRENCH)
    running.serves(job_of(FRENCH, "AJ_dead"))
    await running.sweeps()
    running.adoption.drain_begins()
    running.sessions.clear()
    assert await running.adoption.last_look()
    assert running.server.removed == ["agent-AJ_dead"]


async def test_it_waits_for_an_offer_that_is_under_way(
    running: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.sweeps()
    running.adoption.drain_begins()
    monkeypatch.setattr("build_aware.adoption.judgement.OFFER_S", 0.2)
    running.server.has(asks("fr", "fr", build="ours", created_s=time.time()))
    assert await running.adoption.last_look()
    assert running.launched == ["fr"]


async def test_a_worker_that_never_swept_has_no_last_look(worker: Worker) -> None:
    assert not await worker.adoption.last_look()
