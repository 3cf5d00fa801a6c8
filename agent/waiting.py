"""What does this room need: a pure judgement on who is in it and what it asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from livekit.protocol.agent import JobStatus
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo

from . import target as targets
from .target import Target

OFFER_S: Final = 3.0
"""How old a dispatch must be before it counts as dropped: livekit-server gives the whole chain of
offers three seconds (the default timeout of its psrpc client), and drops the job then."""

JOIN_S: Final = 5.0
"""How long an agent that took a job may need to appear in the room."""

AGENT_NAME: Final = "lk.agent_name"
"""The participant attribute that LiveKit gives its agents."""

PUBLISHES_FOR: Final = "lk.publish_on_behalf"
"""The participant attribute of an avatar, which speaks for an agent and is none."""

USER_KINDS: Final = frozenset(
    (
        ParticipantInfo.Kind.STANDARD,
        ParticipantInfo.Kind.SIP,
        ParticipantInfo.Kind.CONNECTOR,
    )
)
"""The kinds of participant that are users; agents, recorders and ingress are not."""


@dataclass(frozen=True, slots=True)
class Served:
    """An agent is there."""


@dataclass(frozen=True, slots=True)
class Empty:
    """No user is there."""


@dataclass(frozen=True, slots=True)
class NotAsked:
    """Nobody asked for this agent, or a worker that takes untargeted jobs is wanted."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The room waits, and this worker must not serve it yet.

    Attributes:
        names: the builds that it waits for; empty while a dispatch is still under way.
        until_s: Unix time at which to look again, or None if that changes nothing.
    """

    names: tuple[str, ...]
    until_s: float | None


@dataclass(frozen=True, slots=True)
class Fits:
    """The room waits, and this worker may serve it.

    Attributes:
        dispatch: what asked for this agent.
        reason: why this build may serve it, as logged and counted.
    """

    dispatch: AgentDispatch
    reason: Literal["target", "untargeted", "fallback"]


Finding: TypeAlias = Served | Empty | NotAsked | Waiting | Fits


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a worker has to offer to a waiting room.

    Attributes:
        agent_name: the name under which it registered; empty for none.
        deployment: the LiveKit deployment under which it registered; empty for none.
        answers_to: whether its build answers to a name.
        untargeted: what it does with jobs that name no build.
    """

    agent_name: str
    deployment: str
    answers_to: Callable[[str], bool]
    untargeted: Literal["accept", "reject"]

    def asked_in(self, dispatches: Iterable[AgentDispatch]) -> list[AgentDispatch]:
        """The dispatches that ask for this agent."""
        return [
            dispatch
            for dispatch in dispatches
            if (dispatch.agent_name, dispatch.deployment) == (self.agent_name, self.deployment)
        ]


def is_agent(participant: ParticipantInfo, agent_name: str) -> bool:
    """Whether a participant is an agent of this name, of whatever build.

    An agent that does not say its name counts as ours: better to wait than to speak twice.
    """
    attributes = participant.attributes
    return (
        participant.kind == ParticipantInfo.Kind.AGENT
        and PUBLISHES_FOR not in attributes
        and attributes.get(AGENT_NAME, agent_name) == agent_name
    )


def presence(participants: Iterable[ParticipantInfo], agent_name: str) -> Served | Empty | None:
    """Judge by who is there alone; None if only the room's dispatches can tell."""
    participants = list(participants)
    if any(is_agent(participant, agent_name) for participant in participants):
        return Served()
    if not any(participant.kind in USER_KINDS for participant in participants):
        return Empty()
    return None


def judge(
    candidate: Candidate,
    *,
    participants: Iterable[ParticipantInfo],
    dispatches: Iterable[AgentDispatch],
    room_metadata: str,
    dead_jobs: Collection[str],
    served_s: float,
    now_s: float,
) -> Finding:
    """Judge a room that `presence` leaves open: the only place where the rule is written.

    Args:
        candidate: who judges.
        participants: who is in the room: at least one user, and no agent of ours.
        dispatches: what the room asked for.
        room_metadata: the room's metadata, as it is now.
        dead_jobs: ids of jobs that are known to have ended.
        served_s: Unix time at which an agent was last seen there, or 0.
        now_s: Unix time.
    """
    asking = candidate.asked_in(dispatches)
    if not asking:
        return NotAsked()
    # Whoever dispatches again, be it to another build, means the last one.
    dispatch = max(asking, key=lambda each: each.state.created_at)
    if (busy_until_s := _under_way_until_s(asking, dead_jobs)) > now_s:
        return Waiting((), busy_until_s)

    asked = targets.asked_by(dispatch_metadata=dispatch.metadata, room_metadata=room_metadata)
    if not isinstance(asked, Target):
        return Fits(dispatch, "untargeted") if candidate.untargeted == "accept" else NotAsked()
    if asked.met_by(candidate.answers_to):
        return Fits(dispatch, "target")
    if asked.fallback == "none" or candidate.untargeted == "reject":
        return Waiting(asked.names, None)
    waits_since_s = max(_created_s(dispatch), _first_user_s(participants), served_s)
    due_s = waits_since_s + asked.wait.total_seconds()
    return Fits(dispatch, "fallback") if due_s <= now_s else Waiting(asked.names, due_s)


def _under_way_until_s(dispatches: Iterable[AgentDispatch], dead_jobs: Collection[str]) -> float:
    """Until when an agent may still come that was asked the regular way."""
    until_s = 0.0
    for dispatch in dispatches:
        if not dispatch.state.jobs:
            until_s = max(until_s, _created_s(dispatch) + OFFER_S)
        for job in dispatch.state.jobs:
            # The server never updates the status of a job that dies; its start is all there is.
            if job.state.status == JobStatus.JS_RUNNING and job.id not in dead_jobs:
                until_s = max(until_s, job.state.started_at / 1e9 + JOIN_S)
    return until_s


def _created_s(dispatch: AgentDispatch) -> float:
    return dispatch.state.created_at / 1e9


def _first_user_s(participants: Iterable[ParticipantInfo]) -> float:
    return min(
        participant.joined_at_ms / 1e3 or float(participant.joined_at)
        for participant in participants
        if participant.kind in USER_KINDS
    )
