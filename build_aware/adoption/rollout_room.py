"""The room that carries the rollout as its metadata: read it, write it.

Nobody joins it. It is made with both timeouts at their maximum, or livekit-server would close it,
and with a dispatch for an agent that nobody is, or livekit-server would offer it to unnamed agents.
It is made without metadata, which is then set by an update: of two nodes that make it at the same
time with different metadata, each shows its own (27 of 30 times; so, never of 30).
"""

from __future__ import annotations

from typing import Final

from livekit.api import LiveKitAPI, TwirpError
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.models import Room
from livekit.protocol.room import CreateRoomRequest, ListRoomsRequest, UpdateRoomMetadataRequest

from build_aware.adoption.api_errors import is_gone
from build_aware.dispatch import rollout_document
from build_aware.dispatch.rollout import Rollout

FOR_EVER_S: Final = 2**32 - 1
"""The longest timeout of a room."""

NOBODY: Final = "_builds"
"""The name of an agent that nobody is."""


async def find(api: LiveKitAPI, name: str) -> Room | None:
    """The room, or None if there is none.

    Raises:
        API_ERRORS: the call failed.
    """
    rooms = (await api.room.list_rooms(ListRoomsRequest(names=[name]))).rooms
    return next((room for room in rooms if room.name == name), None)


async def write(api: LiveKitAPI, name: str, rollout: Rollout) -> None:
    """Write a rollout, and make the room if it is not there.

    Raises:
        API_ERRORS: a call failed.
    """
    update = UpdateRoomMetadataRequest(room=name, metadata=rollout_document.write(rollout))
    try:
        await api.room.update_room_metadata(update)
    except TwirpError as error:
        # Not there, or its node is gone: then it is listed and cannot be changed until it is made.
        if not is_gone(error):
            raise
        await api.room.create_room(
            CreateRoomRequest(
                name=name,
                empty_timeout=FOR_EVER_S,
                departure_timeout=FOR_EVER_S,
                agents=[RoomAgentDispatch(agent_name=NOBODY)],
            )
        )
        await api.room.update_room_metadata(update)
