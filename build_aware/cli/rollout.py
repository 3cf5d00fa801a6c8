"""Changes the rollout, and sees that nobody else has changed it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from livekit.api import LiveKitAPI

from build_aware.adoption import rollout_room
from build_aware.adoption.client import client
from build_aware.adoption.keeper import now
from build_aware.dispatch import rollout_document
from build_aware.dispatch.rollout import Rollout

REQUEST_S: Final = 10.0
"""How long to wait for the server."""

PUT_BACK_S: Final = 4.0
"""How long to wait where there is no rollout: if it was lost, workers put it back within that."""

READ_BACK_S: Final = 1.0
"""How long after a change it is read back: a worker that knows a later one has put that back."""


class Overtaken(Exception):  # noqa: N818 what has happened
    """Somebody else has changed the rollout at the same time; `now` is what it is."""

    def __init__(self, now: Rollout) -> None:
        self.now = now
        super().__init__(
            "somebody else changed the rollout at the same time; if it is not what you want, run "
            "the command again"
        )


async def read(api: LiveKitAPI, room: str) -> Rollout:
    """The rollout that a room carries; an empty one if there is none.

    Raises:
        API_ERRORS: the call failed.
        Unreadable: the room carries something else.
    """
    async with asyncio.timeout(REQUEST_S):
        found = await rollout_room.find(api, room)
    if found is None or not found.metadata:
        return Rollout()
    return rollout_document.read(found.metadata)


async def change(
    credentials: tuple[str, str, str], room: str, changed: Callable[[Rollout, str], Rollout]
) -> tuple[Rollout, Rollout]:
    """Change the rollout that a room carries.

    Args:
        credentials: URL, API key and API secret.
        room: the room.
        changed: makes the new rollout of the one that is there, at a time.

    Returns:
        The rollout before and after.

    Raises:
        API_ERRORS: a call failed.
        Unreadable: the room carries something else.
        RolloutError: the change cannot be made.
        Overtaken: what was written is not what is there a second later.
    """
    async with client(credentials) as api:
        before = await read(api, room)
        if not before.revision:
            await asyncio.sleep(PUT_BACK_S)
            before = await read(api, room)
        after = changed(before, now())
        if after is before:
            return before, after
        async with asyncio.timeout(REQUEST_S):
            await rollout_room.write(api, room, after)
        await asyncio.sleep(READ_BACK_S)
        there = await read(api, room)
        if there != after:
            raise Overtaken(there)
        return before, after
