"""What should be gone at the end of a soak, and is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Final

from livekit import api
from livekit.protocol.models import ParticipantInfo

from bench.soak.seen import Leftover
from build_aware.rehearsal.relay import Passage
from build_aware.rehearsal.seen import WorkerSeen
from build_aware.rehearsal.workers import Worker
from build_aware.testbed import until
from build_aware.testbed.family import command_line, marked
from build_aware.testbed.livekit_server import LiveKitServer

ORPHANS_S: Final = 10.0
"""How much longer than a worker its other processes may take to end, on a busy machine."""

GRACE_S: Final = 30.0
"""How long a worker may stay for nobody: LiveKit keeps a room for 20 s after its last user."""

_NO_SUCH_ROOM: Final = (api.TwirpErrorCode.NOT_FOUND, api.TwirpErrorCode.UNAVAILABLE)
"""What a server says of a room that is gone: it was not found, or no node answers for it."""

_AT_ONCE: Final = 20


def lingering(workers: Iterable[WorkerSeen], passages: Sequence[Passage]) -> list[Leftover]:
    """Workers that stayed for nobody after their stop, or did not exit at all."""
    found = []
    for worker in workers:
        if worker.stop_s is None or worker.crashed_s is not None:
            continue
        if worker.exited_s is None or worker.gave_up_s is not None:
            found.append(Leftover("worker", worker.name, "does not exit"))
            continue
        served = [p.to_s for p in passages if p.worker == worker.name and p.to_s is not None]
        alone_s = worker.exited_s - max([worker.stop_s, *served])
        if alone_s > GRACE_S:
            found.append(Leftover("worker", worker.name, f"stayed {alone_s:.0f} s for nobody"))
    return found


async def orphans(workers: Sequence[Worker]) -> list[Leftover]:
    """Processes of workers whose main process is gone, if they do not end soon as well."""

    def none() -> bool:
        return not any(marked(worker.process.mark) for worker in workers if not worker.running)

    with contextlib.suppress(TimeoutError):
        await until(none, "orphans to end", ORPHANS_S)
    return [
        Leftover("process", worker.name, " ".join(command_line(process))[-60:] or str(process.pid))
        for worker in workers
        if not worker.running
        for process in marked(worker.process.mark)
    ]


async def agents(server: LiveKitServer) -> list[Leftover]:
    """Agents in rooms, where no user is."""
    async with server.api() as client:
        rooms = (await client.room.list_rooms(api.ListRoomsRequest())).rooms
        return [
            Leftover("agent", room.name, f"{participant.identity} is still in the room")
            for room in rooms
            for participant in await _participants(client, room.name)
            if participant.kind == ParticipantInfo.Kind.AGENT
        ]


async def dispatches(server: LiveKitServer, names: Iterable[str]) -> list[Leftover]:
    """Dispatches of rooms that are gone."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def left(name: str) -> list[Leftover]:
        async with limit:
            try:
                found = await client.agent_dispatch.list_dispatch(name)
            except api.TwirpError as error:
                if error.code not in _NO_SUCH_ROOM:
                    raise
                return []
        return [Leftover("dispatch", name, f"{each.id} of a room that is gone") for each in found]

    async with server.api() as client:
        rooms = (await client.room.list_rooms(api.ListRoomsRequest())).rooms
        gone = sorted(set(names) - {room.name for room in rooms})
        return [each for found in await asyncio.gather(*map(left, gone)) for each in found]


async def _participants(client: api.LiveKitAPI, room: str) -> list[ParticipantInfo]:
    try:
        request = api.ListParticipantsRequest(room=room)
        return list((await client.room.list_participants(request)).participants)
    except api.TwirpError as error:
        if error.code not in _NO_SUCH_ROOM:
            raise
        return []  # It has just closed.
