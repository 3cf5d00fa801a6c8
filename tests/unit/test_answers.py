from __future__ import annotations

import asyncio
import logging

import pytest
from livekit.protocol.agent import Job
from livekit.protocol.models import Room

from build_aware.dispatch import answers
from build_aware.dispatch.acceptance import Decision
from build_aware.dispatch.answers import Answers
from build_aware.dispatch.target import Untargeted
from build_aware.testbed.waiting import until


def give(to: Answers, number: int) -> None:
    job = Job(id=f"AJ_{number}", room=Room(name=f"room-{number}"))
    to.given(job, Untargeted(), Decision(True, "untargeted"))


async def test_a_burst_is_answered_before_it_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BURST_S", 0.01)
    caplog.set_level(logging.INFO)
    some = Answers()
    for number in range(2):
        give(some, number)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    give(some, 2)
    assert caplog.records == []
    # Between two lines the event loop gets to the next offer.
    seen = set()
    async with asyncio.timeout(5):
        while len(caplog.records) < 3:
            await asyncio.sleep(0)
            seen.add(len(caplog.records))
    assert {1, 2, 3} <= seen
    assert [vars(record)["room"] for record in caplog.records] == ["room-0", "room-1", "room-2"]


async def test_one_answer_is_told_right_after_it_was_given(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BURST_S", 1000)
    caplog.set_level(logging.INFO)
    give(Answers(), 0)
    asyncio.get_running_loop().call_soon(lambda: told_before.append(len(caplog.records)))
    told_before: list[int] = []
    await until(lambda: caplog.records, "its line", 5)
    # What was given to the event loop with the answer, the answer itself above all, came first.
    assert told_before == [0]


@pytest.mark.parametrize("count", [1, 3])
async def test_what_can_wait_comes_when_all_of_them_are_told(
    count: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BURST_S", 0)
    caplog.set_level(logging.INFO)
    told_before: list[int] = []
    some = Answers(then=lambda: told_before.append(len(caplog.records)))
    for number in range(count):
        give(some, number)
    await until(lambda: told_before, "what can wait", 5)
    assert told_before == [count]


async def test_what_comes_after_a_burst_is_told_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BURST_S", 0)
    caplog.set_level(logging.INFO)
    some = Answers()
    give(some, 0)
    give(some, 1)
    await until(lambda: len(caplog.records) == 2, "the burst", 5)
    give(some, 2)
    await until(lambda: len(caplog.records) == 3, "one more", 5)


async def test_a_worker_that_ends_tells_all_of_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    some = Answers()
    for number in range(3):
        give(some, number)
    some.tell_all()
    assert len(caplog.records) == 3
    some.tell_all()
    assert len(caplog.records) == 3
