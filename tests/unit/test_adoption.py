"""Adoption on a server in memory: what comes after what, and what a drain still owes."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import pytest
from livekit.protocol.agent import Job, JobStatus
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo

from build_aware.adoption import adopt, adoption, judgement, left_jobs, watchlist
from build_aware.adoption.adoption import OWED_S, Adoption
from build_aware.adoption.judgement import Fits
from build_aware.adoption.launch import IsFree, Outcome
from build_aware.adoption.left_jobs import LeftJobs
from build_aware.adoption.watchlist import RECHECK_S
from build_aware.dispatch.attributes import BUILD_ID
from build_aware.dispatch.following import FOLLOWED_S, PAUSE_S, Following
from build_aware.dispatch.records import DispatchRecord
from build_aware.dispatch.rollout import Rollout
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
    full: bool = False
    following: Following = field(default_factory=lambda: Following("ours"))

    def __post_init__(self) -> None:
        self.adoption = Adoption(
            candidate(),
            self.rooms,
            api=self.server.open,
            sessions=self._sessions,
            accepting=tuple,
            connected=lambda: self.connected,
            may_adopt=lambda: self.connected and not self.full,
            busy=lambda: None,
            launch=self._launch,
            left=LeftJobs(self.following),
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


# What is left to another build


LEFT_S: Final = 0.2
NEW_IS_CURRENT: Final = (
    Rollout().appeared("ours", "then", make_current=True).appeared("new", "now", make_current=True)
)


@pytest.fixture
async def old(running: Worker, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker whose build was replaced, and that leaves jobs to the new one for a moment."""
    monkeypatch.setattr(left_jobs, "LEFT_S", LEFT_S)
    monkeypatch.setattr(adoption, "LEFT_S", LEFT_S)
    monkeypatch.setattr(watchlist, "RELOOK_S", LEFT_S / 10)
    running.following.learn(NEW_IS_CURRENT, time.monotonic(), becomes_known=True)
    return running


def refuses(worker: Worker, dispatch: AgentDispatch) -> DispatchRecord:
    """The worker refuses a job that it is offered, for another build's sake."""
    job = job_of(dispatch)
    worker.rooms.offered(job, time.monotonic())
    assert not worker.following.takes(ROOM, time.monotonic())
    worker.adoption.left(job)
    record = worker.rooms.get(ROOM)
    assert record is not None
    return record.of(dispatch)


def pauses(worker: Worker, now_s: float) -> None:
    """The worker has found that nobody took a job that it had left."""
    worker.following.doubt("another room", "another", now_s)
    assert worker.following.not_taken("another room", "another", now_s)


def agent_of(build: str, dispatch_id: str = "any") -> ParticipantInfo:
    """The agent of another worker."""
    agent = an_agent(dispatch_id, job_id=f"AJ_of_{build}")
    agent.attributes[BUILD_ID] = build
    return agent


def has_paused(worker: Worker) -> bool:
    return bool(worker.following.facts(time.monotonic())["paused"])


async def test_a_room_that_names_no_build_is_left_to_the_current_one_at_first(
    old: Worker,
) -> None:
    """Nobody has refused it: it may be that the new build's session has crashed."""
    began_s = time.monotonic()
    old.server.has(ANYBODYS)
    await old.has_launched("any")
    assert time.monotonic() - began_s >= LEFT_S
    assert not has_paused(old)


async def test_one_that_names_this_build_is_not(
    old: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_jobs, "LEFT_S", 1000.0)
    old.server.has(FRENCH)
    await old.has_launched("fr")
    assert not has_paused(old)


async def test_where_this_worker_has_paused_it_is_adopted_at_once(
    old: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_jobs, "LEFT_S", 1000.0)
    pauses(old, time.monotonic())
    old.server.has(ANYBODYS)
    await old.has_launched("any")


async def test_a_room_that_is_held_is_left_from_the_end_of_that_on(old: Worker) -> None:
    record = record_of(old, ANYBODYS)
    now_s = time.monotonic()
    record.of(ANYBODYS).left_s = now_s - 10 * LEFT_S
    record.held_until_s = now_s
    fits = Fits(ANYBODYS, "untargeted")
    assert old.adoption._adoptable_in_s(record, fits) > LEFT_S / 2


async def test_a_refused_job_that_somebody_takes_costs_one_call_and_opens_nothing(
    old: Worker,
) -> None:
    old.server.has(ANYBODYS, there=[])
    await old.sweeps()
    known = refuses(old, ANYBODYS)
    old.server.participants[ROOM] = [a_user(), agent_of("new")]
    await until(lambda: not known.was_refused, "an answer", SOON_S)
    await old.sweeps(5)
    assert old.server.calls.total() - old.server.calls["ListRooms"] == 1
    assert old.launched == []
    assert not has_paused(old)


