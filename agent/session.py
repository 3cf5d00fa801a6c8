"""One session, from the start of its job to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from livekit import rtc
from livekit.agents import CloseEvent, JobContext, JobProcess
from livekit.agents.voice.room_io import RoomOptions

from . import models
from .assistant import Assistant
from .build import Build
from .ending import BoundedSession, Ending
from .settings import Settings

logger = logging.getLogger(__name__)

USER_KINDS: Final = (
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR,
)
"""The kinds of participant that are users; agents, recorders and ingress are not."""

RETURN_S: Final = 5.0
"""How long a user who was cut off may take to come back, as after joining from another tab."""

_COMES_BACK: Final = (
    rtc.DisconnectReason.DUPLICATE_IDENTITY,
    rtc.DisconnectReason.MIGRATION,
    rtc.DisconnectReason.STATE_MISMATCH,
)


def prepare(build: Build, settings: Settings, process: JobProcess) -> None:
    """Make a job process ready for its job (LiveKit's `setup_fnc`).

    Args:
        build: the build of the worker. A job process must not identify itself: the files
            may have been replaced since the worker started.
        settings: the settings of the worker.
        process: the job process.
    """
    models.import_plugins(settings.models)
    process.userdata["build"] = build
    process.userdata["settings"] = settings
    process.userdata["vad"] = models.load_vad(settings.models)


async def run(ctx: JobContext) -> None:
    """Serve one job (LiveKit's entrypoint)."""
    ending = Ending(ctx)
    try:
        await _serve(ctx, ending)
    except Exception:
        ending.must_come("the entrypoint raised")
        raise


async def _serve(ctx: JobContext, ending: Ending) -> None:
    build: Build = ctx.proc.userdata["build"]
    settings: Settings = ctx.proc.userdata["settings"]
    _log_the_end(ending)

    if not ctx.is_fake_job() and not await _user_joins(ctx, ending, settings.join_timeout_s):
        return

    made = models.create(settings.models, ctx.proc.userdata["vad"])
    session = BoundedSession(**made.options)

    @session.on("close")
    def on_close(event: CloseEvent) -> None:
        ending.now(f"the session closed: {event.reason.value}")

    # The rules of `_end_with_the_last_user` decide, not LiveKit's for the first user.
    options = RoomOptions(
        audio_input=made.audio, audio_output=made.audio, close_on_disconnect=False
    )
    await session.start(Assistant(build), room=ctx.room, room_options=options)
    if not ctx.is_fake_job():
        _follow_users(ctx, session)
    logger.info("session started", extra={"models": settings.models})


async def _user_joins(ctx: JobContext, ending: Ending, timeout_s: float) -> bool:
    _end_with_the_last_user(ctx, ending)
    await ctx.connect()
    try:
        await asyncio.wait_for(ctx.wait_for_participant(kind=list(USER_KINDS)), timeout_s)
    except TimeoutError:
        ending.now("nobody joined in time")
        return False
    except RuntimeError:
        # LiveKit's word for a room that is gone while one waits in it.
        if ctx.room.isconnected():
            raise
        return False
    return True


def _users(room: rtc.Room) -> list[rtc.RemoteParticipant]:
    return [p for p in room.remote_participants.values() if p.kind in USER_KINDS]


def _end_with_the_last_user(ctx: JobContext, ending: Ending) -> None:
    """End the job as soon as no user is left.

    LiveKit alone would keep the agent until the room's departure timeout, and a draining
    worker with it.
    """
    loop = asyncio.get_running_loop()

    def end_if_empty() -> None:
        if not _users(ctx.room):
            ending.now("the last user left")

    @ctx.room.on("participant_disconnected")
    def on_left(user: rtc.RemoteParticipant) -> None:
        if user.kind not in USER_KINDS:
            return
        if user.disconnect_reason in _COMES_BACK:
            loop.call_later(RETURN_S, end_if_empty)
        else:
            end_if_empty()


def _follow_users(ctx: JobContext, session: BoundedSession) -> None:
    """Turn to another user when the one that the agent listens to leaves."""

    @ctx.room.on("participant_disconnected")
    def on_left(user: rtc.RemoteParticipant) -> None:
        others = _users(ctx.room)
        if others and session.room_io.linked_participant is None:
            session.room_io.set_participant(others[0].identity)


def _log_the_end(ending: Ending) -> None:
    started = time.monotonic()

    async def on_shutdown(reason: str) -> None:
        duration_s = round(time.monotonic() - started, 3)
        logger.info("session ended", extra={"reason": reason, "duration_s": duration_s})

    ending.add_callback(on_shutdown)
