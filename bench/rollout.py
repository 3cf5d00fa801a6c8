"""What the rollout costs users: `uv run python -m bench.rollout [--sessions N] [--seconds N]`.

On real livekit-servers, with users whose rooms name no build. First beside a single worker: two
workers of an old build and one of a new one, when that has been registered for 15 seconds. Then
the new one is killed while a user comes every second.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from bench.paths import ROOT
from build_aware.adoption.keeper import STABLE_S
from build_aware.testbed import Process, Testbed
from build_aware.testbed.ending import run_and_exit
from build_aware.testbed.livekit_server import AGENT_NAME, LiveKitServer

PROMISED_S: Final = 15.0
"""How long after its registration a new build has all new sessions."""

AFTER_KILL_S: Final = 4.0
"""How long after the kill users may have to wait."""


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


async def session(bed: Testbed, server: LiveKitServer, room: str) -> tuple[str, float]:
    """One session: which build served it, and how many seconds after the join."""
    await server.create_room(room)
    user = await bed.user(server, room)
    began = time.perf_counter()
    agent = await user.agent()
    waited_s = time.perf_counter() - began
    await user.leave()
    return agent.attributes["build.id"], waited_s


async def beside_a_single_worker(sessions: int) -> None:
    """Compare the waits of users."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        async with Testbed(Path(folder)) as bed, Testbed(Path(other)) as alone:
            server, single = await bed.livekit(), await alone.livekit()
            for build in ("old", "old"):
                await a_worker(bed, server, build)
            await a_worker(alone, single, "new")
            await asyncio.sleep(STABLE_S + 2)
            await a_worker(bed, server, "new")
            await asyncio.sleep(PROMISED_S)
            builds: Counter[str] = Counter()
            waits: tuple[list[float], list[float]] = ([], [])
            for number in range(sessions):
                build, waited_s = await session(bed, server, f"room-{number}")
                builds[build] += 1
                waits[0].append(waited_s)
                waits[1].append((await session(alone, single, f"room-{number}"))[1])
    print(f"{builds['new']} of {sessions} sessions on the new build")
    print(f"{'':24}{'p50':>8}{'p95':>8}")
    for name, found in zip(("two old, one new", "one worker"), waits, strict=True):
        p95 = statistics.quantiles(found, n=20)[-1]
        print(f"{name:24}{statistics.median(found):8.3f}{p95:8.3f}")


async def the_new_one_is_killed(seconds: int) -> None:
    """A user comes every second, from the kill on."""
    with tempfile.TemporaryDirectory() as folder:
        async with Testbed(Path(folder)) as bed:
            server = await bed.livekit()
            for build in ("old", "old"):
                await a_worker(bed, server, build)
            await asyncio.sleep(STABLE_S + 2)
            new = await a_worker(bed, server, "new")
            await asyncio.sleep(PROMISED_S)
            new.kill_family()

            async def comes(number: int) -> float:
                await asyncio.sleep(number)
                return (await session(bed, server, f"room-{number}"))[1]

            waits = await asyncio.gather(*map(comes, range(seconds)))
    late = {number: round(wait, 1) for number, wait in enumerate(waits) if wait > 2}
    first = [number for number in late if number <= AFTER_KILL_S]
    print(f"{len(waits)} of {seconds} served after the kill, the longest wait {max(waits):.1f} s")
    print(
        f"over 2 s, by the second in which they came: {late}; {len(first)} of them in the first 4"
    )


async def _run(sessions: int, seconds: int) -> None:
    await beside_a_single_worker(sessions)
    await the_new_one_is_killed(seconds)


def main() -> None:
    """Measure, and print what users waited."""
    parser = argparse.ArgumentParser(prog="bench.rollout", description=__doc__)
    parser.add_argument("--sessions", type=int, default=60, help="sessions on each side")
    parser.add_argument("--seconds", type=int, default=90, help="how long users come after a kill")
    options = parser.parse_args()
    asyncio.run(_run(max(options.sessions, 2), max(options.seconds, 1)))


if __name__ == "__main__":
    run_and_exit(main)
