"""Keeps the rollout: reads it from each list of rooms, and writes what is lost or new."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from livekit.api import LiveKitAPI
from livekit.protocol.models import Room

from build_aware.adoption import rollout_room
from build_aware.adoption.api_errors import API_ERRORS
from build_aware.adoption.client import REQUEST_S
from build_aware.dispatch import ages, rollout_document
from build_aware.dispatch.following import Following
from build_aware.dispatch.rollout import Rollout
from build_aware.dispatch.rollout_document import Unreadable

STABLE_S: Final = 10.0
"""How long a worker must have been registered before its build counts: one that crashes at its
start never does. Long enough for the others to put a lost document back first."""

SPREAD_S: Final = 0.5
"""Over how long the workers spread that all see the same document missing."""

UNOPPOSED_LISTS: Final = 5
"""In how many lists of rooms in a row a worker must see that nobody objects before its build takes
the place of the current one. Others list as often: ten seconds where lists are quick."""

UNOPPOSED_S: Final = 30.0
"""For how long nobody must have objected, too: workers that are busy list less often."""

BELIEVED_S: Final = 10.0
"""How long after a worker has made its build known it believes that: another one that knows a later
document, or that has written at the same time, may put its own in the place of that."""

RETRY_S: Final = 10.0
"""How long to wait after a write that failed."""

logger = logging.getLogger(__name__)


class Keeper:
    """Keeps the rollout of one agent name and deployment.

    Args:
        following: what this worker knows of the rollout.
        build: the id of this worker's build.
        room: the name of the room that carries it.
        newest: whether a new build makes itself current.
        may_write: whether this worker may change it.
    """

    def __init__(
        self,
        following: Following,
        *,
        build: str,
        room: str,
        newest: bool,
        may_write: Callable[[], bool],
    ) -> None:
        self._following = following
        self._build = build
        self._room = room
        self._newest = newest
        self._may_write = may_write
        self._registered_s = math.inf
        self._counts = False
        self._not_before_s = -math.inf
        self._unreadable: str | None = None
        self._was_known = False
        self._appeared_s = -math.inf
        self._unopposed = 0
        self._challenged_s = math.inf
        self._writing: asyncio.Task[None] | None = None

    def registered(self, now_s: float) -> None:
        """This worker has registered."""
        self._registered_s = now_s
        self._counts = False

    def is_due(self, now_s: float) -> bool:
        """Whether this worker's build counts from now on, and a list is due for that."""
        return not self._counts and now_s >= self._registered_s + STABLE_S

    def take_in(self, api: LiveKitAPI, rooms: Iterable[Room], now_s: float) -> None:
        """Take in a list of all rooms, and write what is to be written.

        Args:
            api: the server's API.
            rooms: all rooms of the server.
            now_s: the time.
        """
        room = next((each for each in rooms if each.name == self._room), None)
        self._counts = now_s >= self._registered_s + STABLE_S
        if not self._learn(room, now_s):
            return
        known = self._following.rollout
        if known is not None and known.challenger is not None:
            self._unopposed += 1
            self._challenged_s = min(self._challenged_s, now_s)
        else:
            self._unopposed = 0
            self._challenged_s = math.inf
        if self._writing is not None and not self._writing.done():
            return
        if now_s < self._not_before_s or not self._may_write() or self._wish(room, now_s) is None:
            return
        self._writing = asyncio.create_task(self._write(api))

    async def close(self) -> None:
        """Stop writing."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})

    def _learn(self, room: Room | None, now_s: float) -> bool:
        """Learn from the room; returns whether what it holds may be overwritten."""
        text = "" if room is None else room.metadata
        if not text:
            return True
        known = self._following.rollout
        try:
            found = rollout_document.read(text)
        except Unreadable as error:
            if self._unreadable != text:
                self._unreadable = text
                logger.warning(
                    "the rollout cannot be read; this worker goes on with what it knew. If a newer "
                    "release wrote it, upgrade this agent; if not, delete the room with "
                    "`lk room delete`",
                    extra={"room": self._room, "found": str(error)},
                )
            return False
        self._unreadable = None
        if known is None or found.revision >= known.revision:
            self._take_over(found, now_s)
        return True

    def _take_over(self, found: Rollout, now_s: float) -> None:
        known = self._following.rollout
        if found != known:
            self._tell(known, found)
        becomes_known = self._newest and self._may_write() and not self._was_known
        self._following.learn(found, now_s, becomes_known=becomes_known)
        if found.knows(self._build) and now_s >= self._appeared_s + BELIEVED_S:
            self._was_known = True

    def _wish(self, room: Room | None, now_s: float) -> Rollout | None:
        """What to write into the room; None for nothing."""
        known = self._following.rollout
        if known is not None and (room is None or _revision(room) < known.revision):
            return known
        if known is not None and known.challenger is not None and known.is_current(self._build):
            return known.defended()
        if not self._counts:
            return None
        rollout = known or Rollout()
        if self._may_take_over(rollout, now_s):
            wished = rollout.promoted(self._build, now(), force=True)
        elif self._finds_nobody(rollout, now_s):
            wished = rollout.challenged(self._build)
        else:
            # A build that has been known and is forgotten, after many others, is not a new one.
            make_current = self._newest and not self._was_known
            wished = rollout.appeared(self._build, now(), make_current=make_current)
        return None if wished is rollout else wished

    def _finds_nobody(self, rollout: Rollout, now_s: float) -> bool:
        """Whether to say that nobody is there of the current build."""
        return (
            self._newest
            and rollout.challenger is None
            and rollout.knows(self._build)
            and not rollout.bars(self._build)
            and self._following.current_is_gone(now_s)
        )

    def _may_take_over(self, rollout: Rollout, now_s: float) -> bool:
        """Whether nobody of the current build has objected to that."""
        if not self._newest or rollout.bars(self._build) or self._unopposed < UNOPPOSED_LISTS:
            return False
        if now_s < self._challenged_s + UNOPPOSED_S:
            return False
        return self._following.current_is_gone(now_s)

    async def _write(self, api: LiveKitAPI) -> None:
        await asyncio.sleep(random.uniform(0, SPREAD_S))  # noqa: S311
        try:
            async with asyncio.timeout(REQUEST_S):
                # Another worker may have been faster.
                room = await rollout_room.find(api, self._room)
                if not self._learn(room, time.monotonic()) or not self._may_write():
                    return
                wished = self._wish(room, time.monotonic())
                if wished is not None:
                    await rollout_room.write(api, self._room, wished)
                    if not (known := self._following.rollout) or not known.knows(self._build):
                        self._appeared_s = time.monotonic()
                    self._take_over(wished, time.monotonic())
        except Exception as error:
            self._not_before_s = time.monotonic() + RETRY_S
            logger.warning(
                "could not write the rollout, trying again in ten seconds; if this goes on, check "
                "the LiveKit server",
                exc_info=None if isinstance(error, API_ERRORS) else error,
                extra={"room": self._room, "error": str(error) or type(error).__name__},
            )

    def _tell(self, before: Rollout | None, now: Rollout) -> None:
        if before is not None and (before.current, before.ramp) == (now.current, now.ramp):
            return
        logger.info(
            "read the rollout" if before is None else "the rollout has changed",
            extra={
                "revision": now.revision,
                "current": now.current and now.current.build,
                "ramp": now.ramp and {"build": now.ramp.build, "percent": now.ramp.percent},
                "is_current": now.is_current(self._build),
            },
        )


def _revision(room: Room) -> int:
    try:
        return rollout_document.read(room.metadata).revision
    except Unreadable:
        return 0


def now() -> str:
    """The server's time, or this machine's, for people to read."""
    said_s = ages.server_now_s()
    at = datetime.now(UTC) if said_s is None else datetime.fromtimestamp(said_s, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
