"""No `AgentSession`: it sends back the data that it gets."""

import math

from livekit.agents import JobContext
from livekit.agents import AgentServer, cli
from rules import repeat_data

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    repeat_data(ctx.room)
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
