"""One agent for each language that is asked for: a room may have several."""

import math

from livekit.agents import JobContext
from livekit.agents import AgentServer, cli
from rules import repeat_data

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


@server.rtc_session(agent_name="translator")
async def entrypoint(ctx: JobContext) -> None:
    repeat_data(ctx.room, f"{ctx.job.metadata or 'en'}: ")
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
