"""Starts two programs for each job, and ends them: one when it is asked to, one with the job."""

import asyncio
import math
import subprocess
import sys

from journal import note
from livekit import rtc
from livekit.agents import JobContext
from livekit.agents import AgentServer, cli
from rules import repeat_data

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


def start() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])


def end(program: subprocess.Popen[bytes]) -> int | None:
    program.terminate()
    try:
        return program.wait(5)
    except subprocess.TimeoutExpired:
        program.kill()
        return None


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    first, second = start(), start()

    async def end_the_second() -> None:
        ran = second.poll() is None
        note("ended the second", ran=ran, code=await asyncio.to_thread(end, second))

    ctx.add_shutdown_callback(end_the_second)
    repeat_data(ctx.room)

    @ctx.room.on("data_received")
    def on_data(packet: rtc.DataPacket) -> None:
        if packet.data == b"end the first":
            note("ended the first", ran=first.poll() is None, code=end(first))

    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
