"""What a job does at its end, and who tells it whether rooms are adopted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agent import session
from build_aware.job import withdrawal
from build_aware.job.shared import Shared
from build_aware.settings import Settings


def job(shared: Shared, *, dispatch_id: str = "AD_1", on_purpose: bool = True) -> Any:
    """The context of a job that ends; its server has a name of LiveKit Cloud."""
    settings = Settings.model_validate({"LIVEKIT_URL": "wss://a-project.livekit.cloud"})
    ending = SimpleNamespace(on_purpose=on_purpose)
    return SimpleNamespace(
        proc=SimpleNamespace(userdata={"settings": settings, "shared": shared, "ending": ending}),
        job=SimpleNamespace(dispatch_id=dispatch_id),
    )


@pytest.fixture
def withdrawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    contexts: list[Any] = []

    async def withdraw(ctx: Any) -> None:
        contexts.append(ctx)

    monkeypatch.setattr(withdrawal, "withdraw", withdraw)
    return contexts


@pytest.mark.parametrize("adopts", [True, False])
async def test_the_worker_decides_whether_rooms_are_adopted_and_not_the_jobs_url(
    adopts: bool, withdrawn: list[Any]
) -> None:
    shared = Shared()
    ctx = job(shared)
    shared.adopts = adopts
    await session.end(ctx)
    assert withdrawn == ([ctx] if adopts else [])


async def test_only_an_end_on_purpose_of_a_dispatched_job_is_withdrawn(
    withdrawn: list[Any],
) -> None:
    shared = Shared()
    shared.adopts = True
    await session.end(job(shared, on_purpose=False))
    await session.end(job(shared, dispatch_id=""))
    assert withdrawn == []
