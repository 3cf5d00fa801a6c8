"""A real livekit-server that talks to nobody beyond this machine."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections import Counter
from pathlib import Path
from typing import Any, Final

import aiohttp
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.room import RoomConfiguration

from build_aware.testbed import ports
from build_aware.testbed.environ import environment
from build_aware.testbed.errors import NotInstalledError, StartError
from build_aware.testbed.processes import Process, Processes
from build_aware.testbed.waiting import DEADLINE_S, until

BINARY_VARIABLE: Final = "LIVEKIT_SERVER_BIN"
"""The variable that names the program, where it is not on PATH."""

HOW_TO_GET_IT: Final = (
    "get it with `brew install livekit`, the script at https://get.livekit.io, or "
    "`go install github.com/livekit/livekit-server/cmd/server@v1.13.5`, "
    f"and put it on PATH as livekit-server or set {BINARY_VARIABLE} to its path"
)

API_KEY: Final = "testbed"
API_SECRET: Final = "only-for-this-machine-" + 32 * "x"
"""The server listens on loopback only."""

AGENT_NAME: Final = "assistant"
"""The agent that rooms ask for unless they say otherwise."""


def find_binary() -> str:
    """The path of livekit-server.

    Raises:
        NotInstalledError: it is not there.
    """
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        if (found := shutil.which(named)) is None:
            raise NotInstalledError(
                f"{BINARY_VARIABLE}={named!a}: expected the path of the livekit-server program; "
                f"{HOW_TO_GET_IT}"
            )
        return found
    if (found := shutil.which("livekit-server")) is None:
        raise NotInstalledError(
            f"livekit-server is not on PATH and {BINARY_VARIABLE} is not set; {HOW_TO_GET_IT}"
        )
    return found


class LiveKitServer:
    """One node of livekit-server, and the calls that a backend makes to it.

    Attributes:
        process: its process; another one after a restart.
        port: where it listens.
    """

    def __init__(self, processes: Processes, config: Path, port: int) -> None:
        self.port = port
        self.process: Process
        self._processes = processes
        self._config = config

    @classmethod
    async def start(cls, processes: Processes, folder: Path, **config: Any) -> LiveKitServer:
        """Start a server on free ports of the loopback interface.

        Args:
            processes: where its process is started.
            folder: where its configuration is written.
            config: more of livekit-server's configuration, top-level keys.

        Raises:
            StartError: there is none, or it does not listen in time.
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
                # An empty list would mean public servers. Nobody listens on this port.
                "stun_servers": [f"127.0.0.1:{stun_port}"],
            },
        } | config
        path = folder / f"livekit-server-{port}.yaml"
        path.write_text(json.dumps(content), "utf-8")  # JSON is YAML too.
        server = cls(processes, path, port)
        await server.restart()
        return server

    async def restart(self) -> None:
        """Start it, with the same ports; it must not be running.

        Raises:
            StartError: there is no such program, or it does not listen in time.
        """
        self.process = await self._processes.start(
            find_binary(), "--config", str(self._config), name="livekit-server", env=environment()
        )
        try:
            await until(self._answers, f"livekit-server to listen on {self.port}")
        except TimeoutError as error:
            raise StartError(f"{error}:\n{self.process.tail()}") from None

    async def stop(self) -> None:
        """Kill it: nobody is told, as when its machine is gone."""
        await self.process.stop()

    async def _answers(self) -> bool:
        if not self.process.running:
            raise StartError(f"livekit-server ended:\n{self.process.tail()}")
        try:
            async with aiohttp.ClientSession() as http, http.get(self.http_url) as response:
                return response.status == 200  # noqa: PLR2004 OK
        except aiohttp.ClientError:
            return False

    @property
    def url(self) -> str:
        """Where workers and users connect."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        """Where backends call the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """What a worker's environment needs."""
        return {
            "LIVEKIT_URL": self.url,
            "LIVEKIT_API_KEY": API_KEY,
            "LIVEKIT_API_SECRET": API_SECRET,
        }

    def api(self) -> api.LiveKitAPI:
        """A client of its API, to be used with `async with`."""
        return api.LiveKitAPI(self.http_url, API_KEY, API_SECRET)

    async def create_room(
        self,
        name: str,
        target: Any = None,
        *,
        agent_name: str = AGENT_NAME,
        deployment: str = "",
    ) -> None:
        """Create a room that asks for an agent, as a backend does before anybody joins.

        Args:
            name: the room's name.
            target: the value of `agent_build`; None makes an untargeted room.
            agent_name: the agent that it asks for.
            deployment: the LiveKit deployment of that agent.
        """
        asks = RoomAgentDispatch(agent_name=agent_name, deployment=deployment)
        metadata = "" if target is None else json.dumps({"agent_build": target})
        async with self.api() as client:
            await client.room.create_room(
                api.CreateRoomRequest(name=name, metadata=metadata, agents=[asks])
            )

    async def agents_in(self, room: str) -> list[ParticipantInfo]:
        """The agents that it counts in a room."""
        async with self.api() as client:
            found = await client.room.list_participants(api.ListParticipantsRequest(room=room))
        return [p for p in found.participants if p.kind == ParticipantInfo.Kind.AGENT]

    async def counts(self, *, users: int, publishers: int) -> None:
        """Wait until its list of rooms has these numbers, all in all."""

        async def counted() -> bool:
            async with self.api() as client:
                rooms = (await client.room.list_rooms(api.ListRoomsRequest())).rooms
            return (users, publishers) == (
                sum(room.num_participants for room in rooms),
                sum(room.num_publishers for room in rooms),
            )

        await until(counted, f"{users} users and {publishers} publishers", DEADLINE_S)

    def calls(self, since: float) -> Counter[str]:
        """How often each method of its API was called since a time, in Unix time."""
        made = [record for record in self.process.find("API ") if record["ts"] >= since]
        return Counter(record["method"] for record in made)

    def token(self, room: str, identity: str, config: RoomConfiguration | None = None) -> str:
        """A token with which a user joins a room."""
        token = (
            api.AccessToken(API_KEY, API_SECRET)
            .with_identity(identity)
            .with_grants(api.VideoGrants(room_join=True, room=room))
        )
        return (token if config is None else token.with_room_config(config)).to_jwt()

    def agent_token(self, room: str, identity: str) -> str:
        """A token as this server gives it to agents."""
        return (
            api.AccessToken(API_KEY, API_SECRET)
            .with_identity(identity)
            .with_kind("agent")
            .with_grants(api.VideoGrants(room_join=True, room=room, agent=True))
            .to_jwt()
        )
