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

from build_aware.adoption.api_errors import is_gone, is_not_found


async def ask_for(api: LiveKitAPI, room: str, identity: str) -> None:
    """Return if a participant is there.

    livekit-server gives up on a node that is gone after three seconds.

    Raises:
        API_ERRORS: it is not, or the call failed otherwise; see `api_errors.is_gone`.
    """
    # An update of nothing changes nothing, and nobody is told of it.
    nothing = UpdateParticipantRequest(room=room, identity=identity)
    await api.room.update_participant(nothing)


async def find(
    api: LiveKitAPI, room: str, participants: Iterable[ParticipantInfo], *, attempts: int = 1
) -> frozenset[str]:
    """The sids of those of some participants that are there no more.

    One call for each, all together, and as many more for those whose node does not answer.

    Raises:
        API_ERRORS: a call failed otherwise.
    """
    participants = list(participants)
    gone = await asyncio.gather(*(_is_gone(api, room, each, attempts) for each in participants))
    return frozenset(each.sid for each, left in zip(participants, gone, strict=True) if left)


async def _is_gone(api: LiveKitAPI, room: str, participant: ParticipantInfo, attempts: int) -> bool:
    for _ in range(attempts):
        try:
            await ask_for(api, room, participant.identity)
        except TwirpError as error:
            if not is_gone(error):
                raise
            if is_not_found(error):
                return True
        else:
            return False
    return True
