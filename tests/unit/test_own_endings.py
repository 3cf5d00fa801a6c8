"""What the team's own endings get: shutdown callbacks, and the cleanup of an entrypoint."""

from __future__ import annotations

import asyncio

import pytest

from build_aware.job import timers
from build_aware.job.facts import CALM_S
from build_aware.job.timers import ends_within
from tests.support.jobs import stub_job


@pytest.mark.parametrize(("callbacks_s", "calm_s"), [(10.0, CALM_S), (90.0, 90.0)])
def test_they_are_in_a_hurry_only_where_the_worker_is(callbacks_s: float, calm_s: float) -> None:
    facts = stub_job(callbacks_s=callbacks_s).facts
    assert facts.own_endings_s() == calm_s
    for hurry in ("drains", "closes"):
        setattr(facts.shared, hurry, True)
        assert facts.own_endings_s() == callbacks_s
        setattr(facts.shared, hurry, False)


async def test_a_worker_that_begins_to_stop_shortens_what_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timers, "CHECK_S", 0.001)
    limits_s = [60.0] * 3

    def limit_s() -> float:
        return limits_s.pop() if limits_s else 0.0

    async with asyncio.timeout(10):
        never = asyncio.ensure_future(asyncio.Event().wait())
        assert not await ends_within(never, limit_s)
    assert not never.cancelled()
    never.cancel()
    assert limits_s == []


async def test_what_ends_in_time_is_not_waited_for_longer() -> None:
    async with asyncio.timeout(10):
        assert await ends_within(asyncio.ensure_future(asyncio.sleep(0.01)), lambda: 60.0)
