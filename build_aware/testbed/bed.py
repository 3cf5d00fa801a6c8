"""The test bed: starts servers, workers and users on this machine, and ends them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from livekit.protocol.room import RoomConfiguration

from build_aware.testbed.cluster import Cluster
from build_aware.testbed.fake_livekit import FakeLiveKit
from build_aware.testbed.fake_openai import FakeOpenAI
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.processes import Process, Processes
from build_aware.testbed.proxy import Blind, Observer, Proxy
from build_aware.testbed.user import User
from build_aware.testbed.worker import start_worker


class _Service(Protocol):
    async def start(self) -> Any: ...

    async def stop(self) -> None: ...


S = TypeVar("S", bound=_Service)


class Server(Protocol):
    """What workers register with: a real server or a fake one."""

    @property
    def credentials(self) -> dict[str, str]:
        """URL, API key and secret, as environment variables."""


class Testbed:
    """Starts what a test needs, and ends it with the test.

        async with Testbed(folder) as bed:
            livekit = await bed.livekit()
            worker = await bed.worker(livekit, command=("agent.py", "start"), folder=checkout)
            user = await bed.user(livekit, "room")
            await user.agent()

    Args:
        folder: an existing folder for logs and configuration.

    Attributes:
        processes: where other processes can be started; they end with the rest.
    """

    __test__ = False  # It is no test, whatever its name makes pytest believe.

    def __init__(self, folder: Path) -> None:
        self.processes = Processes(folder)
        self._folder = folder
        self._users: list[User] = []
        self._services: list[_Service] = []

    async def livekit(self, **config: Any) -> LiveKitServer:
        """A livekit-server of its own; `config` is more of its configuration."""
        return await LiveKitServer.start(self.processes, self._folder, **config)

    async def cluster(self) -> Cluster:
        """Two nodes of livekit-server that share a Redis."""
        return await Cluster.start(self.processes, self._folder)

    async def fake_livekit(self) -> FakeLiveKit:
        """A fake LiveKit, for faults."""
        return await self._started(FakeLiveKit())

    async def fake_openai(self) -> FakeOpenAI:
        """A fake OpenAI."""
        return await self._started(FakeOpenAI())

    async def proxy(
        self, server: LiveKitServer | FakeLiveKit, observe: Callable[[], Observer] = Blind
    ) -> Proxy:
        """A proxy before a server, and what sees each of its connections."""
        return await self._started(Proxy(server.port, observe))

    async def worker(
        self,
        server: Server,
        *,
        command: tuple[str, ...],
        folder: Path,
        below: tuple[str, ...] = (),
        name: str = "worker",
        registered: bool = True,
        **env: str,
    ) -> Process:
        """A worker of a server; see `worker.start_worker`."""
        return await start_worker(
            self.processes,
            server.credentials,
            command=command,
            folder=folder,
            below=below,
            name=name,
            registered=registered,
            env=env,
        )

    async def user(
        self,
        server: LiveKitServer,
        room: str,
        *,
        identity: str = "user",
        config: RoomConfiguration | None = None,
    ) -> User:
        """A user who joins a room; it is made with `config` if it does not exist."""
        user = User(server, room, identity)
        self._users.append(user)
        return await user.join(config)

    async def close(self) -> None:
        """End all that was started, users first."""
        await asyncio.gather(*(user.leave() for user in self._users), return_exceptions=True)
        for service in self._services:
            await service.stop()
        await self.processes.close()

    async def _started(self, service: S) -> S:
        self._services.append(service)
        await service.start()
        return service

    async def __aenter__(self) -> Testbed:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close()
