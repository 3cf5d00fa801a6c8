"""Has a bug in its entrypoint: behind `connect`, or in rooms that begin with "early" before it."""

import math

from journal import note
from livekit.agents import JobContext
from livekit.agents import AgentServer, cli

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    async def close_the_books() -> None:
        note("books are closed", room=ctx.room.name)

    note("dialling", room=ctx.room.name)
    ctx.add_shutdown_callback(close_the_books)
    if not ctx.room.name.startswith("early"):
        await ctx.connect()
    raise ValueError("a bug in the entrypoint")


if __name__ == "__main__":
    cli.run_app(server)
