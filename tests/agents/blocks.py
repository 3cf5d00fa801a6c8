"""Blocks its process at the end, as an exporter does that cannot reach its server."""

import math
import time

from journal import note
from livekit.agents import JobContext
from livekit.agents import AgentServer, cli
from rules import repeat_data

LIMIT_S = 3.0

server = AgentServer(
    shutdown_process_timeout=LIMIT_S, port=0, load_fnc=lambda: 0.0, load_threshold=math.inf
)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    async def flush() -> None:
        note("blocking", limit_s=LIMIT_S)
        time.sleep(60)  # noqa: ASYNC251

    ctx.add_shutdown_callback(flush)
    repeat_data(ctx.room)
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
