"""Has work to do at the end: two seconds before it leaves the room, and two seconds after that."""

import asyncio
import math

from journal import note
from livekit.agents import Agent, AgentSession, JobContext, room_io
from livekit.agents import AgentServer, cli
from rules import RuleLLM

WORK_S = 2.0

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


async def on_session_end(ctx: JobContext) -> None:
    note("report begins")
    await asyncio.sleep(WORK_S)
    note("report is sent", items=len(ctx.make_session_report().chat_history.items))


@server.rtc_session(on_session_end=on_session_end)
async def entrypoint(ctx: JobContext) -> None:
    async def close_the_books(reason: str) -> None:
        note("closing the books", reason=reason)
        await asyncio.sleep(WORK_S)
        note("books are closed")

    async def say_goodbye() -> None:
        note("goodbye")

    ctx.add_shutdown_callback(close_the_books)
    ctx.add_shutdown_callback(say_goodbye)
    session: AgentSession[None] = AgentSession(llm=RuleLLM(), vad=None)
    await session.start(
        agent=Agent(instructions="You keep books."),
        room=ctx.room,
        room_options=room_io.RoomOptions(audio_input=False, audio_output=False),
    )


if __name__ == "__main__":
    cli.run_app(server)
