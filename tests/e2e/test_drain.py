"""A stopped worker lets its sessions end, takes no new one, and leaves."""

from __future__ import annotations

import signal

import pytest

from tests.support.livekit_server import LiveKitServer
from tests.support.process import alive
from tests.support.user import JoinRoom
from tests.support.waiting import until
from tests.support.worker import StartWorker


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_goes_on_until_its_user_leaves(
    number: signal.Signals, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit)
    user = await join(own_livekit, "call")
    await user.agent()

    running.send(number)
    await running.logged("draining worker")
    await user.ask("still there?", expect="still there?")
    late = await join(own_livekit, "late", identity="late")
    await own_livekit.process.logged("failed to send job request")
    assert late.agents_seen == []
    await user.ask("and now?", expect="and now?")

    await user.leave()
    assert await running.exit() == 0
    assert len(running.find("session ended", room="call")) == 1
    assert not running.find("job offer answered", room="late", answer="accept")


async def test_an_idle_worker_leaves_at_once(
    own_livekit: LiveKitServer, worker: StartWorker
) -> None:
    running = await worker(own_livekit)
    family = running.family()
    running.send()
    assert await running.exit() == 0
    await until(lambda: not alive(family), "all processes of the worker to be gone")
