"""A LiveKit stand-in: registers workers, offers them jobs, and times their answers.

It never assigns a job, so no session starts and nothing but the answer is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import WSMsgType, web
from livekit.protocol import agent, models, room

ANSWER_DEADLINE_S: Final = 30.0


@dataclass(frozen=True)
class Answer:
    """What a worker said to one offer.

    Attributes:
        seconds: from just before the offer was sent until the answer was here.
        available: whether the worker takes the job.
    """

    seconds: float
    available: bool


class RegisteredWorker:
    """A worker that is connected and can be offered jobs."""

    def __init__(self, socket: web.WebSocketResponse, registered_at: float) -> None:
        self.registered_at = registered_at
        self._socket = socket
        self._ids = (f"AJ_{number:06}" for number in itertools.count())
        self._asked: dict[str, tuple[float, asyncio.Future[Answer]]] = {}

    async def offer(self, count: int, metadata: str) -> list[Answer]:
        """Offer jobs all together; the clock of each starts with the first."""
        offers = {job_id: _offer(job_id, metadata) for job_id in itertools.islice(self._ids, count)}
        futures = [asyncio.get_running_loop().create_future() for _ in offers]
        started = time.perf_counter()
        for (job_id, message), future in zip(offers.items(), futures, strict=True):
            self._asked[job_id] = (started, future)
            await self._socket.send_bytes(message)
        return await asyncio.wait_for(asyncio.gather(*futures), ANSWER_DEADLINE_S)

    def answered(self, response: agent.AvailabilityResponse, now: float) -> None:
        """Note an answer that arrived."""
        started, future = self._asked.pop(response.job_id)
        future.set_result(Answer(now - started, response.available))


class StandIn:
    """The server side of LiveKit's agent protocol, as far as offers go."""

    def __init__(self, url: str, workers: asyncio.Queue[RegisteredWorker]) -> None:
        self.url = url
        self._workers = workers
        self.rooms: list[models.Room] = []
        """What a worker that adopts waiting rooms gets to see."""
        self.listed = asyncio.Event()
        """Set when the list of rooms is on its way to a worker."""

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[StandIn]:
        """Listen on a free port of the loopback interface."""
        workers: asyncio.Queue[RegisteredWorker] = asyncio.Queue()

        async def serve(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await _serve(socket, workers)
            return socket

        async def list_rooms(_: web.Request) -> web.Response:
            body = room.ListRoomsResponse(rooms=stand_in.rooms).SerializeToString()
            asyncio.get_running_loop().call_soon(stand_in.listed.set)
            return web.Response(body=body, content_type="application/protobuf")

        application = web.Application()
        application.router.add_get("/agent", serve)
        application.router.add_post("/twirp/livekit.RoomService/ListRooms", list_rooms)
        runner = web.AppRunner(application, shutdown_timeout=0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            stand_in = cls(f"ws://127.0.0.1:{runner.addresses[0][1]}", workers)
            yield stand_in
        finally:
            await runner.cleanup()

    async def worker(self) -> RegisteredWorker:
        """Wait for the next worker that registers."""
        return await self._workers.get()


async def _serve(socket: web.WebSocketResponse, workers: asyncio.Queue[RegisteredWorker]) -> None:
    worker: RegisteredWorker | None = None
    async for message in socket:
        now = time.perf_counter()
        if message.type is not WSMsgType.BINARY:
            continue
        said = agent.WorkerMessage.FromString(message.data)
        if said.HasField("register"):
            await socket.send_bytes(_welcome())
            worker = RegisteredWorker(socket, now)
            workers.put_nowait(worker)
        elif said.HasField("availability") and worker is not None:
            worker.answered(said.availability, now)


def _welcome() -> bytes:
    info = models.ServerInfo(version="0.0.0", protocol=15)
    response = agent.RegisterWorkerResponse(worker_id="AW_bench", server_info=info)
    return agent.ServerMessage(register=response).SerializeToString()


def _offer(job_id: str, metadata: str) -> bytes:
    asking = models.Room(sid=f"RM_{job_id}", name=f"room-{job_id}")
    job = agent.Job(id=job_id, type=agent.JobType.JT_ROOM, room=asking, metadata=metadata)
    request = agent.AvailabilityRequest(job=job)
    return agent.ServerMessage(availability=request).SerializeToString()
