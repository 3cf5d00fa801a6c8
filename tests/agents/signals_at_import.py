"""Handles stop signals by itself, from the import of its module on: they end there."""

import logging
import math
import signal
from types import FrameType

from livekit.agents import JobContext
from livekit.agents import AgentServer, cli
from rules import repeat_data

logger = logging.getLogger("signals")


def on_stop(number: int, frame: FrameType | None) -> None:
    logger.warning("eaten a signal", extra={"signal": number})


signal.signal(signal.SIGTERM, on_stop)
signal.signal(signal.SIGINT, on_stop)

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    repeat_data(ctx.room)
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
