"""What this worker knows of the rooms of its server, and what it remembers through a restart.

A livekit-server without Redis forgets its rooms when it restarts. Users and agents connect again
and bring the rooms back, but without metadata, and often without a dispatch. The workers remember
what these rooms had asked for, and give their agents time to come back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import Room

from build_aware.dispatch import target
from build_aware.dispatch.ages import Ages
from build_aware.dispatch.target import Asked, Untargeted

RETURN_S: Final = 60.0
"""How long after this worker's connection is back a lost room may take to come back."""

HOLD_S: Final = 15.0
"""How long after that a room is left to the agent that it had before.

LiveKit's client tries to connect again for longer than that, but its pauses are shorter.
"""

UNLISTED_S: Final = 10.0
"""How long a room is remembered that is not, or not yet, in a list of all rooms."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a room had asked for before it was lost.

    Attributes:
        metadata: the room's metadata.
        dispatch: the last dispatch for this agent that this worker has seen, if any.
    """

    metadata: str
    dispatch: AgentDispatch | None


@dataclass(slots=True)
class RoomRecord:
    """One room. Times are monotonic seconds of this worker.

    Attributes:
        first_seen_s: when it was first listed, or offered to this worker.
        known_s: when it was last listed or offered.
        sid: the id that LiveKit gives it anew each time that it is made.
        metadata: its metadata.
        dispatch: the last dispatch for this agent that this worker has seen there.
        remembered: what it had asked for, if it was lost and has come back.
        has_agent: whether this worker has reason to think that an agent is there.
        served_s: when this worker last knew of an agent there.
        held_until_s: until when it is left to the agent that it had before an outage.
        waits_for: the builds that it waits for, of which this worker's is none.
        waits_for_cpu: whether it waits only because this worker is full by LiveKit's measure.
        attempts: how often this worker has adopted it since it last had an agent.
        not_before_s: when it may be adopted again.
        failures: how many calls in a row have failed for it.
        ages: of what is in it.
    """

    first_seen_s: float
    known_s: float
    sid: str
    metadata: str = ""
    dispatch: AgentDispatch | None = None
    remembered: Remembered | None = None
    has_agent: bool = False
    served_s: float = -math.inf
    held_until_s: float = -math.inf
    waits_for: tuple[str, ...] = ()
    waits_for_cpu: bool = False
    attempts: int = 0
    not_before_s: float = -math.inf
    failures: int = 0
    ages: Ages = field(default_factory=Ages)

    def asked(self, dispatch_metadata: str, room_metadata: str) -> Asked:
        """What the room asks for: what it says itself, else what it said before it was lost."""
        asked = target.asked_by(dispatch_metadata=dispatch_metadata, room_metadata=room_metadata)
        if not isinstance(asked, Untargeted) or room_metadata or self.remembered is None:
            return asked
        before = self.remembered
        return target.asked_by(
            dispatch_metadata=before.dispatch.metadata if before.dispatch else "",
            room_metadata=before.metadata,
        )

    def to_remember(self) -> Remembered:
        """What the room asks for now, or asked for before it was lost."""
        before = self.remembered or Remembered("", None)
        return Remembered(self.metadata or before.metadata, self.dispatch or before.dispatch)

    def asked_before(self) -> list[AgentDispatch]:
        """What stands in for a dispatch where the room came back without one."""
        before = self.remembered
        return [before.dispatch] if before is not None and before.dispatch is not None else []


class Rooms:
    """The rooms of one server, by name."""

    def __init__(self) -> None:
        self._records: dict[str, RoomRecord] = {}
        self._back_s = -math.inf
        self._tidied_s = -math.inf

    def get(self, name: str) -> RoomRecord | None:
        """What is known of a room."""
        return self._records.get(name)

    def all(self) -> Iterable[tuple[str, RoomRecord]]:
        """All rooms that are known, with their names."""
        return self._records.items()

    def connected_again(self, now_s: float) -> None:
        """Take note that this worker has lost its server and has it back."""
        self._back_s = now_s
        for record in self._records.values():
            record.held_until_s = now_s + HOLD_S if record.has_agent else -math.inf

    def holds(self, name: str, now_s: float) -> bool:
        """Whether a room is left to the agent that it had before an outage."""
        record = self._records.get(name)
        return record is not None and now_s < record.held_until_s

    def listed(self, rooms: Iterable[Room], now_s: float) -> list[str]:
        """Take in a list of all rooms, and return the names of those that are new in it."""
        new = []
        for room in rooms:
            if room.name not in self._records:
                new.append(room.name)
            record = self._take_in(room, now_s)
            if room.num_publishers > room.num_participants:
                record.has_agent = True
                record.waits_for = ()
                record.waits_for_cpu = False
        self._forget(now_s)
        return new

    def offered(self, job: Job, now_s: float) -> Asked:
        """Take in an offer, and return what it asks for."""
        if now_s > self._tidied_s + UNLISTED_S:
            # Where nobody lists rooms, offers alone would pile up.
            self._forget(now_s)
        record = self._take_in(job.room, now_s)
        record.dispatch = AgentDispatch(
            id=job.dispatch_id,
            agent_name=job.agent_name,
            deployment=job.deployment,
            metadata=job.metadata,
            attributes=dict(job.attributes),
        )
        return record.asked(job.metadata, job.room.metadata)

    def _take_in(self, room: Room, now_s: float) -> RoomRecord:
        record = self._records.get(room.name)
        if record is None or record.sid != room.sid:
            before, record = record, RoomRecord(now_s, now_s, room.sid)
            if before is not None and self._was_lost(before, now_s):
                record.remembered = before.to_remember()
                record.first_seen_s = before.first_seen_s
                record.has_agent = before.has_agent
                record.served_s = before.served_s
                record.held_until_s = before.held_until_s
            self._records[room.name] = record
        record.known_s = now_s
        record.metadata = room.metadata
        return record

    def _forget(self, now_s: float) -> None:
        self._tidied_s = now_s
        for name, record in list(self._records.items()):
            if now_s > self._forgotten_at_s(record):
                del self._records[name]

    def _was_lost(self, record: RoomRecord, now_s: float) -> bool:
        return record.known_s < self._back_s and now_s <= self._back_s + RETURN_S

    def _forgotten_at_s(self, record: RoomRecord) -> float:
        if record.known_s < self._back_s:
            return self._back_s + RETURN_S
        return record.known_s + UNLISTED_S
