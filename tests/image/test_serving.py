"""A container of the image serves users, and leaves them only when they leave."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import psutil
import pytest
from livekit.protocol.room import DeleteRoomRequest

from build_aware.testbed import Testbed, ports, until
from build_aware.testbed.environ import environment
from build_aware.testbed.family import alive
from build_aware.testbed.livekit_server import LiveKitServer
from tests.image.conftest import Project
from tests.support import alone
from tests.support.containers import Container
from tests.support.paths import ROOT

pytestmark = [
    *(pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)),
    pytest.mark.xdist_group("image"),  # One storage, where each is built once.
]

GONE_S: Final = 10.0
"""From the end of the last session to that of the container, on a very busy machine.

It takes 0.1 s on an idle one. What could keep it are waits of LiveKit's, of 15 s and more.
"""

AWAY_S: Final = 30.0
"""How long LiveKit is away."""


async def test_as_pid_1_it_stays_with_its_user_and_leaves_with_the_user(
    project: Project, bed: Testbed, own_livekit: LiveKitServer
) -> None:
    container = await project.worker(bed, own_livekit)
    running = container.process
    first = await project.user(bed, own_livekit, "first")
    user = await project.user(bed, own_livekit, "second")
    assert {agent.attributes["build.id"] for agent in (*first.agents, *user.agents)} == {
        project.build_id
    }
    async with own_livekit.api() as backend:
        await backend.room.delete_room(DeleteRoomRequest(room="first"))
    await running.logged("session ended", room="first")
    family = running.family()
    assert container.pid_1.cmdline()[-1:] == ["start"]
    assert container.pid_1.name().startswith("python")
    await until(lambda: not zombies(container.pid_1), "no zombie below PID 1")

    container.stop()
    await running.logged("draining worker")
    assert await container.check(), running.tail()
    await user.ask("still there?", expect="still there?")
    assert await container.check(), running.tail()
    assert not zombies(container.pid_1)
    await user.leave()
    assert await running.exit() == 0
    (ended,) = running.find("session ended", room="second")
    assert running.lasted_since(ended) < GONE_S
    assert not alive(family)
    assert not running.find("the stop signal will not arrive")


async def test_it_is_healthy_while_livekit_is_away_and_serves_when_it_is_back(
    assistant: Project, foreign: Project, bed: Testbed, own_livekit: LiveKitServer
) -> None:
    projects = (assistant, foreign)
    containers = [await project.worker(bed, own_livekit) for project in projects]
    await own_livekit.stop()
    away_until = time.monotonic() + AWAY_S
    while time.monotonic() < away_until:
        assert all([await container.check() for container in containers])
        await asyncio.sleep(1)
    for container in containers:
        assert len(container.process.find("registered worker")) == 1
    await own_livekit.restart()
    for project, container in zip(projects, containers, strict=True):
        await container.process.logged("registered worker", count=2)
        user = await project.user(bed, own_livekit, f"room of {project.agent_name}")
        await user.leave()


async def test_a_container_whose_worker_is_gone_is_not_healthy(
    assistant: Project, bed: Testbed
) -> None:
    asleep = "import time; time.sleep(600)"
    (nobody_listens,) = ports.free(1)
    container = await Container.start(
        bed.processes,
        assistant.image,
        env={"AGENT_HEALTH_PORT": str(nobody_listens)},
        command=("python", "-c", asleep),
    )
    assert not await container.check()


async def test_without_any_network_but_to_livekit_it_starts_and_serves(
    assistant: Project, bed: Testbed, tmp_path: Path
) -> None:
    image = json.dumps(asdict(assistant.image), default=str)
    process = await bed.processes.start(
        *("unshare", "--net", sys.executable, "-m", alone.__name__, image, str(tmp_path)),
        name="alone",
        cwd=ROOT,
        env=environment(),
    )
    assert await process.exit() == 0, process.tail()
    assert json.loads(process.text[-1]) == {
        "interfaces": ["far", "lo", "near"],
        "build": assistant.build_id,
        "answer": "You said: hello",
        "healthy": True,
        "code": 0,
    }


def zombies(process: psutil.Process) -> list[psutil.Process]:
    return [
        child
        for child in process.children(recursive=True)
        if child.status() == psutil.STATUS_ZOMBIE
    ]
