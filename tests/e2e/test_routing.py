"""Sessions reach the build that they ask for, seen by the users themselves."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.room import RoomConfiguration

from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.user import User
from tests.conftest import JoinRoom, StartWorker
from tests.support.copies import content_id, copy_of_the_agent
from tests.support.metadata import asking_for

NAME = "assistant"
ROOMS = 60
AT_ONCE = 4


async def by_create_room(server: LiveKitServer, room: str, value: Any) -> User:
    """The backend creates the room, with metadata and agent, before anybody joins."""
    async with server.api() as client:
        await client.room.create_room(
            api.CreateRoomRequest(
                name=room,
                metadata=asking_for(value),
                agents=[RoomAgentDispatch(agent_name=NAME)],
            )
        )
    return await User(server, room).join()


async def by_token(server: LiveKitServer, room: str, value: Any) -> User:
    """The room is made by the first user, from the configuration in the token."""
    config = RoomConfiguration(
        metadata=asking_for(value), agents=[RoomAgentDispatch(agent_name=NAME)]
    )
    return await User(server, room).join(config)


async def by_dispatch(server: LiveKitServer, room: str, value: Any) -> User:
    """The room is there already, without metadata; the backend asks for an agent."""
    user = await User(server, room).join()
    async with server.api() as client:
        await client.agent_dispatch.create_dispatch(
            api.CreateAgentDispatchRequest(agent_name=NAME, room=room, metadata=asking_for(value))
        )
    return user


@pytest.mark.heavy
@pytest.mark.slow
async def test_sixty_of_sixty_sessions_reach_the_build_they_ask_for(
    own_livekit: LiveKitServer, worker: StartWorker, tmp_path: Path
) -> None:
    builds: dict[str, str] = {}
    for letter, version in zip("ABC", ("1.0.0", "1.1.0", "2.0.0"), strict=True):
        folder = copy_of_the_agent(tmp_path / letter, version=version, change=letter)
        builds[content_id(folder)] = version
        await worker(own_livekit, folder=folder, name=letter, LIVEKIT_AGENT_NAME=NAME)
    assert len(builds) == 3

    def targets(build: str) -> list[Any]:
        return [
            build,
            build[:7],
            builds[build],
            ["not-there", build],
            {"id": build, "fallback": "none", "wait": 5},
        ]

    wanted = [(build, value) for build in builds for value in targets(build)]
    ways = itertools.cycle((by_create_room, by_token, by_dispatch))
    cases = list(itertools.islice(zip(itertools.cycle(wanted), ways, strict=False), ROOMS))
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[str, str]:
        (build, value), way = cases[number]
        async with limit:
            user = await way(own_livekit, f"routing-{number}", value)
            try:
                agent = await user.agent()
                return build, agent.attributes["build.id"]
            finally:
                await user.leave()

    served = await asyncio.gather(*(one(number) for number in range(ROOMS)))
    assert len(served) == ROOMS
    assert [wrong for wrong in served if wrong[0] != wrong[1]] == []
    assert {actual for _, actual in served} == set(builds)


async def test_untargeted_rooms_are_served_by_any_build(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folders = [copy_of_the_agent(tmp_path / letter, change=letter) for letter in "AB"]
    for folder in folders:
        await worker(own_livekit, folder=folder, name=folder.name)
    builds = {content_id(folder) for folder in folders}

    for number in range(8):
        user = await join(own_livekit, f"untargeted-{number}")
        assert (await user.agent()).attributes["build.id"] in builds
        await user.leave()


async def test_a_job_that_every_worker_refuses_leaves_the_next_one_untouched(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, AGENT_UNTARGETED="reject")
    lonely = await join(own_livekit, "for-another-build")
    await running.logged("job offer answered", room="for-another-build", answer="reject")

    async with own_livekit.api() as client:
        await client.room.create_room(
            api.CreateRoomRequest(name="for-this-build", metadata=asking_for(content_id()))
        )
    served = await join(own_livekit, "for-this-build", identity="second")
    assert (await served.agent()).attributes["build.id"] == content_id()
    assert lonely.agents_seen == []


async def test_dev_leaves_the_rooms_of_a_shared_server_alone(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(
        own_livekit,
        command=("agent.py", "dev"),
        registered=False,
        # Reached through a proxy on loopback, so that no name has to be resolved.
        LIVEKIT_URL="ws://livekit.example",
        HTTP_PROXY=own_livekit.http_url,
    )
    await running.said("registered worker")
    user = await join(own_livekit, "production-call")
    await running.said('"reason": "untargeted"')
    assert user.agents_seen == []


async def test_dev_serves_the_rooms_of_a_server_on_this_machine(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, command=("agent.py", "dev"), registered=False)
    await running.said("registered worker")
    user = await join(own_livekit, "local-call")
    assert (await user.agent()).attributes["build.id"] == content_id()
