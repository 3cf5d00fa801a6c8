"""The stage: runs a scenario with one contestant, and hands over what was seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, TypeAlias

from livekit import rtc

from build_aware.rehearsal.relay import Passage
from build_aware.rehearsal.scenario import Crash, Deploy, Options, Scenario, Session
from build_aware.rehearsal.seen import Seen, SessionSeen, Visit
from build_aware.rehearsal.users import Guest, remark
from build_aware.rehearsal.workers import Contestant, Worker
from build_aware.testbed import Processes, StartError
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.user import Sighting

_POLL_S: Final = 0.1

Tell: TypeAlias = Callable[[float, str, int], None]


class Stage:
    """One run of one contestant.

    Args:
        options: how the deploys are done.
        scenario: what happens when.
        contestant: whose workers they are.
        started: where processes are started.
        folder: for logs and configuration.
        tell: told what happens: the time, a line, and how many sessions are over.
    """

    def __init__(
        self,
        options: Options,
        scenario: Scenario,
        contestant: Contestant,
        *,
        started: Processes,
        folder: Path,
        tell: Tell,
    ) -> None:
        self._options = options
        self._scenario = scenario
        self._contestant = contestant
        self._started = started
        self._folder = folder
        self._tell = tell
        self.users_gone = asyncio.Event()
        """Set when all sessions are over and all deploys done: only old workers are left."""
        self._zero = time.monotonic()
        self._began_s = 0.0
        self._target = scenario.first_build
        self._last_is_up = asyncio.Event()
        self._workers: list[Worker] = []
        self._passages: list[Passage] = []
        self._users: dict[str, Guest] = {}
        self._server: LiveKitServer
        self._sessions: list[SessionSeen] = []
        self._targets: list[tuple[float, str]] = []
        self._stops: list[tuple[float, str]] = []

    async def run(self) -> Seen:
        """Run the scenario from the first worker to the last, and tell what was seen.

        Raises:
            StartError: the server or a worker does not start, or a user cannot join.
        """
        self._zero = time.monotonic()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._started.close)
            self._server = await LiveKitServer.start(
                self._started, self._folder, logging={"level": "warn", "json": True}
            )
            stack.push_async_callback(self._close_workers)
            try:
                await self._perform()
            except BaseExceptionGroup as group:
                raise first_error(group) from group
            return Seen(
                contestant=self._contestant.name,
                sessions=tuple(sorted(self._sessions, key=lambda session: session.number)),
                workers=tuple(worker.seen() for worker in self._workers),
                targets=tuple(self._targets),
                stops=tuple(self._stops),
                end_s=self._clock(),
            )

    async def _perform(self) -> None:
        self._switch(self._scenario.first_build)
        await self._start_workers(self._scenario.first_build, self._options.workers)
        self._began_s = self._clock()
        async with asyncio.TaskGroup() as leaving:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._deploy_all(leaving))
                if self._scenario.crash is not None:
                    group.create_task(self._crash(self._scenario.crash))
                for session in self._scenario.sessions:
                    group.create_task(self._session(session))
            self.users_gone.set()

    # Deploys

    async def _deploy_all(self, leaving: asyncio.TaskGroup) -> None:
        for deploy in self._scenario.deploys:
            await self._until(deploy.at_s)
            for worker in await self._deploy(deploy):
                leaving.create_task(self._see_off(worker))

    async def _deploy(self, deploy: Deploy) -> list[Worker]:
        """Go on to the next build, and return the workers that were told to stop."""
        if self._options.target_first:
            self._switch(deploy.build)
        old = [worker for worker in self._workers if worker.stop_s is None and worker.running]
        await self._start_workers(deploy.build, self._options.workers)
        if not self._options.target_first:
            self._switch(deploy.build)
        if deploy is self._scenario.deploys[-1]:
            self._last_is_up.set()
        await asyncio.sleep(self._options.overlap_s)
        self._say(f"{old[0].build if old else 'nothing'}: told to stop")
        for build in {worker.build for worker in old}:
            self._stops.append((self._clock(), build))
        for worker in old:
            worker.stop(self._options.stop)
        return old

    def _switch(self, build: str) -> None:
        self._target = build
        self._targets.append((self._clock(), build))
        self._say(f"{build}: is the target")

    async def _start_workers(self, build: str, count: int) -> None:
        self._say(f"{build}: {count} starting")
        first = not self._workers
        new = [await self._start_worker(build, wait=not first) for _ in range(count)]
        if first:
            await asyncio.gather(*(worker.ready() for worker in new))
        self._say(f"{build}: {count} ready")

    async def _start_worker(self, build: str, *, wait: bool) -> Worker:
        number = sum(worker.build == build for worker in self._workers) + 1
        worker = await Worker.start(
            f"{build}.{number}",
            build,
            self._contestant,
            server=self._server,
            started=self._started,
            passages=self._passages,
            clock=self._clock,
            eats_sigterm=self._options.stop == "eaten",
        )
        self._workers.append(worker)
        if wait:
            # One after the other, as a rolling deploy does: starting takes all the CPU it gets,
            # and here sessions are on the same machine.
            await worker.ready()
        return worker

    async def _see_off(self, worker: Worker) -> None:
        """Wait for the exit of an old worker, but not for ever."""
        alone_since_s = self._clock()
        while not await worker.exited(_POLL_S):
            if self._serves(worker):
                alone_since_s = self._clock()
            elif worker.gave_up_s is None and self._clock() - alone_since_s > self._options.grace_s:
                self._say(f"{worker.name}: does not exit, and is killed")
                worker.give_up()

    async def _crash(self, crash: Crash) -> None:
        """Kill a worker of the last build that serves a user, and start another in its place."""
        await self._last_is_up.wait()
        await asyncio.sleep(crash.after_s)
        build = self._scenario.builds[-1]
        while True:
            up = [w for w in self._workers if w.build == build and w.running]
            serving = [worker for worker in up if self._serves(worker)]
            if serving or len(self._sessions) == len(self._scenario.sessions):
                break
            await asyncio.sleep(_POLL_S)
        if not (serving or up):
            return
        candidates = serving or up
        victim = candidates[crash.pick % len(candidates)]
        self._say(f"{victim.name}: crashes")
        victim.crash()
        await self._start_workers(build, 1)

    def _serves(self, worker: Worker) -> bool:
        """Whether a user talks to it, as far as that user can tell."""
        return any(
            passage.worker == worker.name
            and (user := self._users.get(passage.room)) is not None
            and passage.identity in user.served_by
            for passage in self._passages
        )

    # Sessions

    async def _session(self, session: Session) -> None:
        await self._until(session.at_s)
        room = f"session-{session.number}"
        target = self._target if session.targeted else None
        asked_s = self._clock()
        await self._server.create_room(room, target)
        user = self._users[room] = Guest(
            self._server,
            room,
            clock=self._clock,
            patience_s=self._options.patience_s,
            answers=self._contestant.answers,
        )
        try:
            await user.live(session.length_s)
        except rtc.ConnectError as error:
            raise StartError(f"a user could not join {room}: {error}") from error
        finally:
            del self._users[room]
        self._sessions.append(
            SessionSeen(
                number=session.number,
                target=target,
                asked_s=asked_s,
                left_s=user.left_s or self._clock(),
                unanswered_s=user.unanswered_s,
                visits=self._visits(room, user),
            )
        )
        self._say("")

    def _visits(self, room: str, user: Guest) -> tuple[Visit, ...]:
        """Put together what the user saw of the agents and what their connections show."""
        passages: dict[str, list[Passage]] = {identity: [] for identity in user.sightings}
        for passage in self._passages:
            if passage.room == room:
                passages.setdefault(passage.identity, []).append(passage)
        visits = [
            visit(identity, user.sightings.get(identity), found)
            for identity, found in passages.items()
        ]
        return tuple(sorted(visits, key=lambda visit: visit.from_s))

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(self._began_s + at_s - self._clock(), 0))

    def _clock(self) -> float:
        return time.monotonic() - self._zero

    def _say(self, line: str) -> None:
        self._tell(self._clock(), line, len(self._sessions))

    async def _close_workers(self) -> None:
        for worker in self._workers:
            await worker.close()


def visit(identity: str, sighting: Sighting | None, passages: Sequence[Passage]) -> Visit:
    """One agent's visit, from what a user saw of it and from its connections to the room.

    It came when its first connection did: users are told up to 3 seconds late. It left when the
    user saw that, or when its last connection ended: a killed agent still looks present for a
    while. At least one of both must be there.
    """
    came = [passage.from_s for passage in passages]
    left: list[float] = []
    if passages and all(passage.to_s is not None for passage in passages):
        left.append(max(passage.to_s or 0.0 for passage in passages))
    if sighting is not None:
        came.append(sighting.from_s)
        if sighting.to_s is not None:
            left.append(sighting.to_s)
    return Visit(
        identity=identity,
        worker=passages[0].worker if passages else None,
        from_s=min(came),
        to_s=min(left, default=None),
        heard=tuple(map(remark, sighting.heard)) if sighting else (),
        published=sighting.published if sighting else False,
    )


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group that is none itself, one of ours if there is one."""
    ours, others = group.split(StartError)
    found: BaseException = ours or others or group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
