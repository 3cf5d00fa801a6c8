"""Rooms as a backend makes them: with what they ask for, before anybody joins."""

from __future__ import annotations

import json
from typing import Any

from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch

from agent.target import KEY

from .livekit_server import LiveKitServer

NAME = "assistant"
"""The agent's name, where it has one."""


async def create_room(
    server: LiveKitServer,
    name: str,
    target: Any = None,
    *,
    agent_name: str = NAME,
    deployment: str = "",
) -> None:
    """Create a room that asks for an agent.

    Args:
        server: where.
        name: the room's name.
        target: the value of `agent_build`; None makes an untargeted room.
        agent_name: the agent it asks for.
        deployment: the LiveKit deployment of that agent.
    """
    asks = RoomAgentDispatch(agent_name=agent_name, deployment=deployment)
    metadata = "" if target is None else json.dumps({KEY: target})
    async with server.api() as client:
        await client.room.create_room(
            api.CreateRoomRequest(name=name, metadata=metadata, agents=[asks])
        )


async def agents_in(server: LiveKitServer, room: str) -> list[api.ParticipantInfo]:
    """The agents that the server counts in a room."""
    async with server.api() as client:
        found = await client.room.list_participants(api.ListParticipantsRequest(room=room))
    return [p for p in found.participants if p.kind == api.ParticipantInfo.Kind.AGENT]
