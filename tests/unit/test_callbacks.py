"""Shutdown callbacks: each runs once and in its time, whatever the others do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from livekit.agents import JobContext, JobExecutorType

from build_aware.job import callbacks
from build_aware.job.callbacks import EXIT_S, Callbacks
from tests.support.jobs import StubJob, Timers, settle, stub_job

NOT_AT_ALL_S = 0.0
LONG_S = 10.0


def bounded_job(limit_s: float = LONG_S) -> tuple[StubJob, Callbacks]:
    job = stub_job()
    return job, Callbacks(job.ctx, lambda: limit_s)


def named(records: list[logging.LogRecord]) -> list[Any]:
    """Which callbacks the log names."""
    return [vars(record)["callback"].rpartition(".")[2] for record in records]


async def test_all_run_with_the_reason_if_they_take_it() -> None:
    job, _ = bounded_job()
    seen: list[Any] = []

    class Team:
        async def method(self, reason: str) -> None:
            seen.append(("method", reason))

        async def bare(self) -> None:
            seen.append("bare method")

    async def with_reason(reason: str) -> None:
        seen.append(("function", reason))

    async def without() -> None:
        seen.append("bare function")

    async def with_a_keyword(*, level: int = 7) -> None:
        seen.append(("keyword", level))

    async def partial(more: str, reason: str) -> None:
        seen.append((more, reason))

    team = Team()
    for each in (
        *(team.method, team.bare, with_reason, without, with_a_keyword),
        *(functools.partial(partial, "partial"), lambda _: with_reason("other")),
    ):
        job.ctx.add_shutdown_callback(each)
    await job.run_callbacks("the call is over")
    assert seen == [
        ("method", "the call is over"),
        "bare method",
        ("function", "the call is over"),
        "bare function",
        ("keyword", 7),
        ("partial", "the call is over"),
        ("function", "other"),
    ]


def test_livekit_takes_the_same_for_an_argument() -> None:
    """What it gives the reason to gets it from us as well."""

    async def with_reason(reason: str) -> None: ...

    async def without() -> None: ...

    async def with_a_keyword(*, level: int = 7) -> None: ...

    async def with_any(*arguments: str) -> None: ...

    job = stub_job()
    for each in (with_reason, without, with_a_keyword, with_any):
        job.ctx.add_shutdown_callback(each)
        given = job.callbacks[-1] is each
        assert callbacks._takes_an_argument(each) is given


async def test_they_run_side_by_side() -> None:
    job, _ = bounded_job()
    first_runs, second_runs = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        first_runs.set()
        await second_runs.wait()

    async def second() -> None:
        second_runs.set()
        await first_runs.wait()

    job.ctx.add_shutdown_callback(first)
    job.ctx.add_shutdown_callback(second)
    async with asyncio.timeout(LONG_S):
        await job.run_callbacks()


async def fails() -> None:
    raise ValueError("the database is down")


def fails_at_once() -> Awaitable[None]:
    raise ValueError("the database is down")


@pytest.mark.parametrize("failing", [fails, fails_at_once])
async def test_one_that_fails_stops_no_other(
    failing: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    job, _ = bounded_job()
    seen: list[str] = []

    async def slow() -> None:
        await settle()
        seen.append("slow")

    job.ctx.add_shutdown_callback(failing)
    job.ctx.add_shutdown_callback(slow)
    await job.run_callbacks()
    assert seen == ["slow"]
    (record,) = caplog.records
    assert "failed" in record.getMessage()
    assert named([record]) == [failing.__name__]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_one_that_is_no_coroutine_runs_as_well(caplog: pytest.LogCaptureFixture) -> None:
    job, _ = bounded_job()
    seen: list[str] = []

    def plain(reason: str) -> None:
        seen.append(reason)

    job.ctx.add_shutdown_callback(plain)  # type: ignore[arg-type]
    await job.run_callbacks("over")
    assert (seen, caplog.records) == (["over"], [])


async def test_one_that_does_not_return_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    job, _ = bounded_job(NOT_AT_ALL_S)
    released = asyncio.Event()

    async def never() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await released.wait()
        await released.wait()

    job.ctx.add_shutdown_callback(never)
    async with asyncio.timeout(LONG_S):
        await job.run_callbacks()
    released.set()
    (record,) = caplog.records
    assert "did not return in time" in record.getMessage()
    assert "shutdown_process_timeout" in record.getMessage()
    assert named([record]) == ["never"]


async def test_each_runs_once_whoever_runs_them() -> None:
    job, bounded = bounded_job()
    seen: list[str] = []

    async def count(reason: str) -> None:
        seen.append(reason)

    job.ctx.add_shutdown_callback(count)
    await bounded.run("the worker died")
    await bounded.run("again")
    await job.run_callbacks("once more")
    assert seen == ["the worker died"]


async def test_those_that_run_already_are_waited_for() -> None:
    job, bounded = bounded_job()
    go = asyncio.Event()
    seen: list[str] = []

    async def slow() -> None:
        await go.wait()
        seen.append("done")

    job.ctx.add_shutdown_callback(slow)
    first = asyncio.create_task(job.run_callbacks())
    await settle()
    second = asyncio.create_task(bounded.run("given up"))
    await settle()
    assert not second.done()
    go.set()
    await asyncio.gather(first, second)
    assert seen == ["done"]


async def test_a_callback_keeps_its_name_for_livekits_traces() -> None:
    job, _ = bounded_job()
    job.ctx.add_shutdown_callback(fails)
    assert job.callbacks[-1].__qualname__ == fails.__qualname__
    assert job.callbacks[-1].__module__ == __name__


# The end of the process


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    timers = Timers()
    monkeypatch.setattr(callbacks, "after", timers)
    return timers


async def test_a_process_ends_soon_after_its_last_callback(timers: Timers) -> None:
    job = stub_job(executor=JobExecutorType.PROCESS)
    Callbacks(job.ctx, lambda: 7.0)
    go = asyncio.Event()

    async def slow() -> None:
        await go.wait()

    job.ctx.add_shutdown_callback(slow)
    running = asyncio.create_task(job.run_callbacks())
    await settle()
    # One that blocks the event loop does not keep it, either.
    assert list(timers) == [(7.0 + EXIT_S, os._exit, (0,))]
    go.set()
    await running
    assert list(timers)[1:] == [(EXIT_S, os._exit, (0,))]


async def test_a_process_without_callbacks_ends_soon(timers: Timers) -> None:
    job = stub_job(executor=JobExecutorType.PROCESS)
    Callbacks(job.ctx, lambda: 7.0)
    await job.run_callbacks()
    assert [delay_s for delay_s, *_ in timers] == [7.0 + EXIT_S, EXIT_S]


async def test_a_thread_does_not_end_its_process(timers: Timers) -> None:
    job = stub_job(executor=JobExecutorType.THREAD)
    Callbacks(job.ctx, lambda: 7.0)
    await job.run_callbacks()
    assert list(timers) == []


def test_the_context_is_livekits_own() -> None:
    assert type(stub_job().ctx) is JobContext
