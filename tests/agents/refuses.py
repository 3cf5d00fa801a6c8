"""Answers requests by itself: some rooms get nobody, all others an agent under its own name."""

import math

from livekit.agents import JobContext, JobRequest
from livekit.agents import AgentServer, cli
from rules import repeat_data

CLOSED = "closed-"

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


async def on_request(req: JobRequest) -> None:
    if req.room.name.startswith(CLOSED):
        await req.reject()
    else:
        await req.accept(name="Front desk", identity=f"desk-of-{req.room.name}")


@server.rtc_session(on_request=on_request)
async def entrypoint(ctx: JobContext) -> None:
    repeat_data(ctx.room)
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
