"""Does what goes wrong."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import psutil

from bench.soak.fleet import Fleet
from bench.soak.guest import Guest
from bench.soak.plan import Fault, Kind
from bench.soak.seen import FaultSeen, Span
from build_aware.rehearsal.relay import Passage
from build_aware.rehearsal.scenario import Stop
from build_aware.rehearsal.workers import Worker
from build_aware.testbed import Processes, until
from build_aware.testbed.environ import environment
from build_aware.testbed.family import kill
from build_aware.testbed.livekit_server import LiveKitServer

VICTIM_S: Final = 8.0
"""How long a fault waits for a session that it can hit."""

HOGS: Final = 2
"""Busy loops at a time."""

Session: TypeAlias = tuple[Worker, str]
"""A worker, and the room of a session that talks to it."""

DEPLOYS: Final[Mapping[Kind, Stop]] = {
    "deploy": "sigterm",
    "deploy-group": "group",
    "deploy-twice": "twice",
}

ANSWERS: Final[Mapping[Kind, int]] = {"answer-401": 401, "answer-503": 503}


class Faults:
    """Does faults, one at a time.

    Args:
        fleet: the workers.
        server: the server.
        started: where busy loops are started.
        passages: the connections of agents.
        here: the guests that are there, by room.
        clock: the time in seconds.
        say: told what happens.

    Attributes:
        outages: when the server was down.
    """

    def __init__(
        self,
        fleet: Fleet,
        server: LiveKitServer,
        started: Processes,
        *,
        passages: Sequence[Passage],
        here: Mapping[str, Guest],
        clock: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self.outages: list[Span] = []
        self._fleet = fleet
        self._server = server
        self._started = started
        self._passages = passages
        self._here = here
        self._clock = clock
        self._say = say

    async def do(self, fault: Fault) -> FaultSeen:
        """Do it, and tell what was done. Those that hit somebody hit workers of the target."""
        from_s, hit = self._clock(), None
        if fault.kind in DEPLOYS:
            self._say(f"fault {fault.number}: {fault.kind}")
            await self._fleet.deploy(DEPLOYS[fault.kind])
        elif fault.kind == "kill-server":
            self._say(f"fault {fault.number}: {fault.kind} for {fault.seconds:g} s")
            await self._kill_server(fault.seconds)
        elif fault.kind == "hog":
            self._say(f"fault {fault.number}: {fault.kind} for {fault.seconds:g} s")
            await self._hog(fault.seconds)
        else:
            session = await self._victim(fault.pick)
            if session is None:
                self._say(f"fault {fault.number}: {fault.kind} skipped, nobody is served")
                why = f"nobody was served within {VICTIM_S:g} s"
                return FaultSeen(fault.number, fault.kind, from_s, self._clock(), skipped=why)
            from_s = self._clock()
            worker, room = session
            hit = room if fault.kind in {"kill-job", "stop-job"} else worker.name
            self._say(f"fault {fault.number}: {fault.kind} hits {worker.name}, {room}")
            await self._hit(fault, worker, room)
        return FaultSeen(fault.number, fault.kind, from_s, self._clock(), hit)

    async def _hit(self, fault: Fault, worker: Worker, room: str) -> None:
        if fault.kind == "kill-worker":
            worker.crash()
        elif fault.kind == "kill-job":
            kill(_job(worker, room))
        elif fault.kind == "stop-worker":
            await _stopped(psutil.Process(worker.process.pid), fault.seconds)
        elif fault.kind == "stop-job":
            await _stopped(_job(worker, room), fault.seconds)
        else:
            with worker.door.answering(ANSWERS[fault.kind]):
                worker.door.cut()
                await asyncio.sleep(fault.seconds)

    async def _victim(self, pick: int) -> Session | None:
        """A session of the target that somebody talks to."""
        try:
            found = await until(self._sessions, "a session", VICTIM_S)
        except TimeoutError:
            return None
        return found[pick % len(found)]

    def _sessions(self) -> list[Session]:
        workers = {worker.name: worker for worker in self._fleet.current}
        return [
            (workers[passage.worker], passage.room)
            for passage in self._passages
            if passage.worker in workers
            and passage.to_s is None
            and (guest := self._here.get(passage.room)) is not None
            and passage.identity in guest.served_by
        ]

    async def _kill_server(self, seconds: float) -> None:
        from_s = self._clock()
        await self._server.stop()
        await asyncio.sleep(seconds)
        await self._server.restart()
        self.outages.append(Span(from_s, self._clock()))

    async def _hog(self, seconds: float) -> None:
        loop = (sys.executable, "-c", "while True: pass")
        hogs = [
            await self._started.start(*loop, name="hog", env=environment()) for _ in range(HOGS)
        ]
        try:
            await asyncio.sleep(seconds)
        finally:
            for hog in hogs:
                hog.kill()


def _job(worker: Worker, room: str) -> psutil.Process:
    """The process of a worker's job in a room: which one that is, only the worker knows."""
    record = worker.process.find("session started", room=room)[-1]
    return psutil.Process(record["pid"])


async def _stopped(process: psutil.Process, seconds: float) -> None:
    process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        process.send_signal(signal.SIGCONT)
