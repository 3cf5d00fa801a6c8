"""What the contestants have in common: LiveKit's starter agent, with a model that needs no key.

Written as the starter templates are. Load and the answer about the build are those of `ours`, so
that only what the contestants are named for makes a difference.
"""

from __future__ import annotations

import math
import os
from typing import Any
from uuid import uuid4

from livekit.agents import Agent, AgentServer, AgentSession, JobContext
from livekit.agents.llm import LLM, ChatChunk, ChoiceDelta, LLMStream
from livekit.agents.voice.room_io import RoomOptions

BUILD = os.environ.get("AGENT_BUILD_ID", "")


class OneAnswer(LLM[Any]):
    """A model that says which build it is, whatever it is asked."""

    def chat(self, **options: Any) -> LLMStream:
        """Answer."""
        known = ("chat_ctx", "tools", "conn_options")
        said = {name: options[name] for name in known if options.get(name) is not None}
        return _Answer(self, **({"tools": []} | said))


class _Answer(LLMStream):
    async def _run(self) -> None:
        delta = ChoiceDelta(role="assistant", content=f"I am build {BUILD}.")
        self._event_ch.send_nowait(ChatChunk(id=uuid4().hex, delta=delta))


async def entrypoint(ctx: JobContext) -> None:
    """Serve one job."""
    session: AgentSession[None] = AgentSession(
        llm=OneAnswer(), vad=None, turn_handling={"turn_detection": "manual"}
    )
    options = RoomOptions(audio_input=False, audio_output=False)
    agent = Agent(instructions="You are a helpful assistant.")
    await session.start(agent, room=ctx.room, room_options=options)
    await ctx.connect()
    session.generate_reply(instructions="Greet the user and offer your help.")


def new_server() -> AgentServer:
    """A worker whose load is pinned: the CPU of a busy machine would make it look full."""
    return AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)
