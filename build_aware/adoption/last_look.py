"""Looks once more, when a draining worker has nothing left to do, for rooms only it may serve."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from livekit.api import LiveKitAPI
from livekit.protocol.agent import Job
from livekit.protocol.models import Room

from build_aware.adoption.adopt import Adopter
from build_aware.adoption.client import REQUEST_S
from build_aware.adoption.judgement import Fits, Waiting
from build_aware.adoption.look import Lookout
from build_aware.adoption.own_jobs import OwnJobs
from build_aware.dispatch import ages
from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.rooms import Rooms

FRESH_S: Final = 6.0
"""For how long a room's numbers may say nothing of its users: they are up to five seconds old."""

LAST_OFFERS_S: Final = 3.5
"""How long a worker that has nothing left to do waits for offers that are still under way."""

LOOKS_AT_ONCE: Final = 16
"""Rooms at which such a worker looks at the same time."""

TURN_S: Final = 0.25
"""How often it looks at rooms that are still being offered."""


class AdoptableIn(Protocol):
    """In how many seconds a worker may take what it may serve in a room."""

    def __call__(self, record: RoomRecord, fits: Fits, *, patient: bool) -> float:
        """See `Adoption`."""
        ...


class LastLook:
    """Adopts rooms for users who came a moment too late.

    Args:
        rooms: what this worker knows of the rooms.
        own: the jobs that run here.
        lookout: asks the server about a room.
        adopter: starts jobs here.
        sessions: the jobs that run here now, by id.
        adoptable_in_s: in how many seconds this worker may take what it may serve in a room.
    """

    def __init__(
        self,
        rooms: Rooms,
        own: OwnJobs,
        lookout: Lookout,
        adopter: Adopter,
        *,
        sessions: Callable[[], Mapping[str, Job]],
        adoptable_in_s: AdoptableIn,
    ) -> None:
        self._rooms = rooms
        self._own = own
        self._lookout = lookout
        self._adopter = adopter
        self._sessions = sessions
        self._adoptable_in_s = adoptable_in_s

    async def look(self, api: LiveKitAPI, rooms: Iterable[Room], *, give_up_s: float) -> None:
        """Look at rooms until none of them is still being offered.

        Raises:
            API_ERRORS: a call failed.

        Args:
            api: the server's API.
            rooms: all rooms of the server, as they were just listed.
            give_up_s: until when, a monotonic time.
        """
        left = [record for room in rooms if (record := self._may_wait(room)) is not None]
        while left and not self._sessions():
            left = await self._still_offered(api, left)
            if not left or time.monotonic() > give_up_s:
                break
            await asyncio.sleep(TURN_S)

    async def _still_offered(
        self, api: LiveKitAPI, records: Iterable[RoomRecord]
    ) -> list[RoomRecord]:
        """Adopt the rooms of these that wait, and return those that are still being offered."""
        at_once = asyncio.Semaphore(LOOKS_AT_ONCE)

        async def offered(record: RoomRecord) -> bool:
            async with at_once:
                async with asyncio.timeout(REQUEST_S):
                    finding = await self._lookout.look(
                        api,
                        record,
                        adoptable_in_s=functools.partial(
                            self._adoptable_in_s, record, patient=False
                        ),
                        also_empty=True,
                    )
                if isinstance(finding, Fits):
                    await self._adopter.start(api, record, finding)
                return isinstance(finding, Waiting) and finding.offered and finding.only_ours

        records = list(records)
        answers = await asyncio.gather(*map(offered, records), return_exceptions=True)
        return [record for record, left in zip(records, answers, strict=True) if left is True]

    def _may_wait(self, room: Room) -> RoomRecord | None:
        """The record of a room if a user may be in it; its numbers are up to five seconds old."""
        record = self._rooms.get(room.name)
        if record is None or room.name in self._own.rooms:
            return None
        age_s = time.monotonic() - record.first_seen_s
        if (server_now_s := ages.server_now_s()) is not None:
            age_s = max(age_s, server_now_s - room.creation_time)
        return record if room.num_participants > 0 or age_s < FRESH_S else None
