"""Starts a job in this worker that no dispatcher offered, as if one had.

LiveKit's own way, `AgentServer.simulate_job`, starts one job after the other, asks no request
handler, and drops what a session may need: the metadata and attributes of its dispatch, and the
agent's name.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from livekit.agents import AgentServer, JobRequest
from livekit.agents.job import JobAcceptArguments, RunningJobInfo
from livekit.agents.utils import shortuuid
from livekit.agents.worker import WorkerPermissions
from livekit.api import AccessToken, VideoGrants
from livekit.protocol.agent import Job, JobType
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import Room

from build_aware import livekit_private
from build_aware.dispatch.acceptance import ANSWER_S
from build_aware.dispatch.attributes import AGENT_NAME

logger = logging.getLogger(__name__)

JOB_PREFIX: Final = "AJ_"

TOKEN_TTL: Final = datetime.timedelta(hours=1)
"""How long a token is good for a first join; LiveKit gives those who are in a room new ones."""

Ask: TypeAlias = Callable[[JobRequest], Awaitable[None]]
"""A request handler, which accepts or refuses a job."""

IsFree: TypeAlias = Callable[[str], Awaitable[bool]]
"""Whether nobody with this identity is in the room, and no agent for the dispatch."""

Outcome: TypeAlias = Literal["launched", "refused", "taken"]
"""What has become of a job: its process has it, the request handler refused it, or a participant
with the identity that the handler gave it, or another agent for its dispatch, was there already."""


class Launch(Protocol):
    """Starts a job here; `functools.partial(launch, server, ask=..., credentials=...)` is one."""

    async def __call__(self, job: Job, *, is_free: IsFree) -> Outcome:
        """Start it; see `launch`."""
        ...


@dataclass(frozen=True, slots=True)
class Busy:
    """What LiveKit measures of a worker that it counts as full."""

    load: float
    threshold: float


def busy(server: AgentServer) -> Busy | None:
    """LiveKit's measure of `server` if it is full by that; None if it would take another job.

    A server that drains takes none, whatever it measures.
    """
    measured = livekit_private.measured_load(server)
    return Busy(*measured) if measured else None


def job_for(dispatch: AgentDispatch, room: Room) -> Job:
    """The job that LiveKit's dispatcher would have made of a dispatch."""
    return Job(
        id=shortuuid(JOB_PREFIX),
        dispatch_id=dispatch.id,
        type=JobType.JT_ROOM,
        room=room,
        metadata=dispatch.metadata,
        agent_name=dispatch.agent_name,
        deployment=dispatch.deployment,
        attributes=dict(dispatch.attributes),
    )


async def _always(_: str) -> bool:
    return True


async def launch(
    server: AgentServer,
    job: Job,
    *,
    ask: Ask,
    credentials: tuple[str, str, str],
    is_free: IsFree = _always,
) -> Outcome:
    """Ask the request handler, and if it accepts, run a job in a process of `server`.

    An agent whose identity the handler has fixed joins only if nobody has that identity yet: of two
    participants with one identity LiveKit removes the one that came first.

    Args:
        server: a server that is started.
        job: the job; its id is that of no other.
        ask: the request handler that the dispatcher would ask. It sees a request of LiveKit's own
            class. Whether it refuses with `terminate` or without makes no difference here.
        credentials: URL, API key and API secret of the LiveKit server.
        is_free: is asked right before the agent would join with an identity that is not made of
            the job's id.

    Raises:
        RuntimeError: no job process could be started.
    """
    accepted = await _answer(job, ask)
    if accepted is None:
        return "refused"
    if accepted.identity != f"agent-{job.id}" and not await is_free(accepted.identity):
        return "taken"
    url, api_key, api_secret = credentials
    # Last, as the server writes the agent's name: a handler cannot give another one.
    accepted.attributes = (accepted.attributes or {}) | {AGENT_NAME: job.agent_name}
    token = (
        AccessToken(api_key, api_secret)
        .with_identity(accepted.identity)
        .with_name(accepted.name)
        .with_metadata(accepted.metadata)
        .with_attributes(accepted.attributes)
        .with_kind("agent")
        .with_grants(grants(livekit_private.permissions(server), job.room.name))
        .with_ttl(TOKEN_TTL)
        .to_jwt()
    )
    running = RunningJobInfo(
        accept_arguments=accepted,
        job=job,
        url=url,
        token=token,
        worker_id=server.id,
        fake_job=False,
    )
    await livekit_private.launch(server, running)
    return "launched"


def grants(permissions: WorkerPermissions, room: str) -> VideoGrants:
    """What an agent may do in its room, as livekit-server 1.13.5 grants it to those it dispatches.

    That is `BuildAgentToken` (agent/token.go of livekit/protocol), which looks at all that a worker
    registers with but `can_publish_sources`.
    """
    return VideoGrants(
        room_join=True,
        agent=True,
        room=room,
        can_subscribe=permissions.can_subscribe,
        can_publish=permissions.can_publish,
        can_publish_data=permissions.can_publish_data,
        hidden=permissions.hidden,
        can_update_own_metadata=permissions.can_update_metadata,
        can_subscribe_metrics=False,  # LiveKit's workers do not register with it.
    )


async def _answer(job: Job, ask: Ask) -> JobAcceptArguments | None:
    """What the request handler accepts a job with; None if it does not."""
    answers: list[JobAcceptArguments | None] = []

    async def on_accept(arguments: JobAcceptArguments) -> None:
        answers.append(arguments)

    async def on_reject(terminate: bool) -> None:
        answers.append(None)

    try:
        # A little more than the handler itself has: that one is told what to do about it.
        async with asyncio.timeout(ANSWER_S + 1):
            await ask(JobRequest(job=job, on_reject=on_reject, on_accept=on_accept))
    except Exception as error:
        # As LiveKit does, which goes by the answer if there was one before this.
        logger.error(
            "the request handler failed; the job is refused unless it was already accepted",
            exc_info=error,
            extra={"room": job.room.name, "dispatch_id": job.dispatch_id},
        )
    return answers[0] if answers else None
