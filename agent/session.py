"""One session, from the start of its job to its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from typing import Final

from livekit import rtc
from livekit.agents import CloseEvent, CloseReason, JobContext, JobExecutorType, JobProcess
from livekit.agents.voice.room_io import RoomOptions
from livekit.rtc.participant import PublishDataTrackError

from agent import models
from agent.assistant import Assistant
from build_aware.identity.build import Build
from build_aware.job import claim, withdrawal
from build_aware.job import signals as job_signals
from build_aware.job.ending import BoundedSession, Ending
from build_aware.job.shared import Shared
from build_aware.settings import Settings

logger = logging.getLogger(__name__)

USER_KINDS: Final = (
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR,
)
"""The kinds of participant that are users; agents, recorders and ingress are not."""

RETURN_S: Final = 5.0
"""How long a user who was cut off may take to come back, be it from another tab."""

AFTER_OUTAGE_S: Final = 20.0
"""How long users may take to come back after the agent itself was cut off from its room."""

_ENDED_BY_THE_AGENT: Final = (CloseReason.USER_INITIATED, CloseReason.TASK_COMPLETED)

_LEFT_FOR_GOOD: Final = (
    rtc.DisconnectReason.CLIENT_INITIATED,
    rtc.DisconnectReason.PARTICIPANT_REMOVED,
    rtc.DisconnectReason.ROOM_DELETED,
    rtc.DisconnectReason.ROOM_CLOSED,
    rtc.DisconnectReason.USER_REJECTED,
    rtc.DisconnectReason.USER_UNAVAILABLE,
)
"""Reasons after which nobody comes back. A client that lost its connection may, within a second."""


def prepare(build: Build, settings: Settings, shared: Shared, process: JobProcess) -> None:
    """Make a job process ready for its job (LiveKit's `setup_fnc`).

    Args:
        build: the build of the worker. A job process must not identify itself: the files
            may have been replaced since the worker started.
        settings: the settings of the worker.
        shared: what the worker learns later.
        process: the job process.
    """
    if process.executor_type is JobExecutorType.PROCESS:
        gc.enable()
        job_signals.end_on_own_signal()
    models.import_plugins(settings.models)
    process.userdata["build"] = build
    process.userdata["settings"] = settings
    process.userdata["shared"] = shared
    process.userdata["vad"] = models.load_vad(settings.models)


async def run(ctx: JobContext) -> None:
    """Serve one job (LiveKit's entrypoint)."""
    ending = ctx.proc.userdata["ending"] = Ending(ctx, ctx.proc.userdata["shared"])
    try:
        await _serve(ctx, ending)
    except Exception:
        ending.must_come("the entrypoint raised")
        raise


async def end(ctx: JobContext) -> None:
    """Do what has to be done before the agent leaves the room (LiveKit's `on_session_end`)."""
    # There is none where the job is ended before its entrypoint has begun.
    ending: Ending | None = ctx.proc.userdata.get("ending")
    if ending is not None and ending.on_purpose and _is_adoptable(ctx):
        await withdrawal.withdraw(ctx)


def _is_adoptable(ctx: JobContext) -> bool:
    shared: Shared = ctx.proc.userdata["shared"]
    # Only `console` and `connect` run jobs that nobody dispatched.
    return shared.adopts and bool(ctx.job.dispatch_id)


async def _serve(ctx: JobContext, ending: Ending) -> None:
    build: Build = ctx.proc.userdata["build"]
    settings: Settings = ctx.proc.userdata["settings"]
    _log_the_end(ending)

    made = models.create(settings.models, ctx.proc.userdata["vad"])
    session = BoundedSession(**made.options)

    @session.on("close")
    def on_close(event: CloseEvent) -> None:
        on_purpose = event.reason in _ENDED_BY_THE_AGENT and not session.closed_from_outside
        ending.now(f"the session closed: {event.reason.value}", on_purpose=on_purpose)

    # The rules below decide when the job ends, not LiveKit's for the first user.
    text = claim.TextInput()
    options = RoomOptions(
        text_input=text,
        audio_input=made.audio,
        audio_output=made.audio,
        close_on_disconnect=False,
    )
    if not ctx.is_fake_job():
        _end_with_the_last_user(ctx, ending)
    assistant = Assistant(build)
    room_claim = claim.Claim(ctx)
    # Starting the session connects to the room: nothing that a user writes comes too early.
    await session.start(assistant, room=ctx.room, room_options=options)
    if _is_adoptable(ctx):
        if room_claim.fails():
            ending.now("another agent was here first")
            return
        room_claim.on_lost(lambda: ending.now("another agent has taken over"))
    text.open()
    if not made.audio and not ctx.is_fake_job():
        await _be_counted(ctx.room)
    logger.info("session started", extra={"models": settings.models})
    if ctx.is_fake_job():
        assistant.greet()
    else:
        _follow_users(ctx, session)
        _greet_the_first_user(ctx, ending, assistant, settings.join_timeout_s)


async def _be_counted(room: rtc.Room) -> None:
    """Publish something, where no voice is: a server's list of rooms counts who publishes.

    LiveKit publishes a voice again after an outage, but no data track.
    """
    publishing: set[asyncio.Task[None]] = set()

    async def publish() -> None:
        try:
            await room.local_participant.publish_data_track(name="presence")
        except PublishDataTrackError as error:
            logger.debug("the server takes no data tracks", extra={"error": str(error)})

    @room.on("reconnected")
    def on_reconnected() -> None:
        task = asyncio.ensure_future(publish())
        publishing.add(task)
        task.add_done_callback(publishing.discard)

    await publish()


def _greet_the_first_user(
    ctx: JobContext, ending: Ending, assistant: Assistant, timeout_s: float
) -> None:
    """Greet once somebody is there, and end the job if nobody comes in time."""
    loop = asyncio.get_running_loop()
    came = False

    def greet() -> None:
        nonlocal came
        if not came:
            came = True
            assistant.greet()

    def give_up() -> None:
        if came:
            return
        if _is_connected(ctx.room):
            ending.now("nobody joined in time")
        else:
            loop.call_later(timeout_s, give_up)

    @ctx.room.on("participant_connected")
    def on_joined(user: rtc.RemoteParticipant) -> None:
        if user.kind in USER_KINDS:
            greet()

    if _users(ctx.room):
        greet()
    else:
        loop.call_later(timeout_s, give_up)


def _users(room: rtc.Room) -> list[rtc.RemoteParticipant]:
    return [p for p in room.remote_participants.values() if p.kind in USER_KINDS]


def _end_with_the_last_user(ctx: JobContext, ending: Ending) -> None:
    """End the job as soon as no user is left.

    LiveKit alone would keep the agent until the room's departure timeout, and a draining
    worker with it. While the agent is cut off from its room it knows nothing about its users, and
    LiveKit shows them as gone.
    """
    loop = asyncio.get_running_loop()
    room = ctx.room
    known_from_s = -math.inf

    def end_if_empty() -> None:
        if _is_connected(room) and loop.time() >= known_from_s and not _users(room):
            ending.now("the last user left")

    @room.on("participant_disconnected")
    def on_left(user: rtc.RemoteParticipant) -> None:
        if user.kind not in USER_KINDS or not _is_connected(room):
            return
        if user.disconnect_reason in _LEFT_FOR_GOOD:
            end_if_empty()
        else:
            loop.call_later(RETURN_S, end_if_empty)

    @room.on("reconnected")
    def on_reconnected() -> None:
        nonlocal known_from_s
        known_from_s = loop.time() + AFTER_OUTAGE_S
        loop.call_at(known_from_s, end_if_empty)


def _is_connected(room: rtc.Room) -> bool:
    return room.connection_state == rtc.ConnectionState.CONN_CONNECTED


def _follow_users(ctx: JobContext, session: BoundedSession) -> None:
    """Turn to another user when the one that the agent listens to leaves."""

    @ctx.room.on("participant_disconnected")
    def on_left(user: rtc.RemoteParticipant) -> None:
        others = _users(ctx.room)
        if user.kind in USER_KINDS and others and session.room_io.linked_participant is None:
            session.room_io.set_participant(others[0].identity)


def _log_the_end(ending: Ending) -> None:
    started = time.monotonic()

    async def on_shutdown(reason: str) -> None:
        duration_s = round(time.monotonic() - started, 3)
        logger.info("session ended", extra={"reason": reason, "duration_s": duration_s})

    ending.add_callback(on_shutdown)
