"""One session, from the start of its job to its shutdown callback."""

from __future__ import annotations

import logging
import time
from typing import Final

from livekit import rtc
from livekit.agents import AgentSession, JobContext, JobProcess
from livekit.agents.voice.room_io import RoomOptions

from . import models
from .assistant import Assistant
from .build import Build
from .settings import Settings

logger = logging.getLogger(__name__)

USER_KINDS: Final = (
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR,
)
"""The kinds of participant that are users; agents, recorders and ingress are not."""


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
    build: Build = ctx.proc.userdata["build"]
    settings: Settings = ctx.proc.userdata["settings"]
    _log_the_end(ctx)

    if not ctx.is_fake_job():
        _end_with_the_last_user(ctx)
        await ctx.connect()
        await ctx.wait_for_participant(kind=list(USER_KINDS))

    made = models.create(settings.models, ctx.proc.userdata["vad"])
    session: AgentSession[None] = AgentSession(**made.options)
    options = RoomOptions(audio_input=made.audio, audio_output=made.audio)
    await session.start(Assistant(build), room=ctx.room, room_options=options)
    logger.info("session started", extra={"models": settings.models})


def _end_with_the_last_user(ctx: JobContext) -> None:
    """End the job as soon as no user is left.

    LiveKit alone would keep the agent until the room's departure timeout, and a draining
    worker with it.
    """

    @ctx.room.on("participant_disconnected")
    def on_left(_: rtc.RemoteParticipant) -> None:
        if not any(p.kind in USER_KINDS for p in ctx.room.remote_participants.values()):
            ctx.shutdown("the last user left")


def _log_the_end(ctx: JobContext) -> None:
    started = time.monotonic()

    async def on_shutdown(reason: str) -> None:
        duration_s = round(time.monotonic() - started, 3)
        logger.info("session ended", extra={"reason": reason, "duration_s": duration_s})

    ctx.add_shutdown_callback(on_shutdown)
