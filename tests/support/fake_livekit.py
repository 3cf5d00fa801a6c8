"""A fake LiveKit that speaks the worker protocol, for faults a real server makes not on demand.

It proves nothing about dispatch: what a server does with an answer is tested on a real one.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from uuid import uuid4

from aiohttp import WSMsgType, web
from livekit.protocol import agent, agent_dispatch, models, room

from .waiting import until


class FakeLiveKit:
    """The server's side of the worker WebSocket, and of the calls that adoption makes.

    Attributes:
        registrations: what workers registered with.
        answers: for each job id, the answers that came.
        assigns: whether an accepted job is assigned; the room it names does not exist.
        refuses: whether the socket is closed instead of confirming a registration.
        edition: what the server says it is.
        calls: how often each method of the API was called.
        failing: the methods that answer with an error.
        hanging: the methods that do not answer.
        waiting: names of rooms in which a user waits for an agent.
    """

    def __init__(self) -> None:
        self.registrations: list[agent.RegisterWorkerRequest] = []
        self.answers: defaultdict[str, list[agent.AvailabilityResponse]] = defaultdict(list)
        self.assigns = False
        self.refuses = False
        self.edition = models.ServerInfo.Edition.Standard
        self.calls: Counter[str] = Counter()
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.waiting: list[str] = []
        self.connections = 0
        self._sockets: list[web.WebSocketResponse] = []
        self._jobs: dict[str, agent.Job] = {}
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self) -> FakeLiveKit:
        application = web.Application()
        application.router.add_get("/agent", self._serve)
        application.router.add_post("/twirp/{service}/{method}", self._call)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        await self.disconnect()
        if self._runner is not None:
            await self._runner.cleanup()

    async def disconnect(self) -> None:
        """Cut the connections of all workers."""
        for socket in self._sockets:
            await socket.close()
        self._sockets.clear()

    @property
    def port(self) -> int:
        return self._port

    @property
    def credentials(self) -> dict[str, str]:
        return {
            "LIVEKIT_URL": f"ws://127.0.0.1:{self._port}",
            "LIVEKIT_API_KEY": "fake-key",
            "LIVEKIT_API_SECRET": "fake-secret-" + 32 * "x",
        }

    async def offer(
        self, *, room_metadata: str = "", dispatch_metadata: str = ""
    ) -> agent.AvailabilityResponse:
        """Offer a job to the connected worker and wait for its first answer."""
        name = uuid4().hex
        job = agent.Job(
            id=f"AJ_{name}",
            dispatch_id=f"AD_{name}",
            type=agent.JobType.JT_ROOM,
            room=models.Room(sid=f"RM_{name}", name=name, metadata=room_metadata),
            metadata=dispatch_metadata,
        )
        self._jobs[job.id] = job
        await until(lambda: self._sockets, "a connected worker")
        request = agent.ServerMessage(availability=agent.AvailabilityRequest(job=job))
        await self._sockets[-1].send_bytes(request.SerializeToString())
        return (await until(lambda: self.answers[job.id], f"an answer to job {job.id}"))[0]

    async def _call(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        self.calls[method] += 1
        if method in self.failing:
            return web.json_response({"code": "internal", "msg": "a fault"}, status=500)
        if method in self.hanging:
            await asyncio.Event().wait()
        user = models.ParticipantInfo(identity="user", joined_at=1)
        asked = agent_dispatch.AgentDispatch(
            id="AD_fake", state=agent_dispatch.AgentDispatchState(created_at=1)
        )
        rooms = [
            models.Room(name=name, sid=f"RM_{name}", num_participants=1) for name in self.waiting
        ]
        answer = {
            "ListRooms": room.ListRoomsResponse(rooms=rooms),
            "ListParticipants": room.ListParticipantsResponse(participants=[user]),
            "ListDispatch": agent_dispatch.ListAgentDispatchResponse(agent_dispatches=[asked]),
        }[method]
        return web.Response(body=answer.SerializeToString(), content_type="application/protobuf")

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        self.connections += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                continue
            await self._on_message(socket, agent.WorkerMessage.FromString(message.data))
        return socket

    async def _on_message(
        self, socket: web.WebSocketResponse, message: agent.WorkerMessage
    ) -> None:
        kind = message.WhichOneof("message")
        if kind == "register":
            self.registrations.append(message.register)
            if self.refuses:
                await socket.close()
                return
            info = models.ServerInfo(version="1.13.5", protocol=17, edition=self.edition)
            response = agent.RegisterWorkerResponse(worker_id="AW_fake", server_info=info)
            await socket.send_bytes(agent.ServerMessage(register=response).SerializeToString())
            self._sockets.append(socket)
        elif kind == "availability":
            self.answers[message.availability.job_id].append(message.availability)
            if message.availability.available and self.assigns:
                job = self._jobs[message.availability.job_id]
                assignment = agent.JobAssignment(job=job, token="no room behind this")  # noqa: S106
                await socket.send_bytes(
                    agent.ServerMessage(assignment=assignment).SerializeToString()
                )
