"""The server is away for a while: agents, users and what rooms had asked for come back."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.room import RoomConfiguration

from build_aware.dispatch.rooms import HOLD_S
from build_aware.drain.exit_codes import ExitCode
from build_aware.testbed.livekit_server import AGENT_NAME, LiveKitServer
from build_aware.testbed.processes import Process
from build_aware.testbed.user import User
from tests.conftest import JoinRoom, StartWorker
from tests.e2e.test_adoption import SWEPT_S, build, nobody_serves
from tests.support.metadata import asking_for

ASKS = RoomConfiguration(agents=[RoomAgentDispatch(agent_name=AGENT_NAME)])
ASKS_FOR_A = RoomConfiguration(
    metadata=asking_for("build-A"), agents=[RoomAgentDispatch(agent_name=AGENT_NAME)]
)


async def restarts(server: LiveKitServer, workers: list[Process], *, away_s: float) -> None:
    """The server is killed, and started again without what it knew."""
    await server.stop()
    await asyncio.sleep(away_s)  # The outage.
    await server.restart()
    for worker in workers:
        await worker.logged("registered worker", count=2, deadline_s=180)


async def goes_on(user: User, agent: str) -> None:
    """The same agent goes on with the same conversation, and no other one comes."""
    await user.insist("still there?", "still there?")
    await nobody_serves(user, HOLD_S + SWEPT_S)
    await user.insist("and now?", "and now?")
    assert {*user.sightings} == {agent}
    assert user.spoke_together == []


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("named", "away_s", "draining"),
    [
        pytest.param(
            named,
            away_s,
            draining,
            id=f"{'named' if named else 'all'}-{away_s}-{'draining' if draining else 'serving'}",
        )
        for named in (True, False)
        for away_s in (3, 8)
        for draining in (False, True)
    ],
)
async def test_the_agent_comes_back_and_the_conversation_goes_on(
    named: bool,
    away_s: float,
    draining: bool,
    own_livekit: LiveKitServer,
    worker: StartWorker,
    join: JoinRoom,
) -> None:
    name = {"LIVEKIT_AGENT_NAME": AGENT_NAME if named else ""}
    running = await worker(own_livekit, **build("build-A") | name)
    config = ASKS_FOR_A if named else None
    user = await join(own_livekit, "call", config=config)
    agent = await user.agent(build="build-A")
    await user.insist("hello", "You said: hello")
    others = [
        await worker(own_livekit, **build("build-A") | name),
        await worker(own_livekit, **build("build-B") | name),
    ]
    for other in others:
        await own_livekit.counts(users=1, publishers=1)
        await other.logged("registered worker")
    if draining:
        running.send()
        await running.logged("draining worker")
    # Each worker has seen the agent in a list of rooms.
    await nobody_serves(user, 3)

    await restarts(own_livekit, [running, *others], away_s=away_s)
    await goes_on(user, agent.identity)
    if draining:
        await user.leave()
        assert await running.exit() == 0


@pytest.mark.slow
@pytest.mark.long
async def test_a_room_that_comes_back_without_its_target_is_no_untargeted_one(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    serving = await worker(own_livekit, **build("build-A"))
    await own_livekit.create_room("call", "build-A")
    # The user's token brings a dispatch back, but not what the backend wrote into the room.
    user = await join(own_livekit, "call", config=ASKS)
    first = await user.agent(build="build-A")
    same = await worker(own_livekit, **build("build-A"))
    other = await worker(own_livekit, **build("build-B"))
    await nobody_serves(user, 3)

    await own_livekit.stop()
    serving.kill_family()
    await own_livekit.restart()
    for each in (same, other):
        await each.logged("registered worker", count=2, deadline_s=180)
    await user.agent(build="build-A", besides=first.identity)
    assert not other.find("adopting a waiting room")
    assert not other.find("job offer answered", answer="accept")


async def test_a_room_that_comes_back_without_its_dispatch_is_adopted_by_who_remembers_it(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, **build("build-A"))
    await own_livekit.create_room("call", "build-A")
    user = await join(own_livekit, "call")
    first = await user.agent(build="build-A")
    (session,) = await running.logged("session started")

    await own_livekit.stop()
    os.kill(session["pid"], signal.SIGKILL)
    await own_livekit.restart()
    await running.logged("registered worker", count=2, deadline_s=180)
    await user.agent(build="build-A", besides=first.identity)
    (adopted,) = running.find("adopting a waiting room")
    assert adopted["reason"] == "target"


@pytest.mark.slow
async def test_a_session_that_cannot_come_back_is_no_drained_one(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, **build("build-A"))
    await own_livekit.create_room("call", "build-A")
    user = await join(own_livekit, "call")
    await user.agent(build="build-A")
    running.send()
    await running.logged("draining worker")
    await own_livekit.stop()
    (cut,) = await running.logged("the session was cut", deadline_s=120)
    assert cut["room"] == "call"
    assert await running.exit(180) == ExitCode.SESSIONS_CUT
