"""One agent for one room: who joined first stays.

This is the part of adoption that runs in the job, see `adoption` for the whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Final

from livekit import rtc
from livekit.agents import AgentSession, JobContext
from livekit.agents.voice.room_io import TextInputEvent, TextInputOptions

from build_aware.dispatch.attributes import AGENT_NAME, PUBLISHES_FOR

logger = logging.getLogger(__name__)

LATER_LEAVES_S: Final = 1.0
"""How long an agent that finds another one stays, with some to spare: it leaves at once."""


class Claim:
    """The claim of one agent to the room that it joins. To be made before it connects.

    Of two agents that join a room, LiveKit tells the second of the first in the answer to its
    join, and the first of the second by an event. So who finds another one that no event has
    announced is the later one, and leaves; clocks do not matter.

    An agent that was cut off joins again when it comes back, and has lost the room if another one
    took it meanwhile.
    """

    def __init__(self, ctx: JobContext) -> None:
        self._room = ctx.room
        self._agent_name = ctx.job.agent_name
        self._came_later: set[str] = set()
        self._room.on("participant_connected", self._on_connected)

    def fails(self) -> bool:
        """Whether another agent of this name was there first; to be asked once connected."""
        return any(other.sid not in self._came_later for other in self._others())

    def on_lost(self, lost: Callable[[], None]) -> None:
        """Call `lost` if another agent of this name has taken the room while this one was away.

        An agent that joins while this one is there leaves. So one that stays came in between.
        """
        loop = asyncio.get_running_loop()

        def check() -> None:
            if any(self._others()):
                lost()

        @self._room.on("reconnected")
        def on_reconnected() -> None:
            loop.call_later(LATER_LEAVES_S, check)

    def _others(self) -> Iterator[rtc.RemoteParticipant]:
        return filter(self._is_same_agent, self._room.remote_participants.values())

    def _on_connected(self, other: rtc.RemoteParticipant) -> None:
        self._came_later.add(other.sid)

    def _is_same_agent(self, other: rtc.RemoteParticipant) -> bool:
        return (
            other.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
            and PUBLISHES_FOR not in other.attributes
            and other.attributes.get(AGENT_NAME, self._agent_name) == self._agent_name
        )


class TextInput(TextInputOptions):
    """Text input that holds back what users write until the room is this agent's."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        default = TextInputOptions().text_input_cb

        async def hold(session: AgentSession[None], event: TextInputEvent) -> None:
            await self._opened.wait()
            answering = default(session, event)
            if answering is not None:
                await answering

        super().__init__(text_input_cb=hold)

    def open(self) -> None:
        """Let through what was held back, and all that comes."""
        self._opened.set()
