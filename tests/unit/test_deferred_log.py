"""Lines that are written when it is quiet."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from build_aware.dispatch import deferred_log
from build_aware.dispatch.deferred_log import DeferredLog

NAME = "build_aware.dispatch.acceptance"
HANGS_S = 10.0


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> DeferredLog:
    caplog.set_level(logging.INFO)
    return DeferredLog(logging.getLogger(NAME))


async def written(caplog: pytest.LogCaptureFixture, count: int) -> list[logging.LogRecord]:
    async with asyncio.timeout(HANGS_S):
        while len(caplog.records) < count:  # noqa: ASYNC110 the log tells nobody
            await asyncio.sleep(0.001)
    return caplog.records


async def test_a_line_is_written_a_moment_later_as_it_was(
    log: DeferredLog, caplog: pytest.LogCaptureFixture
) -> None:
    before = time.time()
    log(logging.WARNING, "answered", {"room": "call", "answer": "reject"})
    after = time.time()
    assert caplog.records == []
    (record,) = await written(caplog, 1)
    assert (record.name, record.levelname, record.getMessage()) == (NAME, "WARNING", "answered")
    assert (vars(record)["room"], vars(record)["answer"]) == ("call", "reject")
    assert before <= record.created <= after
    assert record.funcName == test_a_line_is_written_a_moment_later_as_it_was.__name__


async def test_a_burst_is_written_when_it_is_over(
    log: DeferredLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred_log, "QUIET_S", 0.02)
    monkeypatch.setattr(deferred_log, "LONGEST_S", HANGS_S)
    for number in range(20):
        log(logging.INFO, f"{number}", {})
        assert caplog.records == []
        await asyncio.sleep(0)
    records = await written(caplog, 20)
    assert [record.getMessage() for record in records] == [f"{number}" for number in range(20)]


async def test_what_never_gets_quiet_is_written_all_the_same(
    log: DeferredLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred_log, "QUIET_S", HANGS_S)
    monkeypatch.setattr(deferred_log, "LONGEST_S", 0.01)
    async with asyncio.timeout(HANGS_S):
        while not caplog.records:
            log(logging.INFO, "again", {})
            await asyncio.sleep(0)


async def test_the_end_of_a_worker_writes_what_is_left_once(
    log: DeferredLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred_log, "QUIET_S", 0.001)
    log(logging.INFO, "last", {})
    log.write()
    assert len(caplog.records) == 1
    await asyncio.sleep(0.01)
    log.write()
    assert len(caplog.records) == 1


async def test_what_is_not_logged_costs_nothing(
    log: DeferredLog, caplog: pytest.LogCaptureFixture
) -> None:
    log(logging.DEBUG, "quiet", {})
    log.write()
    assert caplog.records == []
