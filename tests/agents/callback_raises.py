"""Has bugs in its callbacks: when data comes, and at the end."""

import asyncio
import math

from journal import note
from livekit import rtc
from livekit.agents import JobContext
from livekit.agents import AgentServer, cli
from rules import repeat_data

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    async def save() -> None:
        raise ConnectionError("the database is down")

    async def close_the_books() -> None:
        await asyncio.sleep(1)
        note("books are closed")

    ctx.add_shutdown_callback(save)
    ctx.add_shutdown_callback(close_the_books)
    repeat_data(ctx.room)

    @ctx.room.on("data_received")
    def on_data(packet: rtc.DataPacket) -> None:
        raise ValueError("a bug in the callback")

    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
