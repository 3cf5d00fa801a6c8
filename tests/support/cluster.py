"""Two nodes of livekit-server that share one Redis, all on loopback."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import ports
from .livekit_server import LiveKitServer
from .process import LoggedProcess, environment
from .waiting import until

HOW_TO_GET_IT = "redis-server is not on PATH; get it with `apt-get install redis-server`"


def redis_binary() -> str | None:
    return shutil.which("redis-server")


@dataclass
class Cluster:
    """A cluster of two nodes."""

    redis: LoggedProcess
    nodes: tuple[LiveKitServer, LiveKitServer]

    @classmethod
    async def start(cls, folder: Path) -> Cluster:
        found = redis_binary()
        assert found is not None, HOW_TO_GET_IT
        (port,) = ports.free(1)
        redis = await LoggedProcess.start(
            *(found, "--port", str(port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(folder)),
            name="redis",
            env=environment(),
        )
        await until(lambda: "Ready to accept connections" in redis.output, "Redis to listen")
        address = {"address": f"127.0.0.1:{port}"}
        one, two = await asyncio.gather(
            *(LiveKitServer.start(folder, redis=address) for _ in range(2))
        )
        return cls(redis, (one, two))

    async def stop(self) -> None:
        for process in (*self.nodes, self.redis):
            await process.stop()
