"""What a room needs, by calls of the server's API.

A look costs a call for the participants, and one for the dispatches where a user is. A check that
the agents of the last look are still there costs one, and so does each question whether an agent
has come, or whether an identity is free. Where the numbers of a room cannot tell that its agents
are there, a look costs one more for each of them, and one for the user who came last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Final

from livekit.api import LiveKitAPI, TwirpError
from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.room import ListParticipantsRequest, RoomParticipantIdentity

from build_aware.adoption import ghosts
from build_aware.adoption.api_errors import is_gone, is_not_found
from build_aware.adoption.judgement import (
    USER_KINDS,
    Candidate,
    Empty,
    Finding,
    Fits,
    Served,
    has_user,
    judge,
)
from build_aware.adoption.notes import is_noted
from build_aware.adoption.own_jobs import OwnJobs
from build_aware.dispatch import ages
from build_aware.dispatch.agents import AgentSeen, served
from build_aware.dispatch.room_record import RoomRecord

LONG_S: Final = 60.0
"""How long after its adoption a dispatch must have an agent for its failures to be forgotten: an
entrypoint may run for a while, and crash, again and again."""

GHOST_S: Final = 60.0
"""After how long an agent whose node did not answer is asked for again: it may have been busy."""


class Lookout:
    """Finds out what rooms need.

    Args:
        candidate: what this worker may serve.
        own: the jobs that run here.
        accepting: those that were accepted here and do not run yet. A worker that is overloaded
            may take long for that, and must not start one more.
    """

    def __init__(
        self,
        candidate: Candidate,
        own: OwnJobs,
        accepting: Callable[[], Iterable[Job]] = tuple,
    ) -> None:
        self._candidate = candidate
        self._own = own
        self._accepting = accepting

    async def look(
        self,
        api: LiveKitAPI,
        record: RoomRecord,
        *,
        adoptable_in_s: Callable[[Fits], float],
        also_empty: bool = False,
    ) -> Finding:
        """Find out what a room needs, and remove the dead agents of this worker from it.

        Raises:
            API_ERRORS: a call failed; `api_errors.is_gone` where the room or its node is gone.

        Args:
            api: the server's API.
            record: what is known of the room; what is found is added.
            adoptable_in_s: in how many seconds this worker may adopt what it fits.
            also_empty: whether to look at offers that are under way where no user is yet.
        """
        believed_from_s = time.monotonic() - GHOST_S
        record.ghosts = {sid: at_s for sid, at_s in record.ghosts.items() if at_s > believed_from_s}
        participants = []
        for participant in await _participants(api, record):
            if self._is_dead(participant):
                # LiveKit would show it for another twenty seconds.
                if not await _remove(api, record.room.name, participant.identity):
                    record.ghosts[participant.sid] = time.monotonic()
            else:
                participants.append(participant)
        there = _agents(participants)
        if (found := _taken_meanwhile(record, there)) is not None:
            record.agents = frozenset(agent.sid for agent in there)
            record.has_agent = True
            _note(record, found, time.monotonic())
            return Served(asked=False)
        if there and has_user(participants) and record.surplus < len(there):
            participants = await _the_living(api, record, participants)
            there = _agents(participants)
        self._own.joined(there)
        record.agents = frozenset(agent.sid for agent in there)
        record.served = {}
        record.has_agent = any(map(self._candidate.is_namesake, there))
        if not has_user(participants) and not also_empty:
            return Served() if record.has_agent else Empty()

        known = set(record.dispatches)
        dispatches = list(await api.agent_dispatch.list_dispatch(record.room.name))
        # Where the server was lost meanwhile, this may be another room of the same name.
        gone = known if record.listed else ()
        record.take_in(self._candidate.asked_in(dispatches), gone=gone)
        dispatches += _still_asked(record, dispatches)
        now_s = time.monotonic()
        _note(record, served(dispatches, there), now_s)
        # A job that has just begun here is not waited for: its agent is as good as there.
        here = self._own.agents_in(record.room.name, now_s)
        coming = (job for job in self._accepting() if job.room.name == record.room.name)
        here += map(AgentSeen.of_job, coming)
        return judge(
            self._candidate,
            participants=participants,
            dispatches=dispatches,
            served=served(dispatches, [*there, *here]).keys(),
            asked=lambda dispatch: record.asked(dispatch.metadata),
            dead_jobs=self._own.dead_jobs,
            age=record.ages.at(now_s, ages.server_now_s()),
            served_ago_s=lambda dispatch: now_s - record.of(dispatch).served_s,
            adoptable_in_s=adoptable_in_s,
        )

    async def check(self, api: LiveKitAPI, record: RoomRecord) -> bool:
        """Whether the agents of the last look are still there."""
        agents = self._living(await _participants(api, record))
        if not record.agents <= {agent.sid for agent in agents}:
            return False
        record.still_served(time.monotonic())
        return True

    async def has_come(self, api: LiveKitAPI, record: RoomRecord, dispatch: AgentDispatch) -> bool:
        """Whether an agent for a dispatch is there."""
        agents = self._living(await _participants(api, record))
        self._own.joined(agents)
        return dispatch.id in _served(record, agents)

    async def is_free(
        self, api: LiveKitAPI, record: RoomRecord, dispatch: AgentDispatch, identity: str
    ) -> bool:
        """Whether nobody alive has an identity, and a dispatch still has no agent."""
        participants = [
            participant
            for participant in await _participants(api, record)
            if not self._is_dead(participant)
        ]
        if any(participant.identity == identity for participant in participants):
            return False
        return dispatch.id not in _served(record, _agents(participants))

    def _living(self, participants: Iterable[ParticipantInfo]) -> list[AgentSeen]:
        return [agent for agent in _agents(participants) if not self._own.is_dead(agent)]

    def _is_dead(self, participant: ParticipantInfo) -> bool:
        agent = AgentSeen.of_info(participant)
        return agent is not None and self._own.is_dead(agent)


def _still_asked(record: RoomRecord, dispatches: list[AgentDispatch]) -> list[AgentDispatch]:
    """What stands in for dispatches that a restart took from a room."""
    for dispatch_id, known in record.stand_ins().items():
        if is_noted(known.dispatch, dispatches):
            record.forget(dispatch_id)
    return [known.dispatch for known in record.stand_ins().values()]


def _served(record: RoomRecord, agents: Iterable[AgentSeen]) -> Set[str]:
    return served((known.dispatch for known in record.asks()), agents).keys()


def _taken_meanwhile(
    record: RoomRecord, agents: Iterable[AgentSeen]
) -> Mapping[str, AgentSeen] | None:
    """Who serves a room whose jobs this worker has refused for another build's sake.

    None unless all of them have come that it is known to ask for: whatever else it asked for
    meanwhile would have been offered to this worker as well.
    """
    asks = record.asks()
    if not any(known.was_refused for known in asks):
        return None
    found = {agent.dispatch_id: agent for agent in agents if agent.dispatch_id is not None}
    return found if all(known.dispatch.id in found for known in asks) else None


def _note(record: RoomRecord, found: Mapping[str, AgentSeen], now_s: float) -> None:
    record.served = found
    for dispatch_id in found:
        _note_agent(record, dispatch_id, now_s)


def _note_agent(record: RoomRecord, dispatch_id: str, now_s: float) -> None:
    if (known := record.get(dispatch_id)) is not None:
        known.served_s = now_s
        if now_s > known.adopted_s + LONG_S:
            known.attempts = 0


def _agents(participants: Iterable[ParticipantInfo]) -> list[AgentSeen]:
    agents = map(AgentSeen.of_info, participants)
    return [agent for agent in agents if agent is not None]


async def _participants(api: LiveKitAPI, record: RoomRecord) -> list[ParticipantInfo]:
    request = ListParticipantsRequest(room=record.room.name)
    return _without_ghosts(record, (await api.room.list_participants(request)).participants)


async def _the_living(
    api: LiveKitAPI, record: RoomRecord, participants: list[ParticipantInfo]
) -> list[ParticipantInfo]:
    """Those who are there, of participants of which the server may list some whose node is gone.

    The user who came last is asked for first: nobody of a node that is gone came after that one,
    and where that one does not answer, the whole room is gone.
    """
    name = record.room.name
    users = [each for each in participants if each.kind in USER_KINDS]
    last = max(users, key=lambda each: each.joined_at_ms or each.joined_at * 1000)
    await ghosts.ask_for(api, name, last.identity)
    agents = {each.sid: seen for each in participants if (seen := AgentSeen.of_info(each))}
    gone = await ghosts.find(api, name, (each for each in participants if each.sid in agents))
    if gone:
        # A dispatch that was made by a call of its own is lost with the node.
        record.remember(seen.dispatch_id for sid, seen in agents.items() if sid in gone)
        record.ghosts |= dict.fromkeys(gone, time.monotonic())
    return _without_ghosts(record, participants)


def _without_ghosts(
    record: RoomRecord, participants: Iterable[ParticipantInfo]
) -> list[ParticipantInfo]:
    return [each for each in participants if each.sid not in record.ghosts]


async def _remove(api: LiveKitAPI, room: str, identity: str) -> bool:
    """Remove a participant; returns whether the server lists it no more."""
    try:
        await api.room.remove_participant(RoomParticipantIdentity(room=room, identity=identity))
    except TwirpError as error:
        if not is_gone(error):
            raise
        return is_not_found(error)
    return True
