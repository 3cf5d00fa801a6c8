"""Ends its session but keeps its job: it stays in the room, as in a transfer to a colleague."""

import math

from livekit.agents import Agent, AgentSession, JobContext, room_io
from livekit.agents import AgentServer, cli
from rules import RuleLLM, repeat_data

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    session: AgentSession[None] = AgentSession(llm=RuleLLM(), vad=None)
    await session.start(
        agent=Agent(instructions="You hand over."),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )
    await session.aclose()
    repeat_data(ctx.room)


if __name__ == "__main__":
    cli.run_app(server)
