"""What does this room need: a pure judgement on who is in it and what it asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from livekit.protocol.agent import JobStatus
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo

from build_aware.dispatch.agents import AgentSeen, by_role
from build_aware.dispatch.target import Asked, Target

OFFER_S: Final = 3.0
"""How old a dispatch must be before it counts as dropped: livekit-server gives the whole chain of
offers three seconds (the default timeout of its psrpc client), and drops the job then."""

JOIN_S: Final = 5.0
"""How long an agent that took a job may need to appear in the room."""

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
    """All that asked for this agent have one.

    Attributes:
        asked: whether this look has listed the dispatches of the room.
    """

    asked: bool = True


@dataclass(frozen=True, slots=True)
class Empty:
    """No user is there."""


@dataclass(frozen=True, slots=True)
class NotAsked:
    """Nobody asks for this agent, or for one that takes untargeted jobs where this does not."""


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
        first_user_s: how long ago the first of the users came who are there.
    """

    dispatch: AgentDispatch
    reason: Literal["target", "untargeted", "fallback"]
    waited_s: float = 0.0
    asked_s: float = 0.0
    only_ours: bool = False
    first_user_s: float = math.inf


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

    def is_namesake(self, agent: AgentSeen) -> bool:
        """Whether an agent has this name, or tells none."""
        return agent.agent_name in (None, self.agent_name)


def has_user(participants: Iterable[ParticipantInfo]) -> bool:
    """Whether a user is among these participants."""
    return any(participant.kind in USER_KINDS for participant in participants)


def was_ended(dispatch: AgentDispatch) -> bool:
    """Whether a request handler has ended this dispatch for everybody, by a bare `reject()`.

    livekit-server 1.13.5 then lists a job with status JS_SUCCESS and no participant identity:
    `Worker.AssignJob` (pkg/agent/worker.go) answers `terminate` so, and sets the identity only for
    a worker that accepts; `Room.handleNewJobs` (pkg/rtc/room.go) puts that answer into the
    dispatch. A job that was refused with `terminate=False` by all is not listed. One that was taken
    is listed as JS_RUNNING, with an identity, however it ends: the dispatch has a copy of its state
    that only the deletion of the dispatch updates (`Room.DeleteAgentDispatch`).
    """
    return any(
        job.state.status == JobStatus.JS_SUCCESS and not job.state.participant_identity
        for job in dispatch.state.jobs
    )


def judge(
    candidate: Candidate,
    *,
    participants: Iterable[ParticipantInfo],
    dispatches: Iterable[AgentDispatch],
    served: Collection[str],
    asked: Callable[[AgentDispatch], Asked],
    dead_jobs: Collection[str],
    age: Age,
    served_ago_s: Callable[[AgentDispatch], float] = lambda _: math.inf,
    adoptable_in_s: Callable[[Fits], float] = lambda _: 0.0,
) -> Finding:
    """Judge a room: the only place where the rule is written.

    Each role that the room asked this agent for is judged by itself, and the last dispatch for it
    counts. Of those that this worker may adopt, the one that was asked for first is found.

    Args:
        candidate: who judges.
        participants: who is in the room.
        dispatches: what the room asked for.
        served: ids of the dispatches that have an agent, by `agents.served`.
        asked: which build one of them asks for.
        dead_jobs: ids of jobs that are known to have ended.
        age: how old a thing of the server's is, by its id and the server's time of its beginning.
        served_ago_s: how long ago this worker last knew of an agent for one; infinite for never.
        adoptable_in_s: in how many seconds this worker may adopt what it fits; infinite for never.
    """
    participants = list(participants)
    # Asked for in any case: an age that nobody asks for is forgotten.
    first_user_s = _first_user_s(participants, age)

    def judged(role: Sequence[AgentDispatch]) -> Finding:
        # Whoever dispatches again, be it to another build, means the last one.
        dispatch = role[-1]
        if dispatch.id in served:
            return Served()
        if was_ended(dispatch):
            return NotAsked()
        target = asked(dispatch)
        only_ours = isinstance(target, Target) and target.only_met_by(candidate.answers_to)
        offered_s, joining_s = _under_way_s(role, dead_jobs, age)
        if (under_way_s := max(offered_s, joining_s)) > 0:
            return Waiting((), under_way_s, offered=offered_s > 0, only_ours=only_ours)
        asked_s = _age_of(dispatch, age)
        waited_s = min(asked_s, first_user_s, served_ago_s(dispatch))
        reason = _reason(candidate, target, waited_s)
        if not isinstance(reason, str):
            return reason
        fits = Fits(dispatch, reason, waited_s, asked_s, only_ours, first_user_s)
        pause_s = adoptable_in_s(fits)
        if pause_s <= 0:
            return fits
        return Waiting((), None if math.isinf(pause_s) else pause_s, only_ours=only_ours)

    finding = _foremost([judged(role) for role in by_role(candidate.asked_in(dispatches))])
    if has_user(participants) or (isinstance(finding, Waiting) and finding.offered):
        return finding
    return Empty()


def _foremost(findings: Sequence[Finding]) -> Finding:
    """What to do about a room, by what its roles need; those that were asked for first first."""
    for finding in findings:
        if isinstance(finding, Fits):
            return finding
    if waiting := [finding for finding in findings if isinstance(finding, Waiting)]:
        foremost = max(waiting, key=lambda each: (each.offered and each.only_ours, each.offered))
        return Waiting(
            tuple(dict.fromkeys(name for each in waiting for name in each.names)),
            min((each.in_s for each in waiting if each.in_s is not None), default=None),
            offered=foremost.offered,
            only_ours=foremost.only_ours,
        )
    return Served() if Served() in findings else NotAsked()


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
