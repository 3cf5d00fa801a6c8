"""Sets variables and loads them from files, wherever others do."""

import asyncio
import json
import math
import os
import sys

from dotenv import load_dotenv
from livekit.agents import JobContext
from livekit.agents import AgentServer, cli
from livekit.plugins import foreign  # type: ignore[attr-defined]

os.environ["SET_BY_THE_MODULE"] = "module"
os.environ["SET_TWICE"] = "module"
load_dotenv(".env.module")

server = AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)

NAMES = (
    "SET_OUTSIDE",
    "SET_BY_THE_MODULE",
    "SET_TWICE",
    "LOADED_BY_THE_MODULE",
    "SET_BY_MAIN",
    "LOADED_BY_MAIN",
    "LIVEKIT_URL",
)
PRINT = "import json, os; print(json.dumps(dict(os.environ)))"


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    import late  # noqa: PLC0415

    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PRINT, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await child.communicate()
    seen = {
        "entrypoint": os.environ,
        "late import": late.SEEN,
        "plugin": foreign.seen(),
        "import of the plugin": foreign.SEEN_AT_IMPORT,
        "child": json.loads(printed),
    }
    attributes = {
        where: json.dumps({name: found.get(name) for name in NAMES})
        for where, found in seen.items()
    }
    await ctx.connect()
    await ctx.room.local_participant.set_attributes(attributes)


if __name__ == "__main__":
    os.environ["SET_BY_MAIN"] = "main"
    load_dotenv(".env.main")
    cli.run_app(server)
