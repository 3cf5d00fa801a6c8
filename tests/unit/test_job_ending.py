"""The end of a job: how it is known why it comes, and that it does come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from typing import Final

import pytest
from livekit import rtc
from livekit.agents import JobExecutorType

from build_aware.job import ending as module
from build_aware.job import logs
from build_aware.job.callbacks import EXIT_S
from build_aware.job.ending import CLOSE_S, Ending
from tests.support.jobs import CONNECTED, StubJob, Timers, settle, stub_job

LONG_S: Final = 10.0


def ending_of(job: StubJob, *, user_is_there: bool = True) -> Ending:
    job.room.connection_state = CONNECTED
    return Ending(job.ctx, job.facts, lambda: user_is_there)


# Why


async def test_the_teams_code_ends_a_session_on_purpose_while_a_user_is_there() -> None:
    job = stub_job()
    ending = ending_of(job)
    assert not ending.on_purpose
    job.ctx.shutdown("goodbye")
    assert (ending.on_purpose, job.shutdowns) == (True, ["goodbye"])
    assert ending.begun.is_set()


async def test_livekits_own_reason_stays() -> None:
    job = stub_job()
    ending_of(job)
    job.ctx.shutdown()
    job.ctx.shutdown(reason="named")
    assert job.shutdowns == ["user requested", "named"]


async def test_where_no_user_is_left_nobody_has_to_be_kept_from_coming_back() -> None:
    job = stub_job()
    ending = ending_of(job, user_is_there=False)
    job.ctx.shutdown()
    assert not ending.on_purpose


async def test_an_end_of_ours_is_not_on_purpose() -> None:
    job = stub_job()
    ending = ending_of(job)
    ending.end("another agent was here first")
    assert (ending.on_purpose, job.shutdowns) == (False, ["another agent was here first"])


@pytest.mark.parametrize(
    "how", ["ours", "disconnected", "entrypoint raised", "the worker closes", "worker closes now"]
)
async def test_who_is_told_of_an_end_and_ends_the_job_does_so_not_on_purpose(how: str) -> None:
    """LiveKit closes the session of a job that ends, and many agents end their job then."""
    job = stub_job()
    ending = ending_of(job)
    if how == "ours":
        ending.end("the last user left")
    elif how == "disconnected":
        job.room.cut(rtc.DisconnectReason.SERVER_SHUTDOWN)
    elif how == "worker closes now":
        job.facts.shared.closes = True
    else:
        ending.comes_by_itself(how)
    job.ctx.shutdown("the session closed")
    assert not ending.on_purpose
    assert job.shutdowns[-1] == "the session closed"


async def test_what_was_on_purpose_stays_so() -> None:
    job = stub_job()
    ending = ending_of(job)
    job.ctx.shutdown()
    job.facts.shared.closes = True
    job.ctx.shutdown("the session closed")
    assert ending.on_purpose


# Cut off


BY_SOMEBODY: Final = set(module._BY_SOMEBODY)


@pytest.mark.parametrize("drains", [False, True])
@pytest.mark.parametrize("reason", sorted(rtc.DisconnectReason.values()))
async def test_an_agent_that_lost_its_room_is_cut_off(
    reason: rtc.DisconnectReason.ValueType, drains: bool, caplog: pytest.LogCaptureFixture
) -> None:
    job = stub_job()
    ending = ending_of(job)
    job.facts.shared.drains = drains
    job.room.cut(reason)
    assert ending.begun.is_set()
    was_cut = reason not in BY_SOMEBODY
    assert job.facts.shared.cut is (was_cut and drains)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == was_cut
    for record in errors:
        assert vars(record)["cause"] == rtc.DisconnectReason.Name(reason)


async def test_who_ends_the_job_first_is_not_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    job = stub_job()
    ending_of(job)
    job.facts.shared.drains = True
    job.ctx.shutdown()
    job.room.cut(rtc.DisconnectReason.SIGNAL_CLOSE)
    assert (job.facts.shared.cut, caplog.records) == (False, [])


# That it comes


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    timers = Timers()
    monkeypatch.setattr(module, "after", timers)
    return timers


async def test_a_job_that_hangs_gets_livekits_own_limits_and_no_more(timers: Timers) -> None:
    job = stub_job(executor=JobExecutorType.PROCESS, session_end_s=120.0)
    ending = ending_of(job)
    assert list(timers) == []
    ending.comes_by_itself("the entrypoint raised")
    ending.end("again")
    assert list(timers) == [(CLOSE_S + 120, ending._give_up, ("the entrypoint raised",))]


@pytest.mark.parametrize(("shutdown_s", "given_up_s"), [(40.0, 27.0), (10.0, 5.0)])
async def test_callbacks_run_before_a_worker_that_closes_kills_its_jobs(
    shutdown_s: float, given_up_s: float, timers: Timers
) -> None:
    job = stub_job(executor=JobExecutorType.PROCESS, shutdown_s=shutdown_s, callbacks_s=10.0)
    ending = ending_of(job)
    ending.comes_by_itself("the user left")
    ending.worker_closes()
    assert list(timers)[1:] == [(given_up_s, ending._give_up, ("the worker closes",))]


async def test_a_job_in_a_thread_of_the_worker_is_not_given_up(timers: Timers) -> None:
    job = stub_job(executor=JobExecutorType.THREAD)
    ending_of(job).end("over")
    assert list(timers) == []


class Exited(BaseException):
    """Raised where the process would end."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def exit_(code: int) -> None:
        codes.append(code)
        raise Exited

    monkeypatch.setattr(logs, "flush", lambda: None)
    monkeypatch.setattr(os, "_exit", exit_)
    return codes


