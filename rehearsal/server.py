"""A livekit-server of the rehearsal's own, which talks to nobody beyond this machine."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import time
from pathlib import Path
from typing import Final

import aiohttp
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch

from . import processes
from .processes import Processes

BINARY_VARIABLE: Final = "LIVEKIT_SERVER_BIN"

HOW_TO_GET_IT: Final = (
    "get it with `brew install livekit`, with the script at https://get.livekit.io, or with "
    "`go install github.com/livekit/livekit-server/cmd/server@v1.13.5`, and put it on PATH or "
    f"its path into {BINARY_VARIABLE}"
)

AGENT_NAME: Final = "rehearsed"
"""The name under which all workers register and rooms ask for an agent."""

START_S: Final = 20.0
_POLL_S: Final = 0.05


class RehearsalError(Exception):
    """Raised when a rehearsal cannot go on, with what was found and what to do."""


def find_binary() -> str:
    """The path of livekit-server.

    Raises:
        RehearsalError: it is not there; the message tells how to get it.
    """
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise RehearsalError(
                f"{BINARY_VARIABLE}={named!a}: expected the path of the livekit-server program; "
                f"{HOW_TO_GET_IT}"
            )
        return found
    found = shutil.which("livekit-server")
    if found is None:
        raise RehearsalError(
            f"livekit-server is not on PATH and {BINARY_VARIABLE} is not set; {HOW_TO_GET_IT}"
        )
    return found


class Server:
    """A running livekit-server, and the calls that a backend makes to it."""

    def __init__(self, port: int, secret: str) -> None:
        self.port = port
        self.api_key = "rehearsal"
        self.api_secret = secret
        self._api: api.LiveKitAPI | None = None

    @classmethod
    async def start(cls, started: Processes, folder: Path) -> Server:
        """Start a server on free ports of the loopback interface.

        Raises:
            RehearsalError: there is none, or it does not listen in time.
        """
        binary = find_binary()
        port, tcp_port = processes.free_ports(2)
        udp_port, stun_port = processes.free_ports(2, socket.SOCK_DGRAM)
        server = cls(port, secrets.token_hex(32))
        config = folder / "livekit-server.yaml"
        log = folder / "livekit-server.log"
        # JSON is YAML too.
        content = {
            "port": port,
            "bind_addresses": ["127.0.0.1"],
            "keys": {server.api_key: server.api_secret},
            "logging": {"level": "warn", "json": True},
            "rtc": {
                "tcp_port": tcp_port,
                "udp_port": udp_port,
                "node_ip": "127.0.0.1",
                "use_external_ip": False,
                "enable_loopback_candidate": True,
                "interfaces": {"includes": ["lo", "lo0"]},
                # An empty list would mean public servers. Nobody listens on this port.
                "stun_servers": [f"127.0.0.1:{stun_port}"],
            },
        }
        config.write_text(json.dumps(content), "utf-8")
        process = await started.start(
            [binary, "--config", str(config)], log=log, cwd=folder, env=processes.environment()
        )
        give_up = time.monotonic() + START_S
        while not await server._answers():
            if process.returncode is not None or time.monotonic() > give_up:
                raise RehearsalError(f"livekit-server did not start:\n{tail(log)}")
            await asyncio.sleep(_POLL_S)
        return server

    @property
    def url(self) -> str:
        """Where users connect."""
        return f"ws://127.0.0.1:{self.port}"

    async def ask_for_agent(self, room: str, target: str | None) -> None:
        """Create a room that asks for an agent, as a backend does.

        Args:
            room: its name.
            target: the build to ask for; None asks for none.
        """
        if self._api is None:
            self._api = api.LiveKitAPI(
                f"http://127.0.0.1:{self.port}", self.api_key, self.api_secret
            )
        await self._api.room.create_room(
            api.CreateRoomRequest(
                name=room,
                metadata=json.dumps({} if target is None else {"agent_build": target}),
                agents=[RoomAgentDispatch(agent_name=AGENT_NAME)],
            )
        )

    def token(self, room: str, identity: str) -> str:
        """A token with which a user joins a room."""
        grants = api.VideoGrants(room_join=True, room=room)
        token = api.AccessToken(self.api_key, self.api_secret)
        return token.with_identity(identity).with_grants(grants).to_jwt()

    async def close(self) -> None:
        """Close the backend's connections. The process ends with the others."""
        if self._api is not None:
            await self._api.aclose()

    async def _answers(self) -> bool:
        try:
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"http://127.0.0.1:{self.port}") as response,
            ):
                return response.status == 200  # noqa: PLR2004
        except aiohttp.ClientError:
            return False


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, none of them endless."""
    text = log.read_text("utf-8", errors="replace") if log.exists() else ""
    return "\n".join(line[:300] for line in text.splitlines()[-lines:])
