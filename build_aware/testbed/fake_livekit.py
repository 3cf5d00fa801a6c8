"""A fake LiveKit that speaks the worker protocol, for faults a real server makes not on demand.

It proves nothing about dispatch: what a server does with an answer is tested on a real one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from aiohttp import WSMsgType, web
from google.protobuf.message import Message
from livekit.protocol import agent, agent_dispatch, models, room

from build_aware.testbed.waiting import DEADLINE_S, until

SERVER_VERSION: Final = "1.13.5"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker said to one offer.

    Attributes:
        response: the answer.
        seconds: from just before the offer was sent until the answer was here.
    """

    response: agent.AvailabilityResponse
    seconds: float


class FakeLiveKit:
    """The server's side of the worker WebSocket, and of the calls that adoption makes.

    Attributes:
        registrations: what workers registered with.
        registered_at: when each did, as `time.perf_counter` tells it.
        answers: for each job id, the answers that came.
        assigns: whether an accepted job is assigned; the room it names does not exist.
        refuses: whether the socket is closed instead of confirming a registration.
        status: the HTTP status with which connections are turned away; None if they are not.
        edition: what the server says it is.
        calls: how often each method of the API was called.
        failing: the methods that answer with an error.
        error: the body of that answer, as JSON.
        hanging: the methods that do not answer.
        rooms: what a list of all rooms has.
        listed: set when such a list is on its way to a worker.
        connections: how often a worker has connected, or was turned away.
    """

    def __init__(self) -> None:
        self.registrations: list[agent.RegisterWorkerRequest] = []
        self.registered_at: list[float] = []
        self.answers: defaultdict[str, list[agent.AvailabilityResponse]] = defaultdict(list)
        self.assigns = False
        self.refuses = False
        self.status: int | None = None
        self.edition = models.ServerInfo.Edition.Standard
        self.calls: Counter[str] = Counter()
        self.failing: set[str] = set()
        self.error: Any = {"code": "internal", "msg": "a fault"}
        self.hanging: set[str] = set()
        self.rooms: list[models.Room] = []
        self.listed = asyncio.Event()
        self.connections = 0
        self._sockets: list[web.WebSocketResponse] = []
        self._jobs: dict[str, agent.Job] = {}
        self._asked: dict[str, tuple[float, asyncio.Future[Answer]]] = {}
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self) -> FakeLiveKit:
        """Listen: on a free port, and on the same one after a stop."""
        application = web.Application()
        application.router.add_get("/agent", self._serve)
        application.router.add_post("/twirp/{service}/{method}", self._call)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Cut all connections, and stop listening."""
        await self.disconnect()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> FakeLiveKit:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def disconnect(self) -> None:
        """Cut the connections of all workers."""
        for socket in self._sockets:
            await socket.close()
        self._sockets.clear()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def credentials(self) -> dict[str, str]:
        """What a worker's environment needs."""
        return {
            "LIVEKIT_URL": f"ws://127.0.0.1:{self._port}",
            "LIVEKIT_API_KEY": "fake-key",
            "LIVEKIT_API_SECRET": "fake-secret-" + 32 * "x",
        }

    def has_a_waiting_room(self, name: str) -> None:
        """From now on it lists a room in which a user waits for an agent."""
        self.rooms.append(models.Room(name=name, sid=f"RM_{name}", num_participants=1))

    async def offer(
        self, *, room_metadata: str = "", dispatch_metadata: str = ""
    ) -> agent.AvailabilityResponse:
        """Offer a job to the connected worker, and wait for its answer."""
        await until(lambda: self._sockets, "a connected worker")
        (answer,) = await self.offer_all(
            [a_job(room_metadata=room_metadata, dispatch_metadata=dispatch_metadata)]
        )
        return answer.response

    async def offer_all(self, jobs: Iterable[agent.Job]) -> list[Answer]:
        """Offer jobs all together; the clock of each starts with the first."""
        messages = [
            (job, agent.ServerMessage(availability=agent.AvailabilityRequest(job=job)))
            for job in jobs
        ]
        serialized = [(job, message.SerializeToString()) for job, message in messages]
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        answers = []
        for job, data in serialized:
            self._jobs[job.id] = job
            future: asyncio.Future[Answer] = loop.create_future()
            self._asked[job.id] = (began, future)
            answers.append(future)
            await self._sockets[-1].send_bytes(data)
        return await asyncio.wait_for(asyncio.gather(*answers), DEADLINE_S)

    async def _call(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        self.calls[method] += 1
        if method in self.failing:
            return web.json_response(self.error, status=500)
        if method in self.hanging:
            await asyncio.Event().wait()
        body = await request.read()
        if method == "CreateRoom":
            return _answer(self._made(room.CreateRoomRequest.FromString(body).name))
        if method == "UpdateRoomMetadata":
            update = room.UpdateRoomMetadataRequest.FromString(body)
            if (found := self._room(update.room)) is None:
                return web.json_response({"code": "not_found", "msg": "no room"}, status=404)
            found.metadata = update.metadata
            return _answer(found)
        asks = room.ListParticipantsRequest.FromString(body)  # All name a room so.
        waits = self._room(asks.room) is not None
        user = models.ParticipantInfo(identity="user", joined_at=1)
        asked = agent_dispatch.AgentDispatch(
            id="AD_fake", state=agent_dispatch.AgentDispatchState(created_at=1)
        )
        answer: Message = {
            "ListRooms": room.ListRoomsResponse(rooms=self.rooms),
            "ListParticipants": room.ListParticipantsResponse(participants=[user] * waits),
            "ListDispatch": agent_dispatch.ListAgentDispatchResponse(agent_dispatches=[asked]),
        }[method]
        if method == "ListRooms":
            asyncio.get_running_loop().call_soon(self.listed.set)
        return _answer(answer)

    def _room(self, name: str) -> models.Room | None:
        return next((each for each in self.rooms if each.name == name), None)

    def _made(self, name: str) -> models.Room:
        if (found := self._room(name)) is None:
            found = models.Room(name=name, sid=f"RM_{name}")
            self.rooms.append(found)
        return found

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        if self.status is not None:
            return web.Response(status=self.status)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            now = time.perf_counter()
            if message.type is WSMsgType.BINARY:
                await self._on_message(socket, agent.WorkerMessage.FromString(message.data), now)
        return socket

    async def _on_message(
        self, socket: web.WebSocketResponse, message: agent.WorkerMessage, now: float
    ) -> None:
        kind = message.WhichOneof("message")
        if kind == "register":
            await self._register(socket, message.register, now)
        elif kind == "availability":
            await self._take(socket, message.availability, now)

    async def _register(
        self, socket: web.WebSocketResponse, asks: agent.RegisterWorkerRequest, now: float
    ) -> None:
        self.registrations.append(asks)
        if self.refuses:
            await socket.close()
            return
        info = models.ServerInfo(version=SERVER_VERSION, protocol=17, edition=self.edition)
        response = agent.RegisterWorkerResponse(worker_id="AW_fake", server_info=info)
        await socket.send_bytes(agent.ServerMessage(register=response).SerializeToString())
        self.registered_at.append(now)
        self._sockets.append(socket)

    async def _take(
        self, socket: web.WebSocketResponse, response: agent.AvailabilityResponse, now: float
    ) -> None:
        self.answers[response.job_id].append(response)
        began, future = self._asked[response.job_id]
        if not future.done():
            future.set_result(Answer(response, now - began))
        if response.available and self.assigns:
            job = self._jobs[response.job_id]
            assignment = agent.JobAssignment(job=job, token="no room behind this")  # noqa: S106
            await socket.send_bytes(agent.ServerMessage(assignment=assignment).SerializeToString())


def _answer(message: Message) -> web.Response:
    return web.Response(body=message.SerializeToString(), content_type="application/protobuf")


def a_job(*, room_metadata: str = "", dispatch_metadata: str = "") -> agent.Job:
    """A job for a room that does not exist."""
    name = uuid4().hex
    return agent.Job(
        id=f"AJ_{name}",
        dispatch_id=f"AD_{name}",
        type=agent.JobType.JT_ROOM,
        room=models.Room(sid=f"RM_{name}", name=name, metadata=room_metadata),
        metadata=dispatch_metadata,
    )
