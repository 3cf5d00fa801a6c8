"""Builds on different nodes of a cluster: LiveKit offers a job to one node only."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time

import pytest
from livekit import rtc

from build_aware.testbed.cluster import Cluster
from build_aware.testbed.livekit_server import AGENT_NAME
from build_aware.testbed.user import User
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker

ROOMS = 20

logger = logging.getLogger(__name__)


async def served(cluster: Cluster, join: JoinRoom, *, deployment: str = "") -> list[float]:
    """Let users join rooms that want build B; returns how long each waited for it, in seconds."""
    delays = []
    ways = itertools.product(cluster.nodes, repeat=2)
    for number, (created_at, joined_at) in zip(range(ROOMS), itertools.cycle(ways), strict=False):
        name = f"wants-B-{number}"
        await created_at.create_room(name, "build-B", deployment=deployment)
        user = await join(joined_at, name)
        joined = time.monotonic()

        async def wait(user: User = user, joined: float = joined) -> float:
            await user.agent(build="build-B", deadline_s=120)
            assert len(user.agents_seen) == 1
            return time.monotonic() - joined

        delays.append(asyncio.create_task(wait()))
    return sorted(await asyncio.gather(*delays))


@pytest.mark.slow
@pytest.mark.heavy
async def test_a_build_on_another_node_serves_the_rooms_that_ask_for_it(
    cluster: Cluster, worker: StartWorker, join: JoinRoom
) -> None:
    old, new = cluster.nodes
    for _ in range(2):
        await worker(old, AGENT_BUILD_ID="build-A", LIVEKIT_AGENT_NAME=AGENT_NAME)
    on_b = await worker(new, AGENT_BUILD_ID="build-B", LIVEKIT_AGENT_NAME=AGENT_NAME)
    delays = await served(cluster, join)
    logger.info("adopted: %s", delays)
    # Which node LiveKit asked is up to its dice, but with two old workers it asks theirs first.
    assert on_b.find("adopting a waiting room")


@pytest.mark.heavy
@pytest.mark.slow
async def test_routing_by_deployment_needs_no_adoption(
    cluster: Cluster, worker: StartWorker, join: JoinRoom
) -> None:
    old, new = cluster.nodes
    workers = [
        await worker(
            node,
            AGENT_BUILD_ID=build,
            LIVEKIT_AGENT_DEPLOYMENT=build,
            LIVEKIT_AGENT_NAME=AGENT_NAME,
        )
        for node, build in ((old, "build-A"), (old, "build-A"), (new, "build-B"))
    ]
    delays = await served(cluster, join, deployment="build-B")
    logger.info("by deployment: %s", delays)
    assert not any(each.find("adopting a waiting room") for each in workers)
    assert not any(each.find("job offer answered", answer="reject") for each in workers)


@pytest.mark.slow
@pytest.mark.heavy
async def test_users_of_a_node_that_is_killed_get_an_agent_on_another(
    cluster: Cluster, worker: StartWorker, join: JoinRoom
) -> None:
    dying, other = cluster.nodes
    build = {"AGENT_BUILD_ID": "build-A", "LIVEKIT_AGENT_NAME": AGENT_NAME}
    running = await worker(dying, **build)
    before = {}
    for number in range(6):
        room = f"call-{number}"
        await dying.create_room(room, "build-A")
        user = await join(dying, room)
        before[room] = (await user.agent()).identity
    await worker(other, **build)

    # Their machine is gone, and Redis goes on listing all who were on it.
    await dying.stop()
    running.kill_family()

    async def comes_back(room: str) -> float:
        (user,) = await until(lambda: joins(room), f"a node to take {room}")
        joined = time.monotonic()
        await user.agent(besides=before[room], deadline_s=60)
        return time.monotonic() - joined

    async def joins(room: str) -> list[User]:
        try:
            return [await join(other, room)]
        except rtc.ConnectError:
            return []  # LiveKit counts the other node as dead after five seconds.

    logger.info("served: %s", sorted(await asyncio.gather(*map(comes_back, before))))


@pytest.mark.slow
@pytest.mark.heavy
async def test_agents_that_outlive_their_node_come_back_to_their_users(
    cluster: Cluster, worker: StartWorker, join: JoinRoom
) -> None:
    dying, other = cluster.nodes
    await worker(other, AGENT_BUILD_ID="build-A", LIVEKIT_AGENT_NAME=AGENT_NAME)
    calls = {}
    for number in range(6):
        await dying.create_room(f"call-{number}", "build-A")
        user = await join(other, f"call-{number}")
        calls[user] = (await user.agent()).identity
    await dying.stop()

    async def goes_on(user: User) -> float:
        began = time.monotonic()
        await user.insist("still there?", "still there?", 60)
        await until(lambda: len(user.agents) == 1, f"one agent in {user.room_name}")
        return time.monotonic() - began

    delays = sorted(await asyncio.gather(*map(goes_on, calls)))
    same = sum(user.agents[0].identity == before for user, before in calls.items())
    logger.info("answered after: %s, by the same agent: %s of %s", delays, same, len(calls))
    assert all(user.spoke_together == [] for user in calls)
