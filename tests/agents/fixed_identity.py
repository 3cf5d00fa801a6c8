"""Accepts every job under one identity, with a name and attributes of its own."""

import math

from journal import note
from livekit.agents import JobContext, JobRequest
from livekit.agents import AgentServer, cli
from rules import repeat_data

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


async def on_request(req: JobRequest) -> None:
    await req.accept(
        name="Support",
        identity="agent",
        metadata="team support",
        attributes={"team": "support", "build.id": "forged", "build.job": "forged"},
    )


@server.rtc_session(on_request=on_request)
async def entrypoint(ctx: JobContext) -> None:
    note("job", room=ctx.room.name)
    await ctx.connect()
    repeat_data(ctx.room)


if __name__ == "__main__":
    cli.run_app(server)
