"""What does this room need: a pure judgement on who is in it and what it asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from livekit.protocol.agent import JobStatus
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo

from build_aware.dispatch.target import Asked, Target

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
        names: the builds that it waits for; empty while an agent may still come by itself.
        in_s: in how many seconds to look again, or None if that changes nothing.
        offered: whether the dispatcher may still be offering the job.
        only_ours: whether no other build may serve the room.
    """

    names: tuple[str, ...]
    in_s: float | None
    offered: bool = False
    only_ours: bool = False


@dataclass(frozen=True, slots=True)
class Fits:
    """The room waits, and this worker may serve it.

    Attributes:
        dispatch: what asked for this agent.
        reason: why this build may serve it, as logged and counted.
        waited_s: for how long the room has waited.
        asked_s: how long ago the dispatch was made.
        only_ours: whether no other build may serve the room.
    """

    dispatch: AgentDispatch
    reason: Literal["target", "untargeted", "fallback"]
    waited_s: float = 0.0
    asked_s: float = 0.0
    only_ours: bool = False


Finding: TypeAlias = Served | Empty | NotAsked | Waiting | Fits

Age: TypeAlias = Callable[[str, float], float]
"""How old something of the server's is, in seconds; see `ages.Ages`."""


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
    asked: Callable[[AgentDispatch], Asked],
    dead_jobs: Collection[str],
    age: Age,
    served_ago_s: float = math.inf,
) -> Finding:
    """Judge a room that `presence` leaves open: the only place where the rule is written.

    Args:
        candidate: who judges.
        participants: who is in the room: at least one user, and no agent of ours.
        dispatches: what the room asked for.
        asked: which build one of them asks for.
        dead_jobs: ids of jobs that are known to have ended.
        age: how old a thing of the server's is, by its id and the server's time of its beginning.
        served_ago_s: how long ago this worker last knew of an agent there; infinite for never.
    """
    asking = candidate.asked_in(dispatches)
    if not asking:
        return NotAsked()
    # Whoever dispatches again, be it to another build, means the last one.
    dispatch = max(asking, key=lambda each: each.state.created_at)
    target = asked(dispatch)
    only_ours = isinstance(target, Target) and target.only_met_by(candidate.answers_to)
    offered_s, joining_s = _under_way_s(asking, dead_jobs, age)
    if (busy_s := max(offered_s, joining_s)) > 0:
        return Waiting((), busy_s, offered=offered_s > 0, only_ours=only_ours)

    waited_s = min(_age_of(dispatch, age), _first_user_s(participants, age), served_ago_s)
    reason = _reason(candidate, target, waited_s)
    if isinstance(reason, str):
        return Fits(dispatch, reason, waited_s, _age_of(dispatch, age), only_ours)
    return reason


def _reason(
    candidate: Candidate, target: Asked, waited_s: float
) -> Literal["target", "untargeted", "fallback"] | NotAsked | Waiting:
    """Why this build may serve a room that nobody else is about to serve, or that it must not."""
    accepts = candidate.untargeted == "accept"
    if not isinstance(target, Target):
        return "untargeted" if accepts else NotAsked()
    if target.met_by(candidate.answers_to):
        return "target"
    if target.fallback == "none" or not accepts:
        return Waiting(target.names, None)
    left_s = target.wait.total_seconds() - waited_s
    return "fallback" if left_s <= 0 else Waiting(target.names, left_s)


def _under_way_s(
    dispatches: Iterable[AgentDispatch], dead_jobs: Collection[str], age: Age
) -> tuple[float, float]:
    """For how long a job may still be offered, and an agent that took one may still come."""
    offered_s = joining_s = 0.0
    for dispatch in dispatches:
        if not dispatch.state.jobs:
            offered_s = max(offered_s, OFFER_S - _age_of(dispatch, age))
        for job in dispatch.state.jobs:
            # The server never updates the status of a job that dies; its start is all there is.
            if job.state.status == JobStatus.JS_RUNNING and job.id not in dead_jobs:
                joining_s = max(joining_s, JOIN_S - age(job.id, job.state.started_at / 1e9))
    return offered_s, joining_s


def _age_of(dispatch: AgentDispatch, age: Age) -> float:
    return age(dispatch.id, dispatch.state.created_at / 1e9)


def _first_user_s(participants: Iterable[ParticipantInfo], age: Age) -> float:
    """How long ago the first of the users who are there came."""
    return max(
        (
            age(user.sid, user.joined_at_ms / 1e3 or float(user.joined_at))
            for user in participants
            if user.kind in USER_KINDS
        ),
        default=0.0,
    )
