"""A change of the rollout by a command, in a server in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from livekit.api import LiveKitAPI

from build_aware.adoption import rollout_room
from build_aware.cli import rollout as cli
from build_aware.cli.rollout import Overtaken, change
from build_aware.dispatch import rollout_document
from build_aware.dispatch.rollout import Rollout
from tests.support.stub_api import StubServer

ROOM: Final = "_builds.interpreter"
NOW: Final = "2026-11-26T10:00:00Z"
CREDENTIALS: Final = ("ws://127.0.0.1:7880", "key", "secret")
KNOWN: Final = (
    Rollout().appeared("old", NOW, make_current=True).appeared("new", NOW, make_current=True)
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> StubServer:
    stub = StubServer()

    @contextlib.asynccontextmanager
    async def client(_: Any) -> AsyncIterator[LiveKitAPI]:
        yield stub.api

    monkeypatch.setattr(cli, "client", client)
    monkeypatch.setattr(cli, "READ_BACK_S", 0.0)
    monkeypatch.setattr(cli, "PUT_BACK_S", 0.0)
    return stub


def happens_meanwhile(
    server: StubServer, monkeypatch: pytest.MonkeyPatch, written: Rollout
) -> None:
    """While the command waits, somebody else writes."""
    left = [written]

    async def sleep(_: float) -> None:
        if left:
            await rollout_room.write(server.api, ROOM, left.pop())

    monkeypatch.setattr(asyncio, "sleep", sleep)


def to_old(rollout: Rollout, at: str) -> Rollout:
    return rollout.promoted("old", at)


async def test_a_change_is_written_and_still_there_after_a_while(server: StubServer) -> None:
    await rollout_room.write(server.api, ROOM, KNOWN)
    before, after = await change(CREDENTIALS, ROOM, to_old)
    assert before == KNOWN
    assert after.is_current("old")
    (room,) = server.rooms
    assert rollout_document.read(room.metadata) == after


async def test_a_rollout_that_was_lost_is_put_back_before_it_is_changed(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    happens_meanwhile(server, monkeypatch, KNOWN)
    before, after = await change(CREDENTIALS, ROOM, to_old)
    assert before == KNOWN
    assert after.revision == KNOWN.revision + 1


async def test_a_change_that_somebody_else_has_replaced_is_told(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rollout_room.write(server.api, ROOM, KNOWN)
    happens_meanwhile(server, monkeypatch, KNOWN.promoted("new", NOW))
    with pytest.raises(Overtaken):
        await change(CREDENTIALS, ROOM, to_old)
