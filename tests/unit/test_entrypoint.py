"""What runs around the team's functions in a job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest
from livekit import rtc
from livekit.agents import JobContext
from livekit.agents.job import _JobContextVar
from livekit.protocol.agent import Job
from livekit.protocol.models import Room

from build_aware.identity.build import Build
from build_aware.job import entrypoint as module
from build_aware.job.claim import Claim
from build_aware.job.entrypoint import Entrypoint, SessionEnd
from build_aware.job.facts import current_build
from tests.support.jobs import CONNECTED, Participant, StubJob, settle, stub_job

LONG_S: Final = 10.0


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a clock; those that want to are given one."""
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    monkeypatch.setattr(module, "CONNECT_S", 0.0)


@pytest.fixture(autouse=True)
async def end_the_loop_of_the_job() -> Any:
    """What runs beside an entrypoint ends with the event loop of its job."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def run(job: StubJob, function: Callable[[JobContext], Awaitable[None]]) -> None:
    async with asyncio.timeout(LONG_S):
        await Entrypoint(function)(job.ctx)


async def connects(ctx: JobContext) -> None:
    await ctx.room.connect("url", "token")


# The function


async def test_it_runs_with_livekits_own_context() -> None:
    seen: list[Any] = []

    async def function(ctx: JobContext) -> None:
        await connects(ctx)
        seen.append(ctx)

    job = stub_job()
    await run(job, function)
    assert seen == [job.ctx]
    await settle()
    assert job.shutdowns == []


async def test_a_job_without_a_room_is_left_alone() -> None:
    """As in the console: nothing is added to it."""
    job = stub_job(fake=True)
    await run(job, lambda _: asyncio.sleep(0))
    assert (job.callbacks, job.shutdowns) == ([], [])
    assert job.ctx.shutdown.__func__ is JobContext.shutdown  # type: ignore[attr-defined]


async def test_what_it_raises_is_livekits_to_see_and_ends_the_job() -> None:
    async def function(ctx: JobContext) -> None:
        raise LookupError("a bug")

    job = stub_job()
    with pytest.raises(LookupError, match="a bug"):
        await run(job, function)
    # LiveKit ends it, as it is told what was raised.
    assert job.shutdowns == []
    assert ending_of(job).begun.is_set()
    assert not ending_of(job).on_purpose


class Work:
    """An entrypoint that never returns.

    Attributes:
        began: set when it runs.
        cancelled: how often it was asked to end.
    """

    def __init__(self, *, minds: bool = True) -> None:
        self.began = asyncio.Event()
        self.released = asyncio.Event()
        self.cancelled = 0
        self._minds = minds

    async def __call__(self, ctx: JobContext) -> None:
        await connects(ctx)
        self.began.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            if self._minds:
                raise
            await self.released.wait()


def ending_of(job: StubJob) -> Any:
    return job.ctx.proc.userdata["build_aware.ending"]


def end_by_the_code(job: StubJob) -> None:
    job.ctx.shutdown("goodbye")


def lose_the_room(job: StubJob) -> None:
    job.room.cut(rtc.DisconnectReason.ROOM_DELETED)


def close_the_worker(job: StubJob) -> None:
    job.facts.shared.closes = True


def lose_the_user(job: StubJob) -> None:
    user = Participant()
    job.room.tells_of(user)
    job.facts.shared.drains = True
    job.room.leaves(user)


@pytest.mark.parametrize("end", [end_by_the_code, lose_the_room, close_the_worker, lose_the_user])
async def test_one_that_never_returns_is_cancelled_when_its_job_ends(
    end: Callable[[StubJob], None],
) -> None:
    job, work = stub_job(), Work()
    running = asyncio.create_task(run(job, work))
    await work.began.wait()
    await settle()
    assert not running.done()
    end(job)
    async with asyncio.timeout(LONG_S):
        await running
    assert work.cancelled == 1


async def test_one_that_returns_in_its_grace_is_not_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GRACE_S", LONG_S)
    job, work = stub_job(), Work()
    running = asyncio.create_task(run(job, work))
    await work.began.wait()
    job.ctx.shutdown()
    await settle()
    assert not running.done()
    work.released.set()
    await running
    assert work.cancelled == 0


async def test_one_that_is_cancelled_may_clean_up() -> None:
    job, began, cleaned_up = stub_job(), asyncio.Event(), asyncio.Event()
    clean_up = asyncio.Event()

    async def work(ctx: JobContext) -> None:
        await connects(ctx)
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await clean_up.wait()
            cleaned_up.set()

    running = asyncio.create_task(run(job, work))
    await began.wait()
    job.ctx.shutdown()
    await settle()
    assert not running.done()
    clean_up.set()
    await running
    assert cleaned_up.is_set()


async def test_one_that_does_not_mind_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    job, work = stub_job(callbacks_s=0.0), Work(minds=False)
    job.facts.shared.drains = True
    running = asyncio.create_task(run(job, work))
    await work.began.wait()
    job.ctx.shutdown()
    async with asyncio.timeout(LONG_S):
        await running
    assert work.cancelled == 1
    assert [r.levelname for r in caplog.records if "left behind" in r.getMessage()] == ["ERROR"]
    work.released.set()


async def test_one_is_cancelled_with_what_runs_it() -> None:
    """LiveKit cancels what it has waited for in vain."""
    job, work = stub_job(), Work()
    running = asyncio.create_task(run(job, work))
    await work.began.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await settle()
    assert work.cancelled == 1


# Never connected


@pytest.mark.parametrize("how", ["returns", "is cancelled"])
async def test_a_job_that_never_connects_ends(how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def function(ctx: JobContext) -> None:
        if how == "is cancelled":
            raise asyncio.CancelledError

    job = stub_job()
    await run(job, function)
    await settle()
    assert job.shutdowns == ["never connected"]
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "call ctx.connect()" in record.getMessage()


async def test_a_job_that_connects_late_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    elapse = asyncio.Event()

    async def sleep(delay_s: float) -> None:
        await (elapse.wait() if delay_s == 77 else real_sleep(delay_s))

    real_sleep = asyncio.sleep
    monkeypatch.setattr(module, "CONNECT_S", 77)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    job = stub_job()
    await run(job, lambda _: real_sleep(0))
    await job.ctx.room.connect("url", "token")
    elapse.set()
    for _ in range(10):
        await real_sleep(0)
    assert job.shutdowns == []


async def test_a_job_that_ends_need_not_connect(caplog: pytest.LogCaptureFixture) -> None:
    async def function(ctx: JobContext) -> None:
        ctx.shutdown("not now")

    job = stub_job()
    await run(job, function)
    await settle()
    assert job.shutdowns == ["not now"]
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


# One agent for one dispatch


async def test_where_another_agent_is_there_the_function_never_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def is_taken(_: Claim) -> bool:
        return True

    monkeypatch.setattr(Claim, "is_taken", is_taken)
    job, work = stub_job(adopts=True), Work()
    await run(job, work)
    assert not work.began.is_set()
    assert job.shutdowns == ["another agent was here first"]


async def test_a_job_that_ends_meanwhile_never_runs_the_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, work = stub_job(adopts=True), Work()

    async def is_taken(_: Claim) -> bool:
        ending_of(job).comes_by_itself("the worker closes")
        return False

    monkeypatch.setattr(Claim, "is_taken", is_taken)
    await run(job, work)
    assert not work.began.is_set()


@pytest.mark.parametrize(
    ("adopts", "dispatch_id", "claims"),
    [(True, "AD_1", True), (False, "AD_1", False), (True, "", False)],
)
async def test_only_where_another_worker_may_adopt_is_the_room_claimed(
    adopts: bool, dispatch_id: str, claims: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Claim] = []

    async def is_taken(claim: Claim) -> bool:
        asked.append(claim)
        return False

    monkeypatch.setattr(Claim, "is_taken", is_taken)
    job = stub_job(Job(id="AJ_1", dispatch_id=dispatch_id, room=Room(name="r")), adopts=adopts)
    await run(job, connects)
    assert len(asked) == claims


# What goes on beside it


async def test_the_end_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    job = stub_job()
    await run(job, connects)
    await job.run_callbacks("the last user left")
    (record,) = [each for each in caplog.records if each.getMessage() == "session ended"]
    assert vars(record)["reason"] == "the last user left"
    assert vars(record)["duration_s"] >= 0


@pytest.mark.parametrize("names", ["7f3c9a1e52d0", "000000000000", None])
async def test_a_job_that_was_taken_over_names_the_build_that_serves(names: str | None) -> None:
    """After `lk agent dev` has reloaded, the agent joins again with the token of before."""
    build = Build("7f3c9a1e52d0", version="1.4.2")
    job = stub_job(build=build)
    connect = job.room.connect

    async def with_the_old_token(*arguments: Any, **options: Any) -> None:
        await connect()
        attributes = {} if names is None else {"build.id": names, "team": "ours"}
        job.room.local_participant.attributes = attributes
        job.room.emit("connection_state_changed", rtc.ConnectionState.CONN_CONNECTED)

    job.room.connect = with_the_old_token  # type: ignore[method-assign]
    await run(job, connects)
    await settle()
    found = job.room.local_participant.attributes
    if names == "000000000000":
        assert found == {"team": "ours", "build.id": build.id, "build.version": "1.4.2"}
    else:
        assert found.get("build.id") == names
        assert "build.version" not in found


async def test_one_that_may_not_name_itself_says_so(caplog: pytest.LogCaptureFixture) -> None:
    job = stub_job()
    connect = job.room.connect

    async def without_permission(attributes: dict[str, str]) -> None:
        raise RuntimeError("not allowed")

    async def with_the_old_token(*arguments: Any, **options: Any) -> None:
        await connect()
        job.room.local_participant = SimpleNamespace(
            attributes={"build.id": "000000000000"}, set_attributes=without_permission
        )
        job.room.emit("connection_state_changed", rtc.ConnectionState.CONN_CONNECTED)

    job.room.connect = with_the_old_token  # type: ignore[method-assign]
    await run(job, connects)
    await settle()
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "can_update_metadata" in record.getMessage()


async def test_a_user_who_leaves_ends_the_job_once() -> None:
    job = stub_job(end_with_last_user="always")
    user = Participant()
    job.room.joins.append(user)
    await run(job, connects)
    job.room.leaves(user)
    job.room.connection_state = CONNECTED
    await settle()
    assert job.shutdowns == ["the last user left"]


# The end of a session


@pytest.fixture
def withdrawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    contexts: list[Any] = []

    async def withdraw(ctx: Any) -> None:
        contexts.append(ctx)

    monkeypatch.setattr(module, "withdraw", withdraw)
    return contexts


@pytest.mark.parametrize(
    ("on_purpose", "adopts", "dispatch_id", "withdraws"),
    [
        (True, True, "AD_1", True),
        # Nobody adopts its room.
        (True, False, "AD_1", False),
        # The user, a fault or the worker has ended it.
        (False, True, "AD_1", False),
        # Nobody has dispatched it.
        (True, True, "", False),
    ],
)
async def test_only_an_end_on_purpose_of_a_dispatched_job_is_withdrawn(
    on_purpose: bool, adopts: bool, dispatch_id: str, withdraws: bool, withdrawn: list[Any]
) -> None:
    job = stub_job(Job(id="AJ_1", dispatch_id=dispatch_id, room=Room(name="r")), adopts=adopts)
    job.ctx.proc.userdata["build_aware.ending"] = SimpleNamespace(on_purpose=on_purpose)
    await SessionEnd(None)(job.ctx)
    assert withdrawn == ([job.ctx] if withdraws else [])


async def test_the_worker_decides_whether_rooms_are_adopted_and_not_the_jobs_url(
    withdrawn: list[Any],
) -> None:
    job = stub_job()
    job.ctx.proc.userdata["build_aware.ending"] = SimpleNamespace(on_purpose=True)
    # It learns that from the server, when the job's process is warm already.
    job.facts.shared.adopts = True
    await SessionEnd(None)(job.ctx)
    assert withdrawn == [job.ctx]


async def test_a_job_that_is_ended_before_it_has_begun_is_not_withdrawn(
    withdrawn: list[Any],
) -> None:
    await SessionEnd(None)(stub_job(adopts=True).ctx)
    assert withdrawn == []


async def test_the_teams_own_is_called_after_ours(withdrawn: list[Any]) -> None:
    job = stub_job(adopts=True)
    job.ctx.proc.userdata["build_aware.ending"] = SimpleNamespace(on_purpose=True)
    seen: list[tuple[Any, int]] = []

    async def team(ctx: JobContext) -> None:
        seen.append((ctx, len(withdrawn)))

    await SessionEnd(team)(job.ctx)
    assert seen == [(job.ctx, 1)]


async def fails(ctx: JobContext) -> None:
    raise LookupError("no report")


async def test_what_the_teams_own_raises_is_livekits_to_see() -> None:
    with pytest.raises(LookupError):
        await SessionEnd(fails)(stub_job().ctx)


# Job processes get them by pickle


def test_they_can_be_sent_to_a_job_process() -> None:
    for each in (Entrypoint(connects), SessionEnd(fails), SessionEnd(None)):
        assert pickle.loads(pickle.dumps(each)) == each  # noqa: S301


# The build that serves


async def test_a_job_knows_its_build() -> None:
    job = stub_job(build=Build("the-build"))
    token = _JobContextVar.set(job.ctx)
    try:
        assert current_build() == Build("the-build")
        job.ctx.proc.userdata.clear()
        with pytest.raises(RuntimeError, match="was not started by a build_aware"):
            current_build()
    finally:
        _JobContextVar.reset(token)
