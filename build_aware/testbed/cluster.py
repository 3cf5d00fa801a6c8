"""Two nodes of livekit-server that share one Redis, all on loopback."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from build_aware.testbed import ports
from build_aware.testbed.environ import environment
from build_aware.testbed.errors import NotInstalledError
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.processes import Processes

HOW_TO_GET_IT: Final = (
    "redis-server is not on PATH; get it with `apt-get install redis-server` or "
    "`brew install redis`"
)


@dataclass(frozen=True)
class Cluster:
    """A cluster of two nodes."""

    nodes: tuple[LiveKitServer, LiveKitServer]

    @classmethod
    async def start(cls, processes: Processes, folder: Path) -> Cluster:
        """Start Redis and both nodes.

        Raises:
            StartError: a program is missing, or does not start.
        """
        found = shutil.which("redis-server")
        if found is None:
            raise NotInstalledError(HOW_TO_GET_IT)
        (port,) = ports.free(1)
        redis = await processes.start(
            *(found, "--port", str(port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(folder)),
            name="redis",
            env=environment(),
        )
        await redis.said("Ready to accept connections")
        address = {"address": f"127.0.0.1:{port}"}
        one, two = await asyncio.gather(
            *(LiveKitServer.start(processes, folder, redis=address) for _ in range(2))
        )
        return cls((one, two))
