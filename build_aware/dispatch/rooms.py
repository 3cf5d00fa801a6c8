"""What this worker knows of the rooms of its server, and what it remembers through a restart.

A livekit-server without Redis forgets its rooms when it restarts. Users and agents connect again
and bring the rooms back, but without metadata, and often without a dispatch. The workers remember
what these rooms had asked for, and give their agents time to come back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import Room

from build_aware.dispatch import agents, target
from build_aware.dispatch.agents import Role
from build_aware.dispatch.ages import Ages
from build_aware.dispatch.records import DispatchRecord, Remembered
from build_aware.dispatch.target import Asked, Untargeted
from build_aware.dispatch.watch import Watch

RETURN_S: Final = 60.0
"""How long after this worker's connection is back a lost room may take to come back."""

HOLD_S: Final = 15.0
"""How long after that a room is left to the agents that it had before.

LiveKit's client tries to connect again for longer than that, but its pauses are shorter.
"""

UNLISTED_S: Final = 10.0
"""How long a room is remembered that is not, or not yet, in a list of all rooms."""


@dataclass(slots=True)
class RoomRecord:
    """One room. Times are monotonic seconds of this worker.

    Attributes:
        room: the room, as it was last listed or offered.
        sid: its sid; what is read of `room` itself is slow to read.
        numbers: how many users it had then, and how many participants published.
        surplus: how many more these are than users; agents count among those who publish only.
        first_seen_s: when it was first listed, or offered to this worker.
        known_s: when it was last listed or offered.
        listed: whether the last list of all rooms had it, by the server that is connected now.
        dispatches: the dispatches for this agent that it has, as far as is known, by id.
        remembered: what it had asked for, if it was lost and has come back.
        agents: the sids of the agents that the last look has found there, of whatever name.
        served: the ids of the dispatches that these serve.
        ghosts: the sids of agents that are listed there although their node is gone, and when that
            was found out.
        has_agent: whether this worker has reason to think that an agent of its name is there.
        held_until_s: until when it is left to the agents that it had before an outage.
        waits_for: the builds that it waits for, of which this worker's is none.
        waits_for_cpu: whether it waits only because this worker is full by LiveKit's measure.
        told: whether a warning has named it of late.
        failures: how many calls in a row have failed for it.
        unreachable: how many looks in a row its node has not answered.
        ages: of what is in it.
        watch: when to look at it.
        look: the look that is under way, or was the last.
    """

    room: Room
    sid: str
    first_seen_s: float
    known_s: float
    numbers: tuple[int, int] = (0, 0)
    surplus: int = 0
    listed: bool = False
    dispatches: dict[str, DispatchRecord] = field(default_factory=dict)
    remembered: Remembered | None = None
    agents: frozenset[str | None] = frozenset()
    served: frozenset[str] = frozenset()
    ghosts: dict[str, float] = field(default_factory=dict)
    has_agent: bool = False
    held_until_s: float = -math.inf
    waits_for: tuple[str, ...] = ()
    waits_for_cpu: bool = False
    told: bool = False
    failures: int = 0
    unreachable: int = 0
    ages: Ages = field(default_factory=Ages)
    watch: Watch = field(default_factory=Watch)
    look: asyncio.Task[None] | None = None

    @property
    def roles(self) -> set[Role]:
        """The roles that it asks this agent for, as far as is known."""
        return {each.role for each in self.asks()}

    @property
    def is_looked_at(self) -> bool:
        """Whether a look is under way."""
        return self.look is not None and not self.look.done()

    def asked(self, dispatch_metadata: str) -> Asked:
        """What a dispatch of it asks for: what it or the room says, else what they said before."""
        now, before = self.room.metadata, self.remembered
        asked = target.asked_by(dispatch_metadata=dispatch_metadata, room_metadata=now)
        if not isinstance(asked, Untargeted) or now or before is None:
            return asked
        return target.asked_by(
            dispatch_metadata=before.metadata_of(target.beside(dispatch_metadata)),
            room_metadata=before.metadata,
        )

    def get(self, dispatch_id: str) -> DispatchRecord | None:
        """The record of a dispatch that the room has, or had before it was lost."""
        remembered = {} if self.remembered is None else self.remembered.dispatches
        return self.dispatches.get(dispatch_id) or remembered.get(dispatch_id)

    def of(self, dispatch: AgentDispatch) -> DispatchRecord:
        """The record of a dispatch, a new one if it was not seen before."""
        record = self.get(dispatch.id)
        if record is None:
            record = self.dispatches[dispatch.id] = DispatchRecord(dispatch)
        return record

    def seen(self, room: Room, now_s: float) -> None:
        """It was listed or offered."""
        self.room = room
        self.known_s = now_s
        users, publishers = room.num_participants, room.num_publishers
        if self.numbers != (users, publishers):
            self.numbers = (users, publishers)
            self.surplus = publishers - users

    def take_in(self, dispatches: Iterable[AgentDispatch], *, gone: Collection[str] = ()) -> None:
        """Take in dispatches for this agent that the room has.

        Args:
            dispatches: the dispatches.
            gone: ids of which those that are not among these are to be forgotten.
        """
        dispatches = list(dispatches)
        if gone:
            for dispatch_id in set(gone) - {each.id for each in dispatches}:
                self.dispatches.pop(dispatch_id, None)
        for dispatch in dispatches:
            record = self.dispatches.get(dispatch.id)
            if record is None or record.dispatch.metadata != dispatch.metadata:
                self.dispatches[dispatch.id] = DispatchRecord(dispatch)
            else:
                record.dispatch = dispatch

    def still_served(self, now_s: float) -> None:
        """The agents of the last look are still there."""
        for dispatch_id in self.served:
            if (known := self.get(dispatch_id)) is not None:
                known.served_s = now_s

    def stand_ins(self) -> dict[str, DispatchRecord]:
        """What it had asked for before it was lost, and has no dispatch for since it came back."""
        before = {} if self.remembered is None else self.remembered.dispatches
        roles = {each.role for each in self.dispatches.values()}
        return {key: each for key, each in before.items() if each.role not in roles}

    def asks(self) -> list[DispatchRecord]:
        """All that it asks for, as far as is known."""
        return [*self.dispatches.values(), *self.stand_ins().values()]

    def forget(self, dispatch_id: str) -> None:
        """Remember a dispatch no more that it had before it was lost."""
        if self.remembered is not None:
            self.remembered.dispatches.pop(dispatch_id, None)

    def remember(self, dispatch_ids: Iterable[str | None]) -> None:
        """Remember dispatches that it had, though it may come back without them."""
        before = self.to_remember()
        kept = {each: before.dispatches[each] for each in dispatch_ids if each in before.dispatches}
        self.remembered = Remembered(before.metadata, self.stand_ins() | kept)

    def to_remember(self) -> Remembered:
        """What it asks for now, or asked for before it was lost."""
        before = self.remembered or Remembered()
        metadata = self.room.metadata or before.metadata
        return Remembered(metadata, self.stand_ins() | self.dispatches)


class Rooms:
    """The rooms of one server, by name."""

    def __init__(self) -> None:
        self._records: dict[str, RoomRecord] = {}
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
        record = self._records.get(name)
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
        room = job.room
        record = self._records.get(room.name)
        if record is None or record.sid != room.sid:
            record = self._begin(room, now_s)
        record.seen(room, now_s)
        record.take_in([agents.of_job(job)])
        return record.asked(job.metadata)

    def _begin(self, room: Room, now_s: float) -> RoomRecord:
        before = self._records.get(room.name)
        record = self._records[room.name] = RoomRecord(room, room.sid, now_s, now_s)
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
                del self._records[name]

    def _was_lost(self, record: RoomRecord, now_s: float) -> bool:
        return record.known_s < self._back_s and now_s <= self._back_s + RETURN_S

    def _forgotten_at_s(self, record: RoomRecord) -> float:
        if record.known_s < self._back_s:
            return self._back_s + RETURN_S
        return max(record.known_s + UNLISTED_S, record.watch.suspect_until_s)
