"""What is measured: each prints its figures, and returns what is promised and whether it held."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from bench.rollout.fleet import a_bed, a_worker, becomes_current, old_and_new, run
from bench.rollout.sessions import (
    Session,
    none_lost_cut_or_doubled,
    one_each_second,
    session,
)
from build_aware.adoption.keeper import STABLE_S
from build_aware.dispatch.acceptance import decide
from build_aware.dispatch.following import FOLLOWED_S, Following
from build_aware.dispatch.rollout import Rollout
from build_aware.dispatch.target import Untargeted
from build_aware.identity.build import Build
from build_aware.testbed.processes import Process
from build_aware.testbed.status import Status
from build_aware.testbed.waiting import until

Promises = dict[str, bool]

PROMISED_S: Final = 15.0
"""How long after its registration a new build has all new sessions."""

SESSIONS: Final = 60
DEPLOYS: Final = 10
OVERLAPS_S: Final = (1.0, 20.0)
STAYS_S: Final = 5.0
AFTER_A_KILL_S: Final = 90.0
DECISIONS: Final = 100_000

NOBODY_TOOK_IT: Final = "nobody took a job that is for another build"


async def alone() -> Promises:
    """Two old workers and a new one, beside a single worker that has a server to itself."""
    async with a_bed() as bed, a_bed() as other:
        server, single = await bed.livekit(), await other.livekit()
        await a_worker(other, single, "new")
        await old_and_new(bed, server)
        await asyncio.sleep(PROMISED_S - STABLE_S)
        ours, theirs = [], []
        for number in range(SESSIONS):
            ours.append(await session(bed, server, f"room-{number}"))
            theirs.append(await session(other, single, f"room-{number}"))
    _show("two old, one new", ours)
    _show("one worker", theirs)
    (p50, p95), (p50_alone, p95_alone) = _waits(ours), _waits(theirs)
    return {
        "all on the new build": {each.build for each in ours} == {"new"},
        "p50 within 0.1 s of a single worker's": p50 <= p50_alone + 0.1,
        "p95 within 0.5 s of a single worker's": p95 <= p95_alone + 0.5,
    }


async def deploys() -> Promises:
    """Rolling deploys, ten in a row, under a constant stream of users."""
    promises: Promises = {}
    for overlap_s in OVERLAPS_S:
        current: dict[str, float] = {}
        async with a_bed() as bed:
            server = await bed.livekit()
            before = await a_worker(bed, server, "build-0")
            await becomes_current(server, "build-0")
            async with one_each_second(bed, server, stays_s=STAYS_S) as sessions:
                for number in range(1, DEPLOYS + 1):
                    after = await a_worker(bed, server, f"build-{number}")
                    await _is_ready(await Status.of(after))
                    stopping = asyncio.create_task(_stop_in(before, overlap_s))
                    await becomes_current(server, f"build-{number}")
                    current[f"build-{number}"] = time.monotonic()
                    await asyncio.sleep(FOLLOWED_S + STAYS_S)
                    await stopping
                    before = after
        _show(f"overlap {overlap_s:g} s", sessions)
        late = [each for each in sessions if _is_outdated(each, current)]
        promises |= {
            f"overlap {overlap_s:g} s: {what}": held
            for what, held in {
                **none_lost_cut_or_doubled(sessions),
                "none waited over 4 s": max(each.waited_s for each in sessions) <= 4,
                "none on an old build 4 s after a promotion": not late,
            }.items()
        }
    return promises


async def killed() -> Promises:
    """The new build is killed with the old one still up."""
    async with a_bed() as bed:
        server = await bed.livekit()
        old, new = await old_and_new(bed, server)
        await asyncio.sleep(PROMISED_S - STABLE_S)
        new.kill_family()
        killed_s = time.monotonic()
        async with one_each_second(bed, server, stays_s=STAYS_S) as sessions:
            await asyncio.sleep(AFTER_A_KILL_S)
        probes = {found["room"] for each in old for found in each.find(NOBODY_TOOK_IT)}
    _show("after the kill", sessions)
    late = {round(each.began_s - killed_s, 1): each for each in sessions if each.waited_s > 2}
    print(
        "  over 2 s, by when they came:",
        {at_s: round(each.waited_s, 1) for at_s, each in sorted(late.items())},
    )
    return none_lost_cut_or_doubled(sessions) | {
        "none waited over 8 s": max(each.waited_s for each in sessions) <= 8,
        "over 2 s in the first 4 s, then only probes": all(
            at_s <= 4 or each.room in probes for at_s, each in late.items()
        ),
    }


async def commands() -> Promises:
    """`rollback` and `promote`, four seconds later; a call goes on."""
    promises: Promises = {}
    async with a_bed() as bed:
        server = await bed.livekit()
        await old_and_new(bed, server)
        await server.create_room("call")
        call = await bed.user(server, "call", identity="caller")
        agent = await call.agent()
        for command, build in ((("rollback",), "old"), (("promote", "new"), "new")):
            await run(server, *command)
            await asyncio.sleep(FOLLOWED_S)
            rooms = (f"{command[0]}-{number}" for number in range(SESSIONS // 2))
            sessions = [await session(bed, server, room) for room in rooms]
            _show(f"4 s after {command[0]}", sessions)
            held = {each.build for each in sessions} == {build}
            promises[f"all on the {build} build after {command[0]}"] = held
        promises["the call goes on"] = call.agents_seen == [agent.identity] and bool(call.agents)
    return promises


async def takeover() -> Promises:
    """The current build is gone, and the one before is known: it was deployed again."""
    async with a_bed() as bed:
        server = await bed.livekit()
        _, new = await old_and_new(bed, server)
        new.kill_family()
        killed_s = time.monotonic()
        async with one_each_second(bed, server, stays_s=STAYS_S) as sessions:
            await becomes_current(server, "old", deadline_s=600)
            took_s = time.monotonic() - killed_s
    _show("until it is current", sessions)
    print(f"  current by itself after {took_s:.0f} s")
    return none_lost_cut_or_doubled(sessions) | {"within five minutes": took_s <= 300}


async def cluster() -> Promises:
    """The current build on one node, an old one on the other, users on either."""
    async with a_bed() as bed:
        nodes = (await bed.cluster()).nodes
        await a_worker(bed, nodes[0], "old")
        await becomes_current(nodes[0], "old")
        await a_worker(bed, nodes[1], "new")
        await becomes_current(nodes[0], "new")
        await asyncio.sleep(PROMISED_S - STABLE_S)
        async with one_each_second(bed, *nodes, stays_s=STAYS_S) as sessions:
            await asyncio.sleep(SESSIONS)
    _show("two nodes", sessions)
    return none_lost_cut_or_doubled(sessions)


async def decisions() -> Promises:
    """One decision on a job that names no build, while a build ramps."""
    now = "2026-11-26T10:00:00Z"
    rollout = Rollout().promoted("old", now, force=True).promoted("new", now, force=True)
    following = Following("new")
    following.learn(rollout.ramped("old", 10, now), 0, becomes_known=True)
    build = Build("new")
    rooms = [f"{random.random()}" for _ in range(DECISIONS)]
    asked = Untargeted()
    began_s = time.perf_counter()
    for room in rooms:
        decide(asked, build, untargeted="accept", full=False, wanted=following.takes(room, began_s))
    each_us = (time.perf_counter() - began_s) / DECISIONS * 1e6
    print(f"  {each_us:.1f} us for each decision")
    return {"below 20 us": each_us < 20}


async def _stop_in(worker: Process, overlap_s: float) -> None:
    await asyncio.sleep(overlap_s)
    worker.send()


async def _is_ready(status: Status) -> None:
    async def ready() -> bool:
        return await status.ready() == HTTPStatus.OK

    await until(ready, "a worker to be ready")


def _is_outdated(each: Session, current: dict[str, float]) -> bool:
    """Whether a later build had been current for four seconds when a session began."""
    newer = [build for build, at_s in current.items() if each.began_s >= at_s + FOLLOWED_S]
    return bool(each.build and newer) and _number(each.build) < max(map(_number, newer))


def _number(build: str) -> int:
    return int(build.removeprefix("build-"))


def _waits(sessions: Iterable[Session]) -> tuple[float, float]:
    waits = [each.waited_s for each in sessions]
    return statistics.median(waits), statistics.quantiles(waits, n=20)[-1]


def _show(name: str, sessions: list[Session]) -> None:
    builds = Counter(each.build or "nobody" for each in sessions)
    told = ", ".join(f"{count} by {build}" for build, count in builds.most_common(3))
    more = f" and {len(builds) - 3} builds more" if len(builds) > 3 else ""
    p50, p95 = _waits(sessions)
    longest = max(each.waited_s for each in sessions)
    print(f"  {name}: {len(sessions)} sessions, {told}{more}")
    print(f"    waited {p50:.3f} s (p50), {p95:.3f} s (p95), {longest:.1f} s at most")