async def test_also_where_it_was_looked_at_before_its_time(old: Worker) -> None:
    """Because it is new in the list."""
    known = refuses(old, ANYBODYS)
    old.server.has(ANYBODYS, there=[a_user(), agent_of("new")])
    await until(lambda: not known.was_refused, "an answer", SOON_S)
    later_s = time.monotonic() + 2 * LEFT_S
    await until(lambda: time.monotonic() > later_s, "its time", SOON_S)
    assert old.server.calls.total() - old.server.calls["ListRooms"] == 1


async def test_what_else_a_room_asks_for_by_then_is_looked_for_later(old: Worker) -> None:
    known = refuses(old, ANYBODYS)
    old.server.has(ANYBODYS, there=[a_user(), agent_of("new")], publishers=2)
    record = old.rooms.get(ROOM)
    assert record is not None
    record.watch.suspect(time.monotonic())
    await until(lambda: not known.was_refused and not record.is_looked_at, "an answer", SOON_S)
    assert old.server.calls["ListDispatch"] == 0
    assert record.watch.shows_agents
    assert time.monotonic() + RECHECK_S / 2 < record.watch.look_at_s < math.inf


async def test_an_agent_of_another_name_says_nothing_of_a_refused_job(old: Worker) -> None:
    """The list of rooms counts it like any other."""
    stranger = an_agent("other", name="other")
    old.server.has(ANYBODYS, there=[])
    await old.sweeps()
    refuses(old, ANYBODYS)
    old.server.has(ANYBODYS, there=[a_user(), stranger], publishers=2)
    await old.has_launched("any")


async def test_an_agent_for_another_dispatch_says_nothing_of_a_refused_one(old: Worker) -> None:
    record = record_of(old, FRENCH)
    record.agents = frozenset({"PA_fr"})
    old.server.has(FRENCH, ANYBODYS, there=[a_user(), an_agent("fr")], publishers=2)
    refuses(old, ANYBODYS)
    await old.has_launched("any")
    await until(lambda: has_paused(old), "a pause", SOON_S)


