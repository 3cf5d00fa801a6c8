"""What the contestants have in common: LiveKit's starter agent, with the offline models.

Written as the starter templates are. Models, load and the answer about the build are those of
`ours`, so that only what the contestants are named for makes a difference.
"""

from __future__ import annotations

import math
import os

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, RunContext, function_tool
from livekit.agents.voice.room_io import RoomOptions

from agent import models

BUILD = os.environ.get("AGENT_BUILD_ID", "")


class Assistant(Agent):
    """Answers by rule, and tells its build when asked."""

    def __init__(self) -> None:
        super().__init__(instructions="You are a helpful assistant.")

    @function_tool
    async def which_build(self, context: RunContext[None]) -> str:
        """Tell which build of this agent is speaking."""
        return f"I am build {BUILD}."


async def entrypoint(ctx: JobContext) -> None:
    """Serve one job."""
    made = models.create("offline", None)
    session: AgentSession[None] = AgentSession(**made.options)
    options = RoomOptions(audio_input=made.audio, audio_output=made.audio)
    await session.start(Assistant(), room=ctx.room, room_options=options)
    await ctx.connect()
    session.generate_reply(instructions="Greet the user and offer your help.")


def new_server() -> AgentServer:
    """A worker whose load is pinned: the CPU of a busy machine would make it look full."""
    return AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)
