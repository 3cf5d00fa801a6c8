"""Puts together what adopts waiting rooms, and what keeps the rollout."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Final

from livekit.agents import AgentServer
from livekit.agents.worker import ServerType
from livekit.protocol.agent import Job

from build_aware import livekit_private
from build_aware.adoption.adoption import Adoption
from build_aware.adoption.client import client
from build_aware.adoption.judgement import Candidate
from build_aware.adoption.keeper import Keeper
from build_aware.adoption.launch import busy, launch
from build_aware.adoption.left_jobs import LeftJobs
from build_aware.dispatch.acceptance import Acceptance
from build_aware.dispatch.following import Following
from build_aware.dispatch.rollout_document import room_of
from build_aware.dispatch.rooms import Rooms
from build_aware.identity.build import Build
from build_aware.settings import Settings, Untargeted

_UNCOMMITTED: Final = (
    "its checkout has changes that are not committed; commit them or set AGENT_BUILD_ID"
)

logger = logging.getLogger(__name__)


def adoption(
    server: AgentServer,
    settings: Settings,
    build: Build,
    *,
    server_type: ServerType,
    is_cloud: bool,
    dev: bool,
    untargeted: Untargeted,
    rooms: Rooms,
    acceptance: Acceptance,
    following: Following,
    sessions: Callable[[], Mapping[str, Job]],
    connected: Callable[[], bool],
    may_adopt: Callable[[], bool],
    is_replaced: Callable[[], bool],
) -> Adoption | None:
    """What adopts for a worker; None where waiting rooms are not adopted.

    Args:
        server: the worker's server.
        settings: what it is set to.
        build: its build.
        server_type: what its jobs are for; only rooms are adopted.
        is_cloud: whether it is registered with LiveKit Cloud.
        dev: whether it runs for development.
        untargeted: what it does with jobs that name no build.
        rooms: what it knows of the rooms.
        acceptance: its request handler.
        following: what it knows of the rollout.
        sessions: the jobs that run here now, by id.
        connected: whether it is registered.
        may_adopt: whether it can take rooms at all.
        is_replaced: whether it drains, or its files are another build's by now.
    """
    switch = settings.adoption
    wanted = switch == "on" or (switch == "auto" and not is_cloud)
    adopts = wanted and server_type is ServerType.ROOM
    has_rollout = adopts and not is_cloud and settings.rollout != "off"
    if settings.rollout in ("newest", "manual") and not has_rollout:
        logger.warning(
            "AGENT_ROLLOUT has no effect, there is no rollout here: jobs that name no build go to "
            "any worker. On a self-hosted server, unset AGENT_ADOPTION; on LiveKit Cloud, use `lk "
            "agent deploy` and `lk agent rollback`, or name a build in the metadata",
            extra={"rollout": settings.rollout, "cloud": is_cloud, "adoption": switch},
        )
    if not adopts:
        logger.info(
            "waiting rooms are not adopted",
            extra={"adoption": switch, "cloud": is_cloud, "type": server_type.name},
        )
        return None
    candidate = Candidate(
        agent_name=livekit_private.agent_name(server),
        deployment=settings.deployment or "",
        answers_to=build.answers_to,
        untargeted=untargeted,
    )
    keeper = None
    if has_rollout:
        in_simulation = livekit_private.is_in_simulation(server)
        why = _only_follows(build, untargeted=untargeted, dev=dev, in_simulation=in_simulation)
        if why is not None:
            level = logging.WARNING if why is _UNCOMMITTED else logging.INFO
            logger.log(
                level, "this worker follows the rollout and does not change it", extra={"why": why}
            )
        keeper = Keeper(
            following,
            build=build.id,
            room=room_of(candidate.agent_name, candidate.deployment),
            newest=settings.rollout != "manual",
            may_write=lambda: why is None and not is_replaced(),
        )
    credentials = livekit_private.credentials(server)
    return Adoption(
        candidate,
        rooms,
        api=functools.partial(client, credentials),
        sessions=sessions,
        accepting=acceptance.accepting.values,
        connected=connected,
        may_adopt=may_adopt,
        busy=functools.partial(busy, server),
        launch=functools.partial(launch, server, ask=acceptance.ask_team, credentials=credentials),
        left=LeftJobs(following),
        keeper=keeper,
    )


def _only_follows(
    build: Build, *, untargeted: Untargeted, dev: bool, in_simulation: bool
) -> str | None:
    """Why a worker may not change the rollout, in words; None if it may."""
    if dev:
        return "it runs for development; only workers in `start` change it"
    if in_simulation:
        return "it runs in a simulation"
    if untargeted == "reject":
        return "it refuses jobs that name no build; to take them, set AGENT_UNTARGETED=accept"
    if build.dirty and build.origin == "files":
        return _UNCOMMITTED
    return None