async def test_a_job_that_is_given_up_runs_its_callbacks(
    exits: list[int], timers: Timers, caplog: pytest.LogCaptureFixture
) -> None:
    job = stub_job(executor=JobExecutorType.PROCESS)
    ending = ending_of(job)
    told: list[str] = []

    async def tell(reason: str) -> None:
        told.append(reason)

    job.ctx.add_shutdown_callback(tell)

    def give_up() -> None:
        with contextlib.suppress(Exited):
            ending._give_up("the last user left")

    await asyncio.to_thread(give_up)
    assert (told, exits) == (["the last user left"], [1])
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert (vars(record)["room"], vars(record)["reason"]) == ("a-room", "the last user left")


async def test_a_job_whose_loop_hangs_ends_without_callbacks(
    exits: list[int], timers: Timers
) -> None:
    job = stub_job(executor=JobExecutorType.PROCESS, callbacks_s=-1.0)
    ending = ending_of(job)
    ended = threading.Event()

    def give_up() -> None:
        try:
            ending._give_up("over")
        except Exited:
            ended.set()

    thread = threading.Thread(target=give_up)
    thread.start()
    # The loop, which is this one, does nothing.
    assert ended.wait(LONG_S)
    thread.join()
    assert exits == [1]
    await settle()


# The worker dies


@pytest.mark.parametrize("disconnecting", ["works", "fails", "is cancelled"])
async def test_an_agent_whose_worker_has_died_leaves_its_room(disconnecting: str) -> None:
    job = stub_job()
    ending = ending_of(job)
    told: list[tuple[str, bool]] = []

    async def tell(reason: str) -> None:
        told.append((reason, job.room.isconnected()))

    async def disconnect() -> None:
        if disconnecting == "fails":
            raise RuntimeError("no connection")
        if disconnecting == "is cancelled":
            raise asyncio.CancelledError

    if disconnecting != "works":
        job.room.disconnect = disconnect  # type: ignore[method-assign]
    job.ctx.add_shutdown_callback(tell)
    beside = asyncio.create_task(ending.leave_when_the_worker_dies())
    await settle()
    assert told == []
    beside.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beside
    assert told == [("the worker died", disconnecting != "works")]


async def test_a_process_whose_worker_has_died_does_not_wait_for_what_never_ends(
    timers: Timers,
) -> None:
    job = stub_job(executor=JobExecutorType.PROCESS, callbacks_s=7.0)
    ending = ending_of(job)
    beside = asyncio.create_task(ending.leave_when_the_worker_dies())
    await settle()
    beside.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beside
    assert (7.0 + EXIT_S, os._exit, (1,)) in list(timers)


def test_the_limits_are_livekits() -> None:
    """15 s for the entrypoint and 60 s for a session; see `test_livekit_private`."""
    assert CLOSE_S == 15 + 60 + 5
