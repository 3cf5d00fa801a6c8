"""Starts a job in this worker that no dispatcher offered.

LiveKit's own way, `AgentServer.simulate_job`, starts one job after the other, and drops what a
session may need: the metadata and attributes of its dispatch, and the agent's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from livekit.agents import AgentServer
from livekit.agents.job import JobAcceptArguments, RunningJobInfo
from livekit.agents.utils import shortuuid
from livekit.agents.worker import ServerEnvOption
from livekit.api import AccessToken, VideoGrants
from livekit.protocol.agent import Job, JobType
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import Room

from build_aware.adoption.judgement import AGENT_NAME

JOB_PREFIX: Final = "AJ_"


@dataclass(frozen=True, slots=True)
class Busy:
    """What LiveKit measures of a worker that it counts as full."""

    load: float
    threshold: float


def busy(server: AgentServer) -> Busy | None:
    """LiveKit's measure of `server` if it is full by that; None if it would take another job.

    A server that drains takes none, whatever it measures. Uses the private
    `AgentServer._is_available`, `_get_effective_load`, `_load_threshold` and `_devmode`; tests fail
    when they move.
    """
    if server.draining or server._is_available():
        return None
    threshold = ServerEnvOption.getvalue(server._load_threshold, server._devmode)
    return Busy(server._get_effective_load(), threshold)


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


async def launch(
    server: AgentServer, job: Job, credentials: tuple[str, str, str], attributes: dict[str, str]
) -> None:
    """Run a job in a process of `server`, as if it had been offered and accepted.

    Uses the private `AgentServer._proc_pool`; tests fail when that moves.

    Args:
        server: a server that is started.
        job: the job; its id is that of no other.
        credentials: URL, API key and API secret of the LiveKit server.
        attributes: participant attributes of the agent.

    Raises:
        RuntimeError: no job process could be started.
    """
    url, api_key, api_secret = credentials
    identity = f"agent-{job.id}"
    attributes = attributes | {AGENT_NAME: job.agent_name}
    grants = VideoGrants(
        room_join=True, room=job.room.name, agent=True, can_update_own_metadata=True
    )
    token = (
        AccessToken(api_key, api_secret)
        .with_identity(identity)
        .with_kind("agent")
        .with_attributes(attributes)
        .with_grants(grants)
        .to_jwt()
    )
    running = RunningJobInfo(
        accept_arguments=JobAcceptArguments(
            identity=identity, name="", metadata="", attributes=attributes
        ),
        job=job,
        url=url,
        token=token,
        worker_id=server.id,
        fake_job=False,
    )
    await server._proc_pool.launch_job(running)
