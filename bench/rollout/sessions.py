"""Users whose rooms name no build, and what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from build_aware.testbed import Testbed
from build_aware.testbed.livekit_server import LiveKitServer

LOST_S: Final = 30.0
"""Who has waited for an agent for so long is lost."""

AT_ONCE: Final = 20
"""How many users are there at the same time at most, so that a slow machine can go on."""


@dataclass(frozen=True, slots=True)
class Session:
    """What became of one user. Times are monotonic seconds.

    Attributes:
        room: the name of the room.
        began_s: when the room was made, and with it the job.
        build: the build of its agent; empty if none came.
        waited_s: from joining to the agent.
        agents: how many agents came.
        cut: whether the agent had left before the user did.
    """

    room: str
    began_s: float
    build: str
    waited_s: float
    agents: int = 0
    cut: bool = False


async def session(
    bed: Testbed, server: LiveKitServer, room: str, *, stays_s: float = 0.0
) -> Session:
    """Let a user join a room, wait for the agent, stay for a while, and leave."""
    began_s = time.monotonic()
    await server.create_room(room)
    user = await bed.user(server, room)
    joined_s = time.monotonic()
    try:
        agent = await user.agent(LOST_S)
    except TimeoutError:
        await user.leave()
        return Session(room, began_s, "", time.monotonic() - joined_s)
    waited_s = time.monotonic() - joined_s
    await asyncio.sleep(stays_s)
    cut = agent.identity not in {each.identity for each in user.agents}
    agents = len(user.agents_seen)
    await user.leave()
    return Session(room, began_s, agent.attributes["build.id"], waited_s, agents, cut)


@contextlib.asynccontextmanager
async def one_each_second(
    bed: Testbed, *servers: LiveKitServer, stays_s: float
) -> AsyncIterator[list[Session]]:
    """Users come until this ends, to each server in turn; what became of them is known then."""
    sessions: list[Session] = []
    places = asyncio.Semaphore(AT_ONCE)

    async def come(number: int) -> None:
        try:
            server = servers[number % len(servers)]
            sessions.append(await session(bed, server, f"room-{number}", stays_s=stays_s))
        finally:
            places.release()

    async def keep_coming() -> None:
        for number in itertools.count(1):
            await places.acquire()
            group.create_task(come(number))
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as group:
        coming = group.create_task(keep_coming())
        try:
            yield sessions
        finally:
            coming.cancel()


def none_lost_cut_or_doubled(sessions: list[Session]) -> dict[str, bool]:
    """What is promised of every session, whatever happens."""
    return {
        "none lost": all(each.build for each in sessions),
        "none cut": not any(each.cut for each in sessions),
        "none doubled": all(each.agents <= 1 for each in sessions),
    }
