"""Workers of several builds on one server, and what the server says of them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from livekit.api import ListRoomsRequest

from bench.paths import ROOT
from build_aware.adoption.keeper import STABLE_S
from build_aware.dispatch import rollout_document
from build_aware.testbed import Process, Testbed
from build_aware.testbed.livekit_server import AGENT_NAME, LiveKitServer
from build_aware.testbed.waiting import until

ROOM = rollout_document.room_of(AGENT_NAME, "")


@contextlib.asynccontextmanager
async def a_bed() -> AsyncIterator[Testbed]:
    """A test bed with a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        async with Testbed(Path(folder)) as bed:
            yield bed


async def a_worker(bed: Testbed, server: LiveKitServer, build: str) -> Process:
    """A worker of a build."""
    return await bed.worker(
        server,
        command=("agent.py", "start"),
        folder=ROOT,
        name=build,
        AGENT_BUILD_ID=build,
        LIVEKIT_AGENT_NAME=AGENT_NAME,
    )


async def becomes_current(
    server: LiveKitServer, build: str, *, deadline_s: float = 6 * STABLE_S
) -> None:
    """Wait until the server's document says so."""
    async with server.api() as api:

        async def is_current() -> bool:
            rooms = (await api.room.list_rooms(ListRoomsRequest(names=[ROOM]))).rooms
            # The room is made first, and written into then.
            text = rooms[0].metadata if rooms else ""
            return bool(text) and rollout_document.read(text).is_current(build)

        await until(is_current, f"{build} to be current", deadline_s)


async def old_and_new(bed: Testbed, server: LiveKitServer) -> tuple[list[Process], Process]:
    """Two workers of an old build, and one of a new one that is current."""
    old = [await a_worker(bed, server, "old") for _ in range(2)]
    await becomes_current(server, "old")
    new = await a_worker(bed, server, "new")
    await becomes_current(server, "new")
    return old, new


async def run(server: LiveKitServer, *arguments: str) -> None:
    """Run one of the agent's commands.

    Raises:
        RuntimeError: it has failed.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "agent.py", *arguments, "--agent-name", AGENT_NAME),
        cwd=ROOT,
        env={"PATH": "", "PYTHON_DOTENV_DISABLED": "1"} | server.credentials,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {said.decode()}")
