"""Which agents are in a room, and which of its dispatches have one: pure.

A room may ask for several agents, and several times for one: an interpreter for French and one for
German, say, by two dispatches with different metadata. Each of them is a role of its own, and gets
one agent. Two dispatches that differ in nothing but the build that they name are the same role:
who dispatches again, be it to another build, means the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo

from build_aware.dispatch import attributes, target

if TYPE_CHECKING:
    from livekit import rtc

AGENT: Final = ParticipantInfo.Kind.AGENT
"""LiveKit's kind of participant for agents; it has the same number in `rtc.ParticipantKind`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSeen:
    """An agent, as its attributes tell of it. All but the first two are None where unknown.

    Attributes:
        sid: the id of this participant, which no other has had; None if it was not seen in a room.
        identity: its identity, which a team may fix: not enough to know a session by.
        agent_name: the name under which LiveKit knows it.
        dispatch_id: the dispatch that its job was made of.
        asked: a digest of what that dispatch asked for; see `attributes.asked`.
        job_id: its job.
        build: the id of its build.
    """

    sid: str | None = None
    identity: str | None = None
    agent_name: str | None = None
    dispatch_id: str | None = None
    asked: str | None = None
    job_id: str | None = None
    build: str | None = None

    @classmethod
    def of_info(cls, info: ParticipantInfo) -> AgentSeen | None:
        """The agent that the server's API tells of; None if that participant is none."""
        return _seen(info.kind, info.sid, info.identity, info.attributes)

    @classmethod
    def of_remote(cls, participant: rtc.RemoteParticipant) -> AgentSeen | None:
        """The agent that a room shows to those in it; None if that participant is none."""
        return _seen(
            participant.kind, participant.sid, participant.identity, participant.attributes
        )

    @classmethod
    def of_job(cls, job: Job) -> AgentSeen:
        """The agent that runs a job, or is about to."""
        return cls(
            agent_name=job.agent_name,
            dispatch_id=job.dispatch_id,
            asked=attributes.asked(job.deployment, job.metadata),
            job_id=job.id,
        )

    def may_stand_for(self, dispatch: AgentDispatch) -> bool:
        """Whether it may serve a dispatch that is not the one its job was made of."""
        if self.agent_name not in (None, dispatch.agent_name):
            return False
        return self.asked in (None, attributes.asked(dispatch.deployment, dispatch.metadata))


class Role(NamedTuple):
    """What a dispatch asks an agent to do, whatever the build."""

    agent_name: str
    deployment: str
    metadata: str


def role_of(dispatch: AgentDispatch) -> Role:
    """The role that a dispatch is for."""
    return Role(dispatch.agent_name, dispatch.deployment, target.beside(dispatch.metadata))


def by_role(dispatches: Iterable[AgentDispatch]) -> list[list[AgentDispatch]]:
    """The dispatches for each role, of which the last one counts.

    Returns:
        Lists of dispatches, oldest first; the role that was asked for first comes first.
    """
    roles: dict[Role, list[AgentDispatch]] = {}
    for dispatch in sorted(dispatches, key=lambda each: (each.state.created_at, each.id)):
        roles.setdefault(role_of(dispatch), []).append(dispatch)
    return list(roles.values())


def of_job(job: Job) -> AgentDispatch:
    """The dispatch that a job was made of, as far as the job tells."""
    made = AgentDispatch(
        id=job.dispatch_id,
        agent_name=job.agent_name,
        deployment=job.deployment,
        metadata=job.metadata,
    )
    if job.attributes:
        made.attributes.update(job.attributes)
    return made


def served(
    dispatches: Iterable[AgentDispatch], agents: Iterable[AgentSeen]
) -> dict[str, AgentSeen]:
    """Which dispatches have an agent, and which one.

    An agent serves the dispatch that its job was made of, and so the role of that. If that dispatch
    is not among these, because the server was restarted without Redis, it stands for the one with
    the same agent name, deployment and metadata. An agent that does not tell what it was asked for,
    as those of stock workers, stands for the oldest role of its agent name that has no agent; one
    that tells no name either, for the oldest of any. Each agent serves one role at the most.

    Args:
        dispatches: those of one room.
        agents: the agents that are in that room, in any order.

    Returns:
        The agent of each dispatch that has one, by dispatch id. Dispatches for the same role have
        the same agent.
    """
    roles = by_role(dispatches)
    number_of = {dispatch.id: number for number, role in enumerate(roles) for dispatch in role}
    serving: dict[int, AgentSeen] = {}
    others: list[AgentSeen] = []
    for agent in agents:
        number = None if agent.dispatch_id is None else number_of.get(agent.dispatch_id)
        if number is None:
            others.append(agent)
        else:
            serving.setdefault(number, agent)
    # Who tells more chooses first, so that nobody takes the only place of another.
    others.sort(key=lambda each: (each.asked is None, each.agent_name is None))
    for agent in others:
        number = _first_free(roles, serving, agent.may_stand_for)
        if number is not None:
            serving[number] = agent
    return {dispatch.id: agent for number, agent in serving.items() for dispatch in roles[number]}


def _first_free(
    roles: list[list[AgentDispatch]],
    serving: Mapping[int, AgentSeen],
    fits: Callable[[AgentDispatch], bool],
) -> int | None:
    free = (number for number in range(len(roles)) if number not in serving)
    return next((number for number in free if any(map(fits, roles[number]))), None)


def _seen(kind: int, sid: str, identity: str, told: Mapping[str, str]) -> AgentSeen | None:
    # An avatar speaks for an agent and is none.
    if kind != AGENT or attributes.PUBLISHES_FOR in told:
        return None
    return AgentSeen(
        sid=sid,
        identity=identity,
        agent_name=told.get(attributes.AGENT_NAME),
        dispatch_id=told.get(attributes.DISPATCH),
        asked=told.get(attributes.ASKED),
        job_id=told.get(attributes.JOB),
        build=told.get(attributes.BUILD_ID),
    )
