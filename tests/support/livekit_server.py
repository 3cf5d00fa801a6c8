"""A real livekit-server on loopback."""

from __future__ import annotations

import os
import shutil
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from livekit import api
from livekit.protocol.room import RoomConfiguration

from . import ports
from .process import LoggedProcess, environment
from .waiting import until

API_KEY = "devkey"
API_SECRET = "only-for-tests-" + 32 * "x"

HOW_TO_GET_IT = (
    "livekit-server is not on PATH and LIVEKIT_SERVER_BIN is not set; get it with "
    "`brew install livekit`, the script at https://get.livekit.io, or "
    "`go install github.com/livekit/livekit-server/cmd/server@v1.13.5`"
)


def binary() -> str | None:
    return os.environ.get("LIVEKIT_SERVER_BIN") or shutil.which("livekit-server")


class LiveKitServer:
    """A livekit-server that talks to nobody beyond this machine."""

    def __init__(self, process: LoggedProcess, port: int, config: Path) -> None:
        self.process = process
        self.port = port
        self.config = config

    @classmethod
    async def start(cls, folder: Path, **config: Any) -> LiveKitServer:
        """Start a server.

        Args:
            folder: where its configuration is written.
            config: more of livekit-server's configuration, top-level keys.
        """
        port, tcp_port = ports.free(2)
        udp_port, stun_port = ports.free(2, socket.SOCK_DGRAM)
        content = {
            "port": port,
            "bind_addresses": ["127.0.0.1"],
            "keys": {API_KEY: API_SECRET},
            "logging": {"level": "debug", "json": True},
            "rtc": {
                "tcp_port": tcp_port,
                "udp_port": udp_port,
                "node_ip": "127.0.0.1",
                "use_external_ip": False,
                "enable_loopback_candidate": True,
                "interfaces": {"includes": ["lo", "lo0"]},
                # An empty list would mean Google's public servers.
                "stun_servers": [f"127.0.0.1:{stun_port}"],
            },
        } | config
        path = folder / f"livekit-{port}.yaml"
        path.write_text(yaml.safe_dump(content))
        return await cls._run(path, port)

    @classmethod
    async def _run(cls, path: Path, port: int) -> LiveKitServer:
        found = binary()
        assert found is not None, HOW_TO_GET_IT
        process = await LoggedProcess.start(
            found, "--config", str(path), name="livekit-server", env=environment()
        )
        server = cls(process, port, path)
        await until(server._answers, f"livekit-server to listen on {port}")
        return server

    async def restart(self) -> LiveKitServer:
        """Start it again, with the same ports, after it was stopped."""
        return await self._run(self.config, self.port)

    async def _answers(self) -> bool:
        if not self.process.running:
            raise AssertionError(f"livekit-server ended:\n{self.process.tail()}")
        try:
            async with aiohttp.ClientSession() as http, http.get(self.http_url) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        return {
            "LIVEKIT_URL": self.url,
            "LIVEKIT_API_KEY": API_KEY,
            "LIVEKIT_API_SECRET": API_SECRET,
        }

    def api(self) -> api.LiveKitAPI:
        """A client of its API, to be used with `async with`."""
        return api.LiveKitAPI(self.http_url, API_KEY, API_SECRET)

    async def counts(self, *, users: int, publishers: int) -> None:
        """Wait until its list of rooms has these numbers, all in all."""

        async def counted() -> bool:
            async with self.api() as client:
                rooms = (await client.room.list_rooms(api.ListRoomsRequest())).rooms
            return (users, publishers) == (
                sum(room.num_participants for room in rooms),
                sum(room.num_publishers for room in rooms),
            )

        await until(counted, f"{users} users and {publishers} publishers")

    def calls(self, since: float) -> Counter[str]:
        """How often each method of its API was called since a time, in Unix time."""
        made = [record for record in self.process.find("API ") if record["ts"] >= since]
        return Counter(record["method"] for record in made)

    def token(self, room: str, identity: str, config: RoomConfiguration | None = None) -> str:
        token = (
            api.AccessToken(API_KEY, API_SECRET)
            .with_identity(identity)
            .with_grants(api.VideoGrants(room_join=True, room=room))
        )
        if config is not None:
            token = token.with_room_config(config)
        return token.to_jwt()

    def agent_token(self, room: str, identity: str) -> str:
        """A token as this server gives it to agents."""
        return (
            api.AccessToken(API_KEY, API_SECRET)
            .with_identity(identity)
            .with_kind("agent")
            .with_grants(api.VideoGrants(room_join=True, room=room, agent=True))
            .to_jwt()
        )

    async def stop(self) -> None:
        await self.process.stop()
