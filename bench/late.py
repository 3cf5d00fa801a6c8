"""How long users wait who come around a drain: `uv run python -m bench.late [--drains N]`.

On a real livekit-server, with one worker and rooms that only its build may serve. In each drain one
call goes on, three users join within the second around the stop signal, one reloads the page, one
loses the job, and one comes late to a room that the worker had seen. Then an idle worker is stopped
beside two rooms that wait already.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.room import RoomConfiguration

from bench.paths import ROOT
from build_aware.testbed import Process, Testbed, User
from build_aware.testbed.ending import run_and_exit
from build_aware.testbed.livekit_server import AGENT_NAME, LiveKitServer

BUILD: Final = "build-A"
WAITING_ROOMS: Final = 2
LIMIT_S: Final = 6.0
"""What a drain promises to those whom only its build may serve."""
AROUND: Final = {"joins before": 0.2, "joins with it": 0.5, "joins after": 0.8}
"""When users join, in seconds; the stop signal comes after half a second."""

ASKS: Final = RoomConfiguration(
    metadata=json.dumps({"agent_build": BUILD}), agents=[RoomAgentDispatch(agent_name=AGENT_NAME)]
)
"""What the token of such a user asks for: their room is made when they join."""

Waits = dict[str, list[float]]


class Drain:
    """One worker, and the users around its drain.

    Args:
        bed: where all is started.
        waits: takes the seconds until an agent was there, for each kind of user.
    """

    def __init__(self, bed: Testbed, waits: Waits) -> None:
        self._bed = bed
        self._waits = waits

    async def with_a_call(self) -> int:
        """Users come around the signal; returns the worker's exit code."""
        server, worker = await self._begin()
        await self._rooms(server, "call", "reloads", "loses its job", "comes late")
        call, reloads, crashes = [
            await self._called(server, room) for room in ("call", "reloads", "loses its job")
        ]
        (crashing,) = await worker.logged("session started", room="loses its job")
        stopping = asyncio.create_task(self._stop(worker, 0.5))
        around = await asyncio.gather(
            *(self._comes(server, room, after_s, ASKS) for room, after_s in AROUND.items())
        )
        await stopping
        await worker.logged("draining worker")
        gone = crashes.agents[0].identity
        os.kill(crashing["pid"], signal.SIGKILL)
        again = await asyncio.gather(
            self._answered(crashes, "loses its job", besides=gone),
            self._reloads(server, reloads),
            self._comes(server, "comes late", 0),
        )
        users = (call, *around, *again)
        await asyncio.gather(*(user.leave() for user in users))
        return await worker.exit()

    async def idle(self) -> int:
        """Users wait already when an idle worker gets its signal; returns its exit code."""
        server = await self._bed.livekit()
        rooms = [f"waits already {number}" for number in range(WAITING_ROOMS)]
        await self._rooms(server, *rooms)
        users = [await self._bed.user(server, room, identity=room) for room in rooms]
        worker = await self._worker(server)
        worker.send()
        await asyncio.gather(*(self._answered(user, "waits already") for user in users))
        await asyncio.gather(*(user.leave() for user in users))
        return await worker.exit()

    async def _begin(self) -> tuple[LiveKitServer, Process]:
        server = await self._bed.livekit()
        return server, await self._worker(server)

    async def _worker(self, server: LiveKitServer) -> Process:
        return await self._bed.worker(
            server,
            command=("agent.py", "start"),
            folder=ROOT,
            AGENT_BUILD_ID=BUILD,
            LIVEKIT_AGENT_NAME=AGENT_NAME,
        )

    async def _rooms(self, server: LiveKitServer, *rooms: str) -> None:
        for room in rooms:
            await server.create_room(room, BUILD)

    async def _called(self, server: LiveKitServer, room: str) -> User:
        user = await self._bed.user(server, room, identity=room)
        await user.agent(build=BUILD)
        await user.insist("hello", "hello")
        return user

    async def _stop(self, worker: Process, after_s: float) -> None:
        await asyncio.sleep(after_s)
        worker.send()

    async def _comes(
        self,
        server: LiveKitServer,
        room: str,
        after_s: float,
        config: RoomConfiguration | None = None,
    ) -> User:
        await asyncio.sleep(after_s)
        user = await self._bed.user(server, room, identity=room, config=config)
        return await self._answered(user, room)

    async def _reloads(self, server: LiveKitServer, user: User) -> User:
        await user.leave()
        return await self._comes(server, "reloads", 0)

    async def _answered(self, user: User, kind: str, *, besides: str = "") -> User:
        began = time.perf_counter()
        await user.agent(build=BUILD, besides=besides)
        self._waits[kind].append(time.perf_counter() - began)
        await user.insist("Which build?", BUILD)
        return user


async def _run(drains: int) -> None:
    waits: Waits = defaultdict(list)
    codes = []
    for number in range(drains):
        print(f"drain {number + 1} of {drains}", flush=True)
        for case in (Drain.with_a_call, Drain.idle):
            with tempfile.TemporaryDirectory() as folder:
                async with Testbed(Path(folder)) as bed:
                    codes.append(await case(Drain(bed, waits)))
    print(f"{'':18}{'users':>6}{'p50':>7}{'max':>7}  seconds until an agent of the build is there")
    for kind, seconds in waits.items():
        print(f"{kind:18}{len(seconds):6}{statistics.median(seconds):7.2f}{max(seconds):7.2f}")
    everybody = [each for seconds in waits.values() for each in seconds]
    in_time = sum(each < LIMIT_S for each in everybody)
    print(f"{in_time} of {len(everybody)} in less than {LIMIT_S:g} s; exit codes {set(codes)}")


def main() -> None:
    """Measure, and print what users waited."""
    parser = argparse.ArgumentParser(prog="bench.late", description=__doc__)
    parser.add_argument("--drains", type=int, default=10, help="how many drains of each kind")
    asyncio.run(_run(max(parser.parse_args().drains, 1)))


if __name__ == "__main__":
    run_and_exit(main)
