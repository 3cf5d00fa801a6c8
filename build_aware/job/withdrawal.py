"""A session that ends on purpose takes back what asked for it: no worker shall adopt it again."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from livekit.agents import JobContext
from livekit.protocol.agent_dispatch import AgentDispatch

from build_aware.adoption.api_errors import is_not_found
from build_aware.adoption.notes import note
from build_aware.dispatch.agents import of_job, role_of
from build_aware.dispatch.target import Asked, asked_by

logger = logging.getLogger(__name__)

WITHDRAWAL_S: Final = 5.0
"""What withdrawing gets: the user is still in the room, and hears nothing."""

_ATTEMPTS: Final = 3


async def withdraw(ctx: JobContext) -> None:
    """Take back what asked for this agent, so that no worker adopts the room for it.

    Deletes the dispatch that the agent serves, with those for the same role, as an older one that
    asked for another build. A later one for another build stays: that hands the session over.
    Dispatches for other roles stay: their agents go on. Where the job's own dispatch is not listed,
    the server was restarted and workers may remember it: then a note is left too. A failure is
    logged, not raised: it costs the user nothing but an agent that comes back.
    """
    job = ctx.job
    try:
        async with asyncio.timeout(WITHDRAWAL_S):
            await _delete_dispatches(ctx)
    except Exception as error:
        if is_not_found(error):
            return  # The room has closed: nobody can adopt it.
        logger.warning(
            "the dispatch of a session that ended on purpose could not be deleted, "
            "so an agent may come back; check the LiveKit server",
            extra={"room": job.room.name, "error": str(error) or type(error).__name__},
        )


async def _delete_dispatches(ctx: JobContext) -> None:
    service = ctx.api.agent_dispatch
    room = ctx.job.room.name
    own = of_job(ctx.job)
    role = role_of(own)
    served: AgentDispatch | None = None
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            listed = list(await service.list_dispatch(room))
            # It may have been deleted by an attempt that failed later on.
            served = next((each for each in listed if each.id == own.id), served)
            for dispatch in listed:
                if role_of(dispatch) == role and not _hands_over(served, dispatch):
                    await service.delete_dispatch(dispatch.id, room)
            if served is None:
                await service.create_dispatch(note(room, own))
            return
        except Exception:
            if attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(0.2 * attempt)


def _hands_over(served: AgentDispatch | None, other: AgentDispatch) -> bool:
    """Whether a dispatch of the role that is served came later, and asks for another build."""
    return (
        served is not None
        and other.state.created_at > served.state.created_at
        and _target(other) != _target(served)
    )


def _target(dispatch: AgentDispatch) -> Asked:
    return asked_by(dispatch_metadata=dispatch.metadata, room_metadata="")
