"""The services of deploy/compose.yaml work together as it starts them, here without docker."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp

from build_aware.testbed import Process, Testbed, ports
from build_aware.testbed.cluster import HOW_TO_GET_IT
from build_aware.testbed.environ import environment
from build_aware.testbed.errors import NotInstalledError
from build_aware.testbed.livekit_server import find_binary
from build_aware.testbed.status import Status
from build_aware.testbed.waiting import until
from tests.conftest import StartWorker, installed
from tests.support import deploy_files

SET: Final = {"LIVEKIT_API_KEY": "APIexample", "LIVEKIT_API_SECRET": "only-here-" + 32 * "x"}
"""What its `.env` has."""


@dataclass(frozen=True)
class At:
    """Where a worker finds the server."""

    credentials: Mapping[str, str]


def filled_in(text: str) -> str:
    """A value with what `.env` has in place of its variables, or their defaults."""
    return re.sub(
        r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)\}", lambda found: SET.get(found[1], found[2]), text
    )


async def redis(bed: Testbed, port: int) -> Process:
    program, *arguments = deploy_files.compose("redis")["command"]
    found = shutil.which(program)
    if found is None:
        raise NotInstalledError(HOW_TO_GET_IT)
    own = ("--port", str(port), "--bind", "127.0.0.1")
    started = await bed.processes.start(found, *arguments, *own, name="redis", env=environment())
    await started.said("Ready to accept connections")
    return started


async def livekit(bed: Testbed, port: int, redis_port: int) -> Process:
    """The server, on free ports of loopback."""
    service = deploy_files.compose("livekit")
    (tcp_port,), (udp_port,) = ports.free(1), ports.free(1)
    moved = {"redis:6379": f"127.0.0.1:{redis_port}", "7882": str(udp_port)}
    arguments = [moved.pop(argument, argument) for argument in service["command"]]
    assert not moved
    own = {"port": port, "bind_addresses": ["127.0.0.1"], "rtc": {"tcp_port": tcp_port}}
    env = {name: filled_in(value) for name, value in service["environment"].items()}
    started = await bed.processes.start(
        *(find_binary(), *arguments, "--config-body", json.dumps(own)),
        name="livekit",
        env=environment(**env),
    )

    url = f"http://127.0.0.1:{port}/"

    async def healthy() -> bool:
        assert started.running, started.output
        try:
            async with aiohttp.ClientSession() as http, http.get(url) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    await until(healthy, "the server to be healthy")
    return started


async def test_a_worker_registers_with_the_key_of_the_env_file(
    bed: Testbed, worker: StartWorker
) -> None:
    port, redis_port = ports.free(2)
    await installed(redis(bed, redis_port))
    server = await installed(livekit(bed, port, redis_port))
    assert "redis" in server.output
    at = At(SET | {"LIVEKIT_URL": f"ws://127.0.0.1:{port}"})
    (status_port,) = ports.free(1)
    running = await worker(at, AGENT_STATUS_PORT=str(status_port))
    assert await is_healthy(bed, status_port)
    await server.stop()
    status = await Status.of(running)
    await status.becomes("disconnected")
    assert await is_healthy(bed, status_port)
    running.send()
    assert await running.exit() == 0
    assert not await is_healthy(bed, status_port)


async def test_it_is_not_healthy_before_its_worker_has_registered(
    bed: Testbed, worker: StartWorker
) -> None:
    nobody, status_port = ports.free(2)
    at = At(SET | {"LIVEKIT_URL": f"ws://127.0.0.1:{nobody}"})
    running = await worker(at, AGENT_STATUS_PORT=str(status_port), registered=False)
    await (await Status.of(running)).becomes("starting")
    assert not await is_healthy(bed, status_port)


async def is_healthy(bed: Testbed, port: int) -> bool:
    """What the health check of the agent says."""
    kind, program, *arguments = deploy_files.compose()["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    moved = [argument.replace(", 8082, ", f", {port}, ") for argument in arguments]
    assert moved != arguments
    check = await bed.processes.start(sys.executable, *moved, name="health", env=environment())
    return await check.exit() == 0


async def test_the_ports_that_the_server_uses_are_published(bed: Testbed) -> None:
    service = deploy_files.compose("livekit")
    told = await installed(ports_of(bed, service["command"]))
    used = set(re.findall(r"(\d+)\)? - ", told))
    assert used == {port.split(":")[0] for port in service["ports"]}, told


async def ports_of(bed: Testbed, arguments: list[str]) -> str:
    """What the server says of its ports."""
    told = await bed.processes.start(
        *(find_binary(), *arguments, "ports"), name="ports", env=environment()
    )
    assert await told.exit() == 0, told.output
    return told.output
