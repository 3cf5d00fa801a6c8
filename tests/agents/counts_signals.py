"""Notes each SIGTERM that reaches its worker, its job, or a program that the job has started."""

import math
import signal
import subprocess
import sys
from types import FrameType

from journal import note
from livekit.agents import JobContext
from livekit.agents import AgentServer, cli
from rules import repeat_data


def on_stop(number: int, frame: FrameType | None) -> None:
    note("SIGTERM", who="worker")


server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)


@server.on("worker_registered")
def on_registered(*_: str) -> None:
    # Before that, the worker's own handler would take its place.
    signal.signal(signal.SIGTERM, on_stop)


PROGRAM = """
import signal
from journal import note
signal.signal(signal.SIGTERM, lambda *_: note("SIGTERM", who="program"))
note("started", who="program")
while True:
    signal.pause()
"""


def start() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM])


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    former = signal.getsignal(signal.SIGTERM)

    def on_stop_of_job(number: int, frame: FrameType | None) -> None:
        note("SIGTERM", who="job")
        if callable(former):
            former(number, frame)

    signal.signal(signal.SIGTERM, on_stop_of_job)
    program = start()

    async def end_the_program() -> None:
        program.kill()
        note("ended", who="job", code=program.wait())

    ctx.add_shutdown_callback(end_the_program)
    repeat_data(ctx.room)
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
