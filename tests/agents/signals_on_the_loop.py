"""Handles stop signals by itself, on the event loops of its worker and its jobs: they end there."""

import asyncio
import logging
import math
import signal

from livekit.agents import JobContext
from livekit.agents import AgentServer, cli
from rules import repeat_data

logger = logging.getLogger("signals")

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


def on_stop() -> None:
    logger.warning("eaten a signal")


@server.on("worker_started")
def handle_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_stop)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    handle_signals()
    repeat_data(ctx.room)
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
