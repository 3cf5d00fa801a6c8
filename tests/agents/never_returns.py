"""An entrypoint that never returns: it shows how many users there are, second by second."""

import asyncio
import math

from livekit.agents import JobContext
from livekit.agents import AgentServer, cli

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()
    while True:
        users = len(ctx.room.remote_participants)
        await ctx.room.local_participant.set_attributes({"users": str(users)})
        await asyncio.sleep(1)


if __name__ == "__main__":
    cli.run_app(server)
