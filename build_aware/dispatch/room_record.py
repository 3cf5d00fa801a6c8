"""What this worker knows of one room of its server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import Room

from build_aware.dispatch import target
from build_aware.dispatch.agents import AgentSeen, Role
from build_aware.dispatch.ages import Ages
from build_aware.dispatch.records import DispatchRecord, Remembered
from build_aware.dispatch.target import Asked, Untargeted
from build_aware.dispatch.watch import Watch


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
        served: the dispatches that have one, and which, by dispatch id.
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
    served: Mapping[str, AgentSeen] = field(default_factory=dict)
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
