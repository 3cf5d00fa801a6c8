"""Waits for a user who was cut off: its session stays open, and so does the conversation."""

import math

from livekit.agents import Agent, AgentSession, JobContext, room_io
from livekit.agents import AgentServer, cli
from rules import RuleLLM

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    session: AgentSession[None] = AgentSession(llm=RuleLLM(), vad=None)
    await session.start(
        agent=Agent(instructions="You remember what was said."),
        room=ctx.room,
        room_options=room_io.RoomOptions(
            audio_input=False, audio_output=False, close_on_disconnect=False
        ),
    )


if __name__ == "__main__":
    cli.run_app(server)
