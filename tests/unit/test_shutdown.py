"""How a worker leaves: whom it waits for, how long, and with which exit code."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from livekit.agents import AgentServer

from build_aware.drain.budget import Budget, Drain
from build_aware.drain.exit_codes import ExitCode
from build_aware.job.shared import Shared
from build_aware.server import shutdown as module
from build_aware.server.shutdown import Shutdown

LONG_S: Final = 10.0


class Worker:
    """A worker that leaves.

    Attributes:
        rooms: where its sessions run.
        drained: how LiveKit's own drain was called.
        looks: what the last looks find: whether sessions run again.
    """

    def __init__(self, drain_timeout_s: float = 100.0, *rooms: str) -> None:
        self.rooms = list(rooms)
        self.shared = Shared()
        self.clock = Drain(Budget.of(drain_timeout_s))
        self.clock.begin()
        self.drained: list[float] = []
        self.ended = asyncio.Event()
        self.looks: list[bool] = []
        server = cast(AgentServer, self)
        self.shutdown = Shutdown(server, self.clock, self.shared, lambda: len(self.rooms))

    @property
    def active_jobs(self) -> list[Any]:
        return [
            SimpleNamespace(job=SimpleNamespace(room=SimpleNamespace(name=name)))
            for name in self.rooms
        ]

    async def drain(self, limit_s: float) -> None:
        self.drained.append(limit_s)
        if self.rooms:
            await self.ended.wait()

    async def last_look(self) -> bool:
        if not self.looks or not self.looks.pop(0):
            return False
        self.rooms.append("late")
        asyncio.get_running_loop().call_soon(self.rooms.clear)
        return True

    async def let_sessions_end(self) -> None:
        async with asyncio.timeout(LONG_S):
            await self.shutdown.let_sessions_end(self.drain, self.last_look)


def cut(records: list[logging.LogRecord]) -> logging.LogRecord:
    (record,) = [each for each in records if each.levelno >= logging.ERROR]
    assert record.getMessage().startswith("sessions cut")
    return record


async def test_a_worker_without_sessions_leaves_at_once() -> None:
    worker = Worker()
    await worker.let_sessions_end()
    assert worker.shutdown.exit_code is ExitCode.DRAINED
    (limit_s,) = worker.drained
    assert 0 < limit_s <= worker.clock.budget.sessions_s


async def test_it_waits_for_its_sessions() -> None:
    worker = Worker(100.0, "a-room")
    leaving = asyncio.create_task(worker.let_sessions_end())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not leaving.done()
    worker.rooms.clear()
    worker.ended.set()
    await leaving
    assert worker.shutdown.exit_code is ExitCode.DRAINED


async def test_sessions_that_take_too_long_are_cut(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(100.0, "second", "first")
    monkeypatch.setattr(worker.clock, "sessions_left_s", lambda: 0.0)
    await worker.let_sessions_end()
    assert worker.shutdown.exit_code is ExitCode.SESSIONS_CUT
    fields = vars(cut(caplog.records))
    assert (fields["rooms"], fields["cause"]) == (["first", "second"], "drain timeout")
    # LiveKit takes 0 for no limit at all.
    assert worker.drained == [0.001]


async def test_a_person_in_a_hurry_cuts_them(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(100.0, "a-room")
    leaving = asyncio.create_task(worker.let_sessions_end())
    await asyncio.sleep(0)
    worker.shutdown.force()
    await leaving
    assert worker.shutdown.exit_code is ExitCode.SESSIONS_CUT
    assert vars(cut(caplog.records))["cause"] == "second SIGINT"


async def test_a_session_that_lost_its_room_was_cut(caplog: pytest.LogCaptureFixture) -> None:
    """Its job has said which, and why."""
    worker = Worker()
    worker.shared.cut = True
    await worker.let_sessions_end()
    assert worker.shutdown.exit_code is ExitCode.SESSIONS_CUT
    assert caplog.records == []


async def test_what_livekits_own_drain_raises_at_its_limit_is_no_news() -> None:
    worker = Worker()

    async def drain(limit_s: float) -> None:
        raise TimeoutError

    await worker.shutdown.let_sessions_end(drain, worker.last_look)
    assert worker.shutdown.exit_code is ExitCode.DRAINED


async def test_it_looks_again_as_long_as_sessions_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_CHECK_S", 0.0)
    worker = Worker()
    worker.looks = [True, True, False, True]
    await worker.let_sessions_end()
    assert (worker.looks, worker.rooms) == ([True], [])
    assert worker.shutdown.exit_code is ExitCode.DRAINED


# Closing


class Exited(BaseException):
    """Raised where the process would end."""


class Process:
    """A job process that does not end by itself."""

    def __init__(self, *, dies: bool) -> None:
        self.killed = asyncio.Event()
        self._dies = dies

    def kill(self) -> None:
        if self._dies:
            self.killed.set()


async def test_it_closes_and_tells_its_jobs() -> None:
    worker = Worker()
    told: list[bool] = []

    async def aclose() -> None:
        told.append(worker.shared.closes)

    await worker.shutdown.close(aclose)
    assert told == [True]


async def test_what_fails_while_closing_is_raised() -> None:
    async def aclose() -> None:
        raise LookupError("no pool")

    with pytest.raises(LookupError):
        await Worker().shutdown.close(aclose)


async def test_without_a_drain_closing_takes_what_it_takes() -> None:
    """In `dev`, where the clock has not begun."""
    worker = Worker()
    worker.clock = Drain(Budget.of(100.0))
    shutdown = Shutdown(cast(AgentServer, worker), worker.clock, worker.shared, lambda: 0)
    go = asyncio.Event()
    closing = asyncio.create_task(shutdown.close(go.wait))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert not closing.done()
    go.set()
    await closing


async def test_processes_that_do_not_end_are_killed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, process = Worker(), Process(dies=True)
    monkeypatch.setattr(worker.clock, "shutdown_left_s", lambda: 0.0)
    monkeypatch.setattr(multiprocessing, "active_children", lambda: [process])
    async with asyncio.timeout(LONG_S):
        await worker.shutdown.close(process.killed.wait)  # type: ignore[arg-type]
    (record,) = caplog.records
    assert vars(record)["count"] == 1


async def test_what_does_not_even_end_then_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, process = Worker(), Process(dies=False)
    worker.shutdown.exit_code = ExitCode.SESSIONS_CUT
    budget = SimpleNamespace(exit_s=0.0)
    monkeypatch.setattr(worker.clock, "shutdown_left_s", lambda: 0.0)
    monkeypatch.setattr(worker.clock, "budget", budget)
    monkeypatch.setattr(multiprocessing, "active_children", lambda: [process])
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    codes: list[int] = []

    def exit_(code: int) -> None:
        codes.append(code)
        raise Exited

    monkeypatch.setattr(os, "_exit", exit_)
    with pytest.raises(Exited):
        await worker.shutdown.close(process.killed.wait)  # type: ignore[arg-type]
    assert codes == [ExitCode.SESSIONS_CUT]
    process.killed.set()
