"""What this worker knows of the rooms of its server, and what it remembers through a restart.

A livekit-server without Redis forgets its rooms when it restarts. Users and agents connect again
and bring the rooms back, but without metadata, and often without a dispatch. The workers remember
what these rooms had asked for, and give their agents time to come back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable
from typing import Final

from livekit.protocol.agent import Job
from livekit.protocol.models import Room

from build_aware.dispatch import agents, target
from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.target import Asked

RETURN_S: Final = 60.0
"""How long after this worker's connection is back a lost room may take to come back."""

HOLD_S: Final = 15.0
"""How long after that a room is left to the agents that it had before.

LiveKit's client tries to connect again for longer than that, but its pauses are shorter.
"""

UNLISTED_S: Final = 10.0
"""How long a room is remembered that is not, or not yet, in a list of all rooms."""


class Rooms:
    """The rooms of one server, by name."""

    def __init__(self) -> None:
        self._found: dict[str, RoomRecord] = {}
        self._offers: list[tuple[Job, float]] = []
        """Of rooms that were not known: still to be taken in, after they are answered."""
        self._back_s = -math.inf
        self._tidied_s = -math.inf

    def get(self, name: str) -> RoomRecord | None:
        """What is known of a room."""
        return self._records.get(name)

    def all(self) -> Collection[RoomRecord]:
        """All rooms that are known."""
        return self._records.values()

    def looks(self) -> list[asyncio.Task[None]]:
        """The looks that are under way, and some that have ended."""
        return [record.look for record in self._records.values() if record.look is not None]

    def connected_again(self, now_s: float) -> None:
        """Take note that this worker has lost its server and has it back.

        No room is looked at before it is listed again: by its name the server may answer for
        another one, which has come back without what this one had asked for.
        """
        self._back_s = now_s
        for record in self._records.values():
            record.listed = False
            record.held_until_s = now_s + HOLD_S if record.has_agent else -math.inf

    def holds(self, name: str, now_s: float) -> bool:
        """Whether a room is left to the agents that it had before an outage."""
        record = self._found.get(name)  # What is only offered is not held.
        return record is not None and now_s < record.held_until_s

    def listed(self, rooms: Iterable[Room], now_s: float) -> list[str]:
        """Take in a list of all rooms, and return the names of those that are new in it."""
        new = []
        known = self._records
        for each in known.values():
            each.listed = False
        for room in rooms:
            record = known.get(room.name)
            if record is None:
                new.append(room.name)
            if record is None or record.sid != room.sid:
                record = self._begin(room, now_s)
            record.seen(room, now_s)
            record.listed = True
            if record.surplus > 0:
                record.has_agent = True
                if record.surplus >= len(record.agents) > 0:
                    record.still_served(now_s)
                if record.surplus > len(record.agents):
                    record.waits_for = ()
                    record.waits_for_cpu = False
        self._forget(now_s)
        return new

    def offered(self, job: Job, now_s: float) -> Asked:
        """Take in an offer, and return what it asks for."""
        if now_s > self._tidied_s + UNLISTED_S:
            # Where nobody lists rooms, offers alone would pile up.
            self._forget(now_s)
        if job.room.name not in self._found:
            self._offers.append((job, now_s))
            return target.asked_by(dispatch_metadata=job.metadata, room_metadata=job.room.metadata)
        return self._take_in(job, now_s).asked(job.metadata)

    def take_in_offers(self) -> None:
        """Take in what was put off so that offers are answered at once; any question does, too."""
        offers, self._offers = self._offers, []
        for job, now_s in offers:
            self._take_in(job, now_s)

    @property
    def _records(self) -> dict[str, RoomRecord]:
        """All rooms, those of the last offers among them."""
        self.take_in_offers()
        return self._found

    def _take_in(self, job: Job, now_s: float) -> RoomRecord:
        room = job.room
        record = self._found.get(room.name)
        if record is None or record.sid != room.sid:
            record = self._begin(room, now_s)
        record.seen(room, now_s)
        record.take_in([agents.of_job(job)])
        return record

    def _begin(self, room: Room, now_s: float) -> RoomRecord:
        before = self._found.get(room.name)
        record = self._found[room.name] = RoomRecord(room, room.sid, now_s, now_s)
        if before is not None:
            record.watch = before.watch.of_next_room()
            record.look = before.look
            if self._was_lost(before, now_s):
                record.remembered = before.to_remember()
                record.first_seen_s = before.first_seen_s
                record.has_agent = before.has_agent
                record.held_until_s = before.held_until_s
        return record

    def _forget(self, now_s: float) -> None:
        self._tidied_s = now_s
        unlisted = [(name, each) for name, each in self._records.items() if not each.listed]
        for name, record in unlisted:
            if not record.is_looked_at and now_s > self._forgotten_at_s(record):
                del self._found[name]

    def _was_lost(self, record: RoomRecord, now_s: float) -> bool:
        return record.known_s < self._back_s and now_s <= self._back_s + RETURN_S

    def _forgotten_at_s(self, record: RoomRecord) -> float:
        if record.known_s < self._back_s:
            return self._back_s + RETURN_S
        return max(record.known_s + UNLISTED_S, record.watch.suspect_until_s)
