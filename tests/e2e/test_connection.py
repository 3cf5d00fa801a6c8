"""Losing LiveKit, getting it back, and giving up on it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from build_aware.testbed import Testbed, ports
from build_aware.testbed.family import alive
from build_aware.testbed.livekit_server import API_KEY, API_SECRET, LiveKitServer
from build_aware.testbed.status import Status
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker
from tests.support import faults

REFUSED: Final = "LiveKit refuses this worker"


async def test_ready_goes_through_all_states(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    await own_livekit.stop()
    running = await worker(own_livekit, registered=False)
    status = await Status.of(running)
    assert await status.ready() == 503
    assert (await status.get())["state"] == "starting"

    await own_livekit.restart()
    await running.logged("registered worker")
    assert (await status.becomes("ready"))["sessions"] == 0
    assert await status.ready() == 200
    assert "agent_ready 1.0" in await status.metrics()

    await own_livekit.stop()
    await status.becomes("disconnected")
    assert await status.ready() == 503
    assert "agent_ready 0.0" in await status.metrics()

    await own_livekit.restart()
    await status.becomes("ready")
    user = await join(own_livekit, "call")
    await user.agent()
    assert (await status.get())["sessions"] == 1
    metrics = await status.metrics()
    assert "agent_sessions 1.0" in metrics
    assert 'agent_jobs_offered_total{answer="accept",reason="untargeted"} 1.0' in metrics

    running.send()
    draining = await status.becomes("draining")
    assert await status.ready() == 503
    assert 0 < draining["drain_left_s"] <= 3300
    assert draining["build"]["id"] == running.records[0]["build.id"]
    await user.leave()
    assert await running.exit() == 0


async def test_a_cut_connection_in_a_drain_brings_no_new_job_and_cuts_no_call(
    bed: Testbed, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    proxy = await bed.proxy(own_livekit)
    running = await worker(own_livekit, LIVEKIT_URL=proxy.url)
    user = await join(own_livekit, "call")
    await user.agent()
    family = running.family()

    running.send()
    await running.logged("draining worker")
    proxy.cut_oldest()
    await running.logged("registered worker", count=2)
    late = await join(own_livekit, "late", identity="late")
    await own_livekit.process.logged("failed to send job request")
    await user.ask("still there?", expect="still there?")
    assert late.agents_seen == []
    assert not running.find("job offer answered", room="late", answer="accept")
    await user.leave()
    assert await running.exit() == 0
    await until(lambda: not alive(family), "all processes to be gone")


async def test_a_call_survives_the_loss_of_the_workers_connection(
    bed: Testbed, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    proxy = await bed.proxy(own_livekit)
    running = await worker(own_livekit, LIVEKIT_URL=proxy.url)
    user = await join(own_livekit, "call")
    await user.agent()
    proxy.cut_oldest()
    await running.logged("registered worker", count=2)
    await user.ask("still there?", expect="still there?")
    second = await join(own_livekit, "second", identity="second")
    await second.agent()


async def test_a_deployment_name_that_the_server_refuses_ends_the_worker(
    own_livekit: LiveKitServer, worker: StartWorker
) -> None:
    running = await worker(own_livekit, registered=False, LIVEKIT_AGENT_DEPLOYMENT="a_b")
    assert await running.exit(deadline_s=120) == 3
    (gave_up,) = running.find("giving up on LiveKit")
    assert gave_up["deployment"] == "a_b"
    assert len(running.find("failed to connect to livekit")) < 10
    assert "Traceback" not in running.output


async def test_a_wrong_secret_ends_the_worker(
    own_livekit: LiveKitServer, worker: StartWorker, tmp_path: Path
) -> None:
    wrong = "wrong-" + API_SECRET
    running = await worker(
        own_livekit,
        folder=faults.with_patience(tmp_path / "agent", 1),
        registered=False,
        LIVEKIT_API_SECRET=wrong,
    )
    assert await running.exit() == 3
    (gave_up,) = running.find("giving up on LiveKit")
    assert "401" in gave_up["reason"]
    assert wrong not in running.output
    assert "Traceback" not in running.output


@pytest.mark.parametrize("let_in_again", [True, False])
async def test_a_gateway_that_refuses_for_long_cuts_no_call(
    let_in_again: bool,
    bed: Testbed,
    own_livekit: LiveKitServer,
    worker: StartWorker,
    join: JoinRoom,
    tmp_path: Path,
) -> None:
    proxy = await bed.proxy(own_livekit)
    folder = faults.with_patience(tmp_path / "agent", 1)
    running = await worker(own_livekit, folder=folder, LIVEKIT_URL=proxy.url)
    user = await join(own_livekit, "call")
    await user.agent()

    with proxy.answering(403):
        proxy.cut_oldest()
        (told,) = await running.logged(REFUSED, status=403)
        assert (told["level"], told["sessions"]) == ("WARNING", 1)
        # Each try is a second or less after the one before: the patience is over.
        turned_away = proxy.turned_away
        await until(lambda: proxy.turned_away >= turned_away + 5, "more tries")
        await user.ask("still there?", expect="still there?")
        if not let_in_again:
            await user.leave()
            assert await running.exit() == 3

    if let_in_again:
        await running.logged("registered worker", count=2)
        second = await join(own_livekit, "second", identity="second")
        await second.agent()
    else:
        assert len(running.find("giving up on LiveKit")) == 1
        assert len(running.find("session ended")) == 1
    assert len(running.find(REFUSED)) == 1


@pytest.mark.slow
async def test_a_server_that_is_gone_for_good_ends_the_worker(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    """LiveKit's own budget for retries is 130 seconds; both workers spend theirs at once."""
    (nobody,) = ports.free(1)
    never = await worker(own_livekit, registered=False, LIVEKIT_URL=f"ws://127.0.0.1:{nobody}")
    in_a_call = await worker(own_livekit)
    user = await join(own_livekit, "call")
    await user.agent()
    await own_livekit.stop()

    codes = await asyncio.gather(never.exit(200), in_a_call.exit(200))
    assert set(codes) == {3}
    for running in (never, in_a_call):
        assert len(running.find("giving up on LiveKit")) == 1
        assert API_SECRET not in running.output
        assert API_KEY not in running.output
    assert len(in_a_call.find("session ended")) == 1
