"""Strange metadata on a real server: every job answered once, the next good one served."""

from __future__ import annotations

import asyncio

import pytest
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch

from build_aware.testbed.livekit_server import LiveKitServer
from tests.conftest import JoinRoom, StartWorker
from tests.support.copies import content_id
from tests.support.metadata import asking_for, strange_metadata

JOBS = 1100
AT_ONCE = 20


@pytest.mark.heavy
@pytest.mark.slow
async def test_a_thousand_strange_metadata_and_then_a_good_job(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    strange = strange_metadata(JOBS)
    assert len(strange) >= 1000
    running = await worker(own_livekit, AGENT_UNTARGETED="reject", LIVEKIT_AGENT_NAME="assistant")
    limit = asyncio.Semaphore(AT_ONCE)
    async with own_livekit.api() as client:

        async def ask(room: str, metadata: str, *, by_dispatch: bool) -> None:
            dispatch = RoomAgentDispatch(agent_name="assistant")
            request = api.CreateRoomRequest(name=room, agents=[dispatch])
            (request.agents[0] if by_dispatch else request).metadata = metadata
            async with limit:
                await client.room.create_room(request)

        await asyncio.gather(
            *(
                ask(f"strange-{number}", metadata, by_dispatch=number % 2 == 0)
                for number, metadata in enumerate(strange)
            )
        )
        await running.logged("job offer answered", count=len(strange))
        await ask("good", asking_for(content_id()), by_dispatch=False)
    user = await join(own_livekit, "good")
    assert (await user.agent()).attributes["build.id"] == content_id()

    rooms = [record["room"] for record in running.find("job offer answered")]
    assert len(rooms) == len(set(rooms)) == len(strange) + 1
    assert "Traceback" not in running.output
    assert not [record for record in running.records if record["level"] == "ERROR"]
