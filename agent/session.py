"""One conversation, from the start of its job to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from datetime import timedelta
from typing import Final

from livekit import rtc
from livekit.agents import (
    AgentSession,
    CloseEvent,
    CloseReason,
    JobContext,
    JobProcess,
)
from livekit.agents.voice.room_io import RoomOptions

from build_aware import AgentServer, Options
from agent import models
from agent.assistant import Assistant

logger = logging.getLogger(__name__)

JOIN_TIMEOUT: Final = timedelta(seconds=60)
"""How long a session waits for its user, unless AGENT_JOIN_TIMEOUT says otherwise."""

STATUS_PORT: Final = 8082
"""Where `start` serves its status, unless AGENT_STATUS_PORT says otherwise."""

USER_KINDS: Final = (
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR,
)
"""The kinds of participant that are users; agents, recorders and ingress are not."""

_in_production = sys.argv[1:2] == ["start"] and "--dev" not in sys.argv

server = AgentServer(
    aware=Options(
        # The conversation is over when its last user has left: nobody comes back to it.
        end_with_last_user="always",
        join_timeout=None if os.environ.get("AGENT_JOIN_TIMEOUT") else JOIN_TIMEOUT,
        status_port=STATUS_PORT
        if _in_production and not os.environ.get("AGENT_STATUS_PORT")
        else None,
        # Text alone is nothing that a server counts.
        presence=models.chosen() == "offline",
        check=models.problems,
    ),
    preload_modules=models.preload(),
)


def prewarm(process: JobProcess) -> None:
    """Load what a session needs before its user is there."""
    models.import_plugins()
    process.userdata["vad"] = models.load_vad()


server.setup_fnc = prewarm


@server.rtc_session()
async def converse(ctx: JobContext) -> None:
    """Have one conversation."""
    made = models.create(ctx.proc.userdata["vad"])
    session = AgentSession[None](**made.options)

    end_with_the_session(ctx, session)
    assistant = Assistant()
    await session.start(
        assistant,
        room=ctx.room,
        room_options=RoomOptions(
            text_input=True,
            audio_input=made.audio,
            audio_output=made.audio,
            # Another user may still be there.
            close_on_disconnect=False,
        ),
    )
    logger.info("session started", extra={"models": models.chosen()})
    if not ctx.is_fake_job():
        turn_to_others(ctx.room, session)
        try:
            await ctx.wait_for_participant(kind=list(USER_KINDS))
        except RuntimeError:
            return  # The room has closed before anybody came.
    assistant.greet()


def end_with_the_session(ctx: JobContext, session: AgentSession[None]) -> None:
    """End the job when its session has closed."""

    @session.on("close")
    def on_close(event: CloseEvent) -> None:
        if event.reason is CloseReason.ERROR:
            # To leave is not to hang up: another agent takes over.
            ctx.proc.userdata["leaving"] = asyncio.create_task(ctx.room.disconnect())
        elif event.reason in (CloseReason.USER_INITIATED, CloseReason.TASK_COMPLETED):
            ctx.shutdown(f"the session closed: {event.reason.value}")


def turn_to_others(room: rtc.Room, session: AgentSession[None]) -> None:
    """Turn to another user when the one that the agent listens to leaves."""

    @room.on("participant_disconnected")
    def on_left(user: rtc.RemoteParticipant) -> None:
        others = [other for other in room.remote_participants.values() if other.kind in USER_KINDS]
        if user.kind in USER_KINDS and others and session.room_io.linked_participant is None:
            session.room_io.set_participant(others[0].identity)
