"""An agent without a voice is counted: a server's list of rooms counts who publishes.

Other workers see at once that such an agent is gone; where it publishes nothing they look at its
room every few seconds instead (see `adoption.watchlist`).
"""

from __future__ import annotations

import asyncio
import logging

from livekit import rtc
from livekit.rtc.participant import PublishDataTrackError

logger = logging.getLogger(__name__)

NAME = "presence"
"""The name of the data track, on which nothing is ever sent."""


class DataTrack:
    """Publishes a data track that costs nothing, in each connection of one room.

    LiveKit publishes a voice again after an outage, but no data track.
    """

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._publishing: set[asyncio.Task[None]] = set()
        room.on("connection_state_changed", self._on_state)

    def _on_state(self, state: rtc.ConnectionState.ValueType) -> None:
        if state != rtc.ConnectionState.CONN_CONNECTED:
            return
        task = asyncio.ensure_future(self._publish())
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _publish(self) -> None:
        try:
            await self._room.local_participant.publish_data_track(name=NAME)
        except PublishDataTrackError as error:
            logger.debug("the server takes no data tracks", extra={"error": str(error)})
