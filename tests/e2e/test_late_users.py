"""A draining worker still owes itself to rooms that nobody else may serve."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.processes import Process
from build_aware.testbed.user import User
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker
from tests.e2e.test_adoption import SOON_S, build, nobody_serves

DRAINING = "draining worker"


async def called(server: LiveKitServer, join: JoinRoom, room: str, target: str = "build-A") -> User:
    """A user in a call with an agent of this build."""
    await server.create_room(room, target)
    user = await join(server, room, identity=f"user-of-{room}")
    await user.agent(build=target)
    return user


async def drains_with_a_call(
    server: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> tuple[Process, User]:
    running = await worker(server, **build("build-A"))
    user = await called(server, join, "long-call")
    running.send()
    await running.logged(DRAINING)
    return running, user


@pytest.mark.heavy
async def test_whoever_comes_reloads_or_loses_the_job_around_the_signal_is_answered(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, **build("build-A"))
    long_call = await called(own_livekit, join, "long-call")
    reloads = await called(own_livekit, join, "reloads")
    crashes = await called(own_livekit, join, "crashes")
    (crashing,) = await running.logged("session started", room="crashes")
    for room in ("before", "with", "after", "late"):
        await own_livekit.create_room(room, "build-A")

    async def joins(room: str, after_s: float) -> User:
        # Spread over the second around the signal: this is the load, not a wait.
        await asyncio.sleep(after_s)
        return await join(own_livekit, room)

    async def is_told_to_stop() -> None:
        await asyncio.sleep(0.5)
        running.send()

    *late, _ = await asyncio.gather(
        joins("before", 0.2), joins("with", 0.5), joins("after", 0.8), is_told_to_stop()
    )
    await running.logged(DRAINING)
    os.kill(crashing["pid"], signal.SIGKILL)
    await reloads.leave()
    late += [await join(own_livekit, "reloads"), await join(own_livekit, "late"), crashes]
    gone = next(iter(crashes.sightings))
    for user in late:
        assert user is not None
        await user.agent(build="build-A", besides=gone)
        await user.insist("Which build?", "build-A")
    assert not long_call.sightings[long_call.agents[0].identity].to_s

    for user in (*late, long_call):
        assert user is not None
        await user.leave()
    assert await running.exit() == 0


async def test_rooms_that_already_wait_when_an_idle_worker_is_stopped_are_served(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    users = []
    for number in range(6):
        await own_livekit.create_room(f"waits-{number}", "build-A")
        users.append(await join(own_livekit, f"waits-{number}"))
    running = await worker(own_livekit, **build("build-A"))
    running.send()
    for user in users:
        await user.agent(build="build-A")
        await user.insist("Which build?", "build-A")
    for user in users:
        await user.leave()
    assert await running.exit() == 0


async def test_an_idle_worker_waits_for_an_offer_that_is_under_way(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, **build("build-A"))
    running.send()
    # At once, while it leaves: LiveKit refuses the offer for it, before any handler is asked.
    await own_livekit.create_room("just-now", "build-A")
    user = await join(own_livekit, "just-now")
    gone = asyncio.ensure_future(running.exited())
    served = asyncio.ensure_future(user.agent())
    await asyncio.wait({gone, served}, return_when=asyncio.FIRST_COMPLETED)
    if gone.done() and not served.done():
        # It was faster than the room: then there was nothing to see in its last look.
        served.cancel()
        return
    await user.leave()
    assert await running.exit() == 0


async def test_a_draining_worker_takes_nothing_that_others_may_serve(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running, long_call = await drains_with_a_call(own_livekit, worker, join)
    targets = {
        "untargeted": None,
        "either": ["build-A", "build-B"],
        "patient": {"id": "build-A", "fallback": "any", "wait": 1},
    }
    users = []
    for room, target in targets.items():
        await own_livekit.create_room(room, target)
        users.append(await join(own_livekit, room))
    await asyncio.gather(*map(nobody_serves, users))
    other = await worker(own_livekit, **build("build-B"))
    for user in users:
        await user.agent(build="build-B")
    assert not running.find("adopting a waiting room")
    assert len(other.find("adopting a waiting room")) == 3
    await long_call.leave()
    assert await running.exit() == 0


async def test_the_dead_agent_of_a_draining_worker_makes_way_for_another_workers(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, **build("build-A"))
    long_call = await called(own_livekit, join, "long-call")
    await own_livekit.create_room("crashes")
    user = await join(own_livekit, "crashes")
    dead = await user.agent()
    (crashing,) = await running.logged("session started", room="crashes")
    await worker(own_livekit, **build("build-B"))
    running.send()
    await running.logged(DRAINING)

    began = time.time()
    os.kill(crashing["pid"], signal.SIGKILL)
    killed = time.monotonic()
    await user.agent(besides=dead.identity, build="build-B")
    assert time.monotonic() - killed < SOON_S
    assert own_livekit.calls(since=began)["RemoveParticipant"] == 1
    await long_call.leave()
    assert await running.exit() == 0


async def test_other_workers_name_a_room_that_waits_for_a_build_at_once(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    other = await worker(own_livekit, **build("build-B"))
    for room in ("first", "second"):
        await own_livekit.create_room(room, "build-A")
        await join(own_livekit, room)
        # The second one is named although the last warning is not a minute old.

        def named(room: str = room) -> bool:
            warnings = other.find("rooms wait for a build other than this one")
            return any(room in warning["rooms"] for warning in warnings)

        await until(named, f"{room} to be named", SOON_S)
