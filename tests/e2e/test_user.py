"""Users of the test bed: a join that is not wanted any more does no harm."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from livekit import rtc

from build_aware.testbed import Testbed, User, user
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.waiting import DEADLINE_S


async def test_a_cancelled_join_comes_to_its_end_and_leaves(own_livekit: LiveKitServer) -> None:
    someone = User(own_livekit, "room")
    joining = asyncio.create_task(someone.join())
    await asyncio.sleep(0)  # It begins.
    await asyncio.sleep(0)  # livekit has been asked to connect.
    joining.cancel()
    await asyncio.wait({joining}, timeout=DEADLINE_S)
    assert joining.cancelled()
    # The client's own event may come late, or not at all; the server tells.
    await own_livekit.process.logged("starting RTC session")
    await own_livekit.process.logged("participant closing")
    assert someone.room.connection_state == rtc.ConnectionState.CONN_DISCONNECTED


async def test_a_join_that_never_ends_is_given_up(
    bed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user, "LEAVE_S", 0.05)
    someone = User(LiveKitServer(bed.processes, tmp_path, 1), "room")
    monkeypatch.setattr(someone.room, "connect", lambda *_: asyncio.Event().wait())
    joining = asyncio.create_task(someone.join())
    await asyncio.sleep(0)
    joining.cancel()
    await asyncio.wait({joining}, timeout=DEADLINE_S)
    assert joining.cancelled()
