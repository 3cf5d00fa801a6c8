"""Participants that a server still lists although the node that they were on is gone.

livekit-server keeps in Redis who is in a room, and nothing expires there: when a node is killed,
its participants stay listed for as long as their rooms last. A call that is about one participant
goes to the node where that one is, so it is answered only for those who live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from livekit.api import LiveKitAPI, TwirpError
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.room import UpdateParticipantRequest

from build_aware.adoption.api_errors import is_gone


async def find(
    api: LiveKitAPI, room: str, participants: Iterable[ParticipantInfo]
) -> frozenset[str]:
    """The sids of those of some participants that are there no more.

    One call for each, all together; livekit-server gives up on a dead node after three seconds.

    Raises:
        API_ERRORS: a call failed otherwise.
    """
    participants = list(participants)
    there = await asyncio.gather(*(_is_there(api, room, each.identity) for each in participants))
    return frozenset(
        each.sid for each, answers in zip(participants, there, strict=True) if not answers
    )


async def _is_there(api: LiveKitAPI, room: str, identity: str) -> bool:
    # An update of nothing changes nothing, and nobody is told of it.
    nothing = UpdateParticipantRequest(room=room, identity=identity)
    try:
        await api.room.update_participant(nothing)
    except TwirpError as error:
        if is_gone(error):
            return False
        raise
    return True
