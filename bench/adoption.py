"""What a sweep for waiting rooms costs: `uv run python -m bench.adoption [--rooms N]`. Linux only.

First on a real livekit-server: one list of all rooms, by time and bytes, and what this worker
does with it. Then beside a worker that does not adopt: answers to jobs that are offered in the
very moment in which the list of rooms arrives.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch

from bench.processes import OURS, WorkerProcess
from bench.worker import UNTARGETED, Role
from build_aware.adoption.sweep import MAX_SHARE, SWEEP_S
from build_aware.adoption.watchlist import Watchlist
from build_aware.dispatch.rooms import Rooms
from build_aware.testbed import Testbed
from build_aware.testbed.fake_livekit import FakeLiveKit
from build_aware.testbed.livekit_server import LiveKitServer

LISTS: Final = 20
SWEEPS: Final = 12
OFFERS_AT_ONCE: Final = 5
CREATED_AT_ONCE: Final = 8

ADOPTS: Final = dataclasses.replace(OURS, name="adopts", env={**OURS.env, "AGENT_ADOPTION": "on"})
ADOPTS_NOT: Final = dataclasses.replace(
    OURS, name="does not", env={**OURS.env, "AGENT_ADOPTION": "off"}
)


async def measure_lists(count: int) -> list[api.Room]:
    """List many rooms on a real server, print what it costs, and return them."""
    with tempfile.TemporaryDirectory() as folder:
        async with Testbed(Path(folder)) as bed:
            server = await bed.livekit(logging={"level": "warn"})
            await _create_rooms(server, count)
            return await _list_rooms(server)


async def _create_rooms(server: LiveKitServer, count: int) -> None:
    limit = asyncio.Semaphore(CREATED_AT_ONCE)
    # Asked for by nobody's name: an unnamed room would be offered to workers.
    asks = [RoomAgentDispatch(agent_name="nobody")]

    async def create(client: api.LiveKitAPI, number: int) -> None:
        async with limit:
            await client.room.create_room(
                api.CreateRoomRequest(
                    name=f"call-{number:06}", metadata=UNTARGETED, agents=asks, empty_timeout=600
                )
            )

    async with server.api() as client:
        await asyncio.gather(*(create(client, number) for number in range(count)))


async def _list_rooms(server: LiveKitServer) -> list[api.Room]:
    called: list[float] = []
    taken_in: list[float] = []
    watchlist = Watchlist(Rooms())
    async with server.api() as client:
        for _ in range(LISTS):
            began = time.perf_counter()
            response = await client.room.list_rooms(api.ListRoomsRequest())
            called.append(time.perf_counter() - began)
            began = time.perf_counter()
            watchlist.listed(response.rooms, time.monotonic())
            watchlist.due(time.monotonic())
            taken_in.append(time.perf_counter() - began)
    print(f"rooms on a real livekit-server        {len(response.rooms):10}")
    print(f"one list, with its request            {statistics.median(called) * 1e3:10.1f} ms")
    print(f"one list                              {response.ByteSize() / 1024:10.1f} KiB")
    print(f"what the worker does with it          {statistics.median(taken_in) * 1e3:10.1f} ms")
    pause = max(SWEEP_S, statistics.median(called) / MAX_SHARE)
    print(f"one sweep each                        {pause:10.1f} s")
    return list(response.rooms)


async def measure_answers(rooms: list[api.Room]) -> None:
    """Offer jobs to both workers whenever the list of rooms reaches the one that adopts."""
    for room in rooms:
        # A user and an agent that both publish: rooms of which none is looked at.
        room.num_participants, room.num_publishers = 1, 2
    async with FakeLiveKit() as one, FakeLiveKit() as other:
        one.rooms = rooms
        async with (
            WorkerProcess.running(ADOPTS, one) as adopts,
            WorkerProcess.running(ADOPTS_NOT, other) as adopts_not,
        ):
            roles = [Role(each, UNTARGETED, available=True) for each in (adopts, adopts_not)]
            quiet: list[list[float]] = [[], []]
            swept: list[list[float]] = [[], []]
            for _ in range(SWEEPS):
                one.listed.clear()
                await one.listed.wait()
                for role, answers in zip(roles, swept, strict=True):
                    answers.extend(await role.offer(OFFERS_AT_ONCE))
                await asyncio.sleep(0.5)
                for role, answers in zip(roles, quiet, strict=True):
                    answers.extend(await role.offer(OFFERS_AT_ONCE))
    print(f"{'':38}{'adopts':>10}{'does not':>10}      ratio")
    for label, (mine, theirs) in (("between sweeps", quiet), ("while a sweep runs", swept)):
        for name, of in (("p50", statistics.median), ("slowest", max)):
            left, right = of(mine), of(theirs)
            text = f"answer {label}, {name}"
            print(f"{text:38}{left:10.2f}{right:10.2f} ms  {left / right:6.2f}")


async def _run(count: int) -> None:
    await measure_answers(await measure_lists(count))


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="bench.adoption", description=__doc__)
    parser.add_argument("--rooms", type=int, default=1000, help="how many rooms the server has")
    asyncio.run(_run(parser.parse_args().rooms))


if __name__ == "__main__":
    main()
