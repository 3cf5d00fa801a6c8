"""One agent for one dispatch: who joined first stays.

This is the part of adoption that runs in the job, see `adoption` for the whole.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from livekit import rtc
from livekit.agents import JobContext
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.room import ListParticipantsRequest

from build_aware.adoption import ghosts
from build_aware.dispatch.agents import AgentSeen, of_job, served

logger = logging.getLogger(__name__)

LATER_LEAVES_S: Final = 1.0
"""How long an agent that finds another one stays, with some to spare: it leaves at once."""

LOOK_S: Final = 3.0
"""How long it may take to ask the server who is there. Then the room itself decides."""

ATTEMPTS: Final = 2
"""How often an agent whose node does not answer is asked for, three seconds each: it may live, and
be on its way back by another node."""

RETURN_S: Final = ATTEMPTS * 4.0
"""How long all of that may take."""

Lost = Callable[[str], None]


class Claim:
    """The claim of one job to its dispatch. To be made before the job connects.

    Of two agents that join a room, LiveKit tells the second of the first in the answer to its
    join, and the first of the second by an event. So who finds another one that no event has
    announced is the later one, and leaves; clocks do not matter. Agents that are hidden see each
    other by the server's API only, which says who joined first.

    An agent that was cut off joins again when it comes back, and has lost the room if another one
    took it meanwhile.

    Args:
        ctx: the job.
        lost: ends the job, for a reason.
        hidden: whether other participants cannot see this agent.
    """

    def __init__(self, ctx: JobContext, lost: Lost, *, hidden: bool) -> None:
        self._ctx = ctx
        self._lost = lost
        self._hidden = hidden
        self._room = ctx.room
        self._came_later: set[str] = set()
        self._settled = False
        self._held: list[Callable[[], None]] = []
        self._connect = ctx.room.connect
        self._register = ctx.room.register_text_stream_handler
        self._room.connect = self._connect_and_claim  # type: ignore[method-assign]
        self._room.register_text_stream_handler = self._hold_text  # type: ignore[method-assign]
        self._room.on("participant_connected", self._on_connected)
        self._room.on("reconnected", self._on_reconnected)

    async def is_taken(self) -> bool:
        """Whether another agent is there, as the server says before this one joins.

        An entrypoint may dial out before it connects.
        """
        return await self._is_served_among(await self._listed())

    async def _connect_and_claim(self, *arguments: Any, **options: Any) -> None:
        """Connect as `rtc.Room.connect` does; where this agent is not to serve, never return.

        That is where another agent was first, and where the room cannot be joined: then it is
        adopted again when the server is back, and the team's code could do no better.
        """
        try:
            await self._connect(*arguments, **options)
        except rtc.ConnectError as error:
            logger.error(
                "the job could not join its room and is ending; "
                "check the LiveKit server and the network",
                extra={"room": self._ctx.job.room.name, "error": str(error)},
            )
            self._lost("could not join the room")
            await asyncio.Event().wait()
        if await self._is_later():
            await self._leave("another agent was here first")
            await asyncio.Event().wait()
        self._settled = True
        for text in self._held:
            try:
                text()
            except Exception:
                # As LiveKit does with the handler of a text that comes later.
                logger.exception("a text stream handler failed")
        self._held.clear()

    async def _leave(self, reason: str) -> None:
        self._lost(reason)
        # At once: what the team does at the end of a session comes before LiveKit leaves.
        await self._room.disconnect()

    async def _is_later(self) -> bool:
        others = self._room.remote_participants.values()
        earlier = [each for each in others if each.sid not in self._came_later]
        if await self._is_served(map(AgentSeen.of_remote, earlier)):
            return True
        if not self._hidden:
            return False
        listed = await self._listed()
        own = self._room.local_participant.sid
        joined = {each.sid: (each.joined_at_ms or each.joined_at * 1000) for each in listed}
        mine = (joined.get(own, math.inf), own)
        before = [each for each in listed if (joined[each.sid], each.sid) < mine]
        return await self._is_served_among(before)

    async def _is_served_among(self, listed: Sequence[ParticipantInfo]) -> bool:
        """Whether one of these that the server lists serves the dispatch of this job, and lives."""
        if not await self._is_served(map(AgentSeen.of_info, listed)):
            return False
        agents = [each for each in listed if AgentSeen.of_info(each) is not None]
        try:
            async with asyncio.timeout(RETURN_S):
                gone = await ghosts.find(
                    self._ctx.api, self._ctx.job.room.name, agents, attempts=ATTEMPTS
                )
        except Exception as error:
            logger.debug("agents could not be asked for", extra={"error": str(error)})
            return True
        return await self._is_served(
            AgentSeen.of_info(each) for each in agents if each.sid not in gone
        )

    async def _is_served(self, agents: Iterable[AgentSeen | None]) -> bool:
        """Whether one of these agents, which is another job's, serves the dispatch of this one."""
        job = self._ctx.job
        others = [each for each in agents if each is not None and each.job_id != job.id]
        if any(each.dispatch_id == job.dispatch_id for each in others):
            return True
        own = of_job(job)
        if not any(each.agent_name in (None, job.agent_name) for each in others):
            return False
        try:
            async with asyncio.timeout(LOOK_S):
                listed = list(await self._ctx.api.agent_dispatch.list_dispatch(job.room.name))
        except Exception as error:
            logger.warning(
                "could not list the dispatches of a room, so two agents may stay for the same one; "
                "check the LiveKit server",
                extra={"room": job.room.name, "error": str(error) or type(error).__name__},
            )
            listed = []
        if all(each.id != own.id for each in listed):
            listed.append(own)
        return own.id in served(listed, others)

    async def _listed(self) -> list[ParticipantInfo]:
        request = ListParticipantsRequest(room=self._ctx.job.room.name)
        try:
            async with asyncio.timeout(LOOK_S):
                return list((await self._ctx.api.room.list_participants(request)).participants)
        except Exception as error:
            # Nobody there, most likely; and then the room itself decides.
            logger.debug("participants could not be listed", extra={"error": str(error)})
            return []

    def _on_connected(self, other: rtc.RemoteParticipant) -> None:
        self._came_later.add(other.sid)

    def _on_reconnected(self) -> None:
        """Leave if another agent has come while this one was away.

        An agent that joins while this one is there leaves. So one that stays came in between.
        """

        async def check() -> None:
            await asyncio.sleep(LATER_LEAVES_S)
            others = map(AgentSeen.of_remote, self._room.remote_participants.values())
            if await self._is_served(others):
                await self._leave("another agent has taken over")

        self._checking = asyncio.ensure_future(check())

    def _hold_text(self, topic: str, handler: Callable[..., Any]) -> None:
        """Register a handler that gets no text until the room is this agent's."""

        def hold(*arguments: Any) -> None:
            if self._settled:
                handler(*arguments)
            else:
                self._held.append(lambda: handler(*arguments))

        self._register(topic, hold)