async def test_a_refused_job_that_nobody_takes_is_adopted(
    old: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    old.server.has(ANYBODYS)
    refuses(old, ANYBODYS)
    await old.has_launched("any")
    await until(lambda: has_paused(old), "a pause", SOON_S)
    (warning,) = (each for each in caplog.records if each.levelno == logging.WARNING)
    assert vars(warning)["wanted"] == "new"


async def test_nobody_else_waits_while_it_finds_out_whether_somebody_took_it(
    old: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_jobs, "LISTED_S", 1000.0)
    old.server.has(ANYBODYS)
    refuses(old, ANYBODYS)
    await old.has_launched("any")
    await until(lambda: has_paused(old), "a pause", SOON_S)


async def test_a_job_that_is_listed_late_opens_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a minute livekit-server lists no job before its dispatch is five seconds worker."""
    monkeypatch.setattr(left_jobs, "LISTED_S", 0.3)
    left, began_s = LeftJobs(worker.following), time.monotonic()
    taken = asks("any", "it")
    worker.following.learn(NEW_IS_CURRENT, 0, becomes_known=True)
    refuses(worker, taken)
    record = record_of(worker, taken)
    async with worker.server.open() as api:
        left.adopted(api, record, Fits(taken, "untargeted", asked_s=0.1))
        taken.state.jobs.add(id="AJ_elsewhere").state.status = JobStatus.JS_RUNNING
        worker.server.dispatches[ROOM] = [taken]
        await until(lambda: worker.server.calls["ListDispatch"] > 0, "the question", SOON_S)
        assert time.monotonic() - began_s >= 0.2
        await left.close()
    assert not has_paused(worker)


async def test_where_lists_are_slow_workers_learn_of_a_change_later(
    old: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await old.sweeps(2)
    assert old.following.within_s == FOLLOWED_S
    monkeypatch.setattr(old.adoption._sweep, "apart_s", 10.0)
    old.adoption._take_in([], time.monotonic())
    assert old.following.within_s == 16


async def test_nor_does_one_that_is_adopted_because_it_names_this_build_by_now(
    worker: Worker,
) -> None:
    worker.following.learn(NEW_IS_CURRENT, 0, becomes_known=True)
    refuses(worker, ANYBODYS)
    left = LeftJobs(worker.following)
    async with worker.server.open() as api:
        left.adopted(api, record_of(worker, ANYBODYS), Fits(ANYBODYS, "target", asked_s=60))
    assert not has_paused(worker)


@pytest.mark.parametrize("error", [TimeoutError(), AttributeError("a gateway's own words")])
async def test_nor_does_one_of_which_the_server_does_not_tell(
    worker: Worker, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.following.learn(NEW_IS_CURRENT, 0, becomes_known=True)
    refuses(worker, ANYBODYS)
    left, record = LeftJobs(worker.following), record_of(worker, ANYBODYS)
    worker.server.error = error
    async with worker.server.open() as api:
        left.adopted(api, record, Fits(ANYBODYS, "untargeted", asked_s=60))
        assert has_paused(worker)
        await until(lambda: not has_paused(worker), "following again", SOON_S)
        await left.close()


async def test_nor_does_a_room_that_has_closed_meanwhile(worker: Worker) -> None:
    worker.following.learn(NEW_IS_CURRENT, 0, becomes_known=True)
    refuses(worker, ANYBODYS)
    left = LeftJobs(worker.following)
    async with worker.server.open() as api:
        left.adopted(api, record_of(worker, ANYBODYS), Fits(ANYBODYS, "untargeted", asked_s=60))
        worker.server.dispatches[ROOM] = []
        await until(lambda: worker.server.calls["ListDispatch"] > 0, "the question", SOON_S)
        await left.close()
    assert not has_paused(worker)


async def test_one_that_the_request_handler_refuses_too_opens_nothing(old: Worker) -> None:
    old.refuses.add("any")
    old.server.has(ANYBODYS)
    refuses(old, ANYBODYS)
    await old.has_launched("any")
    await old.sweeps(5)
    assert not has_paused(old)


async def test_a_job_that_was_assigned_and_whose_agent_comes_late_opens_nothing(
    old: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgement, "JOIN_S", 3 * LEFT_S)
    assigned = asks("any", "it")
    job = assigned.state.jobs.add(id="AJ_elsewhere")
    job.state.status = JobStatus.JS_RUNNING
    job.state.started_at = time.time_ns()
    old.server.has(assigned)
    refuses(old, assigned)
    await old.has_launched("any")
    assert not has_paused(old)


async def test_who_joins_later_does_not_wait_for_as_long_again(
    old: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.server.has(ANYBODYS, there=[])
    await old.sweeps()
    known = refuses(old, ANYBODYS)
    await until(lambda: time.monotonic() > (known.left_s or 0) + LEFT_S, "its time", SOON_S)
    monkeypatch.setattr(left_jobs, "LEFT_S", 1.0)
    known.left_s = time.monotonic() - 1.0
    old.server.has(ANYBODYS)
    await old.has_launched("any")
    await until(lambda: has_paused(old), "a pause", SOON_S)


async def test_but_long_after_that_they_do(old: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_jobs, "REMEMBERED_S", 2 * LEFT_S)
    old.server.has(ANYBODYS, there=[])
    await old.sweeps()
    known = refuses(old, ANYBODYS)
    known.left_s = time.monotonic() - 3 * LEFT_S
    back_s = time.monotonic()
    old.server.has(ANYBODYS)
    await old.has_launched("any")
    assert time.monotonic() - back_s >= LEFT_S
    # That nobody took it is as true as before.
    await until(lambda: has_paused(old), "a pause", SOON_S)


async def test_a_probe_that_the_other_build_takes_ends_the_pause(
    old: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old.server.has(ANYBODYS, there=[])
    await old.sweeps()
    pauses(old, time.monotonic() - PAUSE_S)
    refuses(old, ANYBODYS)
    old.server.has(ANYBODYS, there=[a_user(), agent_of("new")], publishers=2)
    await until(lambda: "following the rollout again" in caplog.text, "following", SOON_S)
    assert not old.following.takes("next", time.monotonic())


async def test_a_probe_that_nobody_takes_is_adopted_and_the_next_pause_is_longer(
    old: Worker,
) -> None:
    old.server.has(ANYBODYS, there=[])
    await old.sweeps()
    pauses(old, time.monotonic() - PAUSE_S)
    refuses(old, ANYBODYS)
    old.server.has(ANYBODYS)
    await old.has_launched("any")
    await until(lambda: has_paused(old), "a pause", SOON_S)
    assert old.following.takes(ROOM, time.monotonic() + 2 * PAUSE_S - 1)


async def test_a_full_worker_lists_rooms_and_looks_at_none(running: Worker) -> None:
    running.full = True
    running.server.has(FRENCH)
    await running.sweeps(5)
    assert set(running.server.calls) == {"ListRooms"}
    running.full = False
    await running.has_launched("fr")


class Due:
    """What keeps a rollout, and would have a list of rooms at any time."""

    def registered(self, now_s: float) -> None:
        pass

    def is_due(self, now_s: float) -> bool:
        return True

    async def close(self) -> None:
        pass


async def test_lists_that_fail_are_not_hurried_for_the_rollouts_sake(worker: Worker) -> None:
    worker.server.error = ConnectionError("a gateway that is in the way")
    worker.adoption._keeper = Due()  # type: ignore[assignment]
    task = asyncio.create_task(worker.adoption.run())
    await until(lambda: worker.server.calls["ListRooms"] > 0, "the first list", SOON_S)
    later_s = time.monotonic() + 0.3
    await until(lambda: time.monotonic() > later_s, "some ticks", SOON_S)
    assert worker.server.calls["ListRooms"] == 1
    task.cancel()
    await asyncio.wait({task})
