"""Runs a plan, and hands over what was seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.soak import growth, leftovers, plan
from bench.soak.faults import Faults
from bench.soak.fleet import Fleet
from bench.soak.growth import Sample
from bench.soak.guest import Guest
from bench.soak.plan import Plan
from bench.soak.seen import FaultSeen, Leftover, Seen, UserSeen
from bench.soak.timetable import Timetable
from bench.soak.troubles import room_name
from bench.soak.visitor import Visitor
from build_aware.rehearsal.relay import Passage
from build_aware.rehearsal.stage import first_error
from build_aware.testbed import Processes, StartError
from build_aware.testbed.livekit_server import LiveKitServer

SETTLE_S: Final = 60.0
"""After the last user: LiveKit may take 20 s to notice that somebody is gone, an agent 5 s more,
and one that waits for a user who has left again before it came waits for 60 s."""

SPACE_S: Final = 10.0
"""From the end of a fault to the next one, at least."""

EXIT_S: Final = 30.0
"""How long workers may take to exit when nobody is left."""

_POLL_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run.

    Attributes:
        seen: what was seen.
        samples: what the steady worker took.
        logs: the files with the workers' output.
    """

    seen: Seen
    samples: list[Sample]
    logs: list[Path]


class Driver:
    """One run of a plan.

    Args:
        plan: what happens when.
        started: where processes are started.
        folder: for logs and configuration.
        tell: told what happens: the time and a line.
    """

    def __init__(
        self, plan: Plan, started: Processes, folder: Path, tell: Callable[[float, str], None]
    ) -> None:
        self._plan = plan
        self._started = started
        self._folder = folder
        self._tell = tell
        self._zero = time.monotonic()
        self._passages: list[Passage] = []
        self._here: dict[str, Guest] = {}
        self._users: list[UserSeen] = []
        self._absent: list[int] = []
        self._faults: list[FaultSeen] = []
        self._samples: list[Sample] = []

    async def run(self) -> Run:
        """Run it.

        Raises:
            StartError: something did not start that has nothing to do with the faults.
        """
        server = await LiveKitServer.start(
            self._started, self._folder, logging={"level": "warn", "json": True}
        )
        fleet = Fleet(
            server, self._started, passages=self._passages, clock=self._clock, say=self._say
        )
        try:
            return await self._perform(server, fleet)
        except BaseExceptionGroup as group:
            raise first_error(group) from group
        finally:
            await fleet.close()

    async def _perform(self, server: LiveKitServer, fleet: Fleet) -> Run:
        faults = Faults(
            fleet,
            server,
            self._started,
            passages=self._passages,
            here=self._here,
            clock=self._clock,
            say=self._say,
        )
        await fleet.begin()
        times = Timetable([fault.at_s for fault in self._plan.faults], self._clock)
        self._say("users begin to come")
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(growth.follow(fleet.steady.process, self._clock, self._samples)),
                group.create_task(fleet.supervise()),
            ]
            async with asyncio.TaskGroup() as happening:
                happening.create_task(self._do_faults(faults, times))
                for user in self._plan.users:
                    happening.create_task(self._user(user, times, server, fleet))
            for task in beside:
                task.cancel()
        end_s = self._clock()
        self._say("the last user is gone")
        left = await self._settled(server, fleet)
        return Run(
            seen=Seen(
                users=tuple(sorted(self._users, key=lambda user: user.number)),
                faults=tuple(self._faults),
                workers=tuple(worker.seen() for worker in fleet.workers),
                outages=tuple(faults.outages),
                leftovers=tuple(left),
                absent=tuple(sorted(self._absent)),
                end_s=end_s,
            ),
            samples=self._samples,
            logs=[worker.process.log for worker in fleet.workers],
        )

    async def _do_faults(self, faults: Faults, times: Timetable) -> None:
        for number, fault in enumerate(self._plan.faults):
            await times.fault(number)
            self._faults.append(await faults.do(fault))
            if fault is not self._plan.faults[-1]:
                await asyncio.sleep(SPACE_S)

    async def _user(
        self, user: plan.User, times: Timetable, server: LiveKitServer, fleet: Fleet
    ) -> None:
        await times.user(user.at_s)
        visitor = Visitor(
            user,
            server,
            target=fleet.target,
            clock=self._clock,
            passages=self._passages,
            here=self._here,
        )
        try:
            self._users.append(await visitor.come())
        except StartError as error:
            self._say(str(error))
            self._absent.append(user.number)

    async def _settled(self, server: LiveKitServer, fleet: Fleet) -> list[Leftover]:
        """Wait until all that should be is gone, and return what is not."""
        give_up_s = self._clock() + SETTLE_S
        while self._clock() < give_up_s:
            leaving = [w for w in fleet.workers if w.running and w.stop_s is not None]
            if not leaving and not await leftovers.agents(server):
                break
            await asyncio.sleep(_POLL_S)
        agents = await leftovers.agents(server)
        self._say("stopping all workers")
        fleet.stop_all()
        give_up_s = self._clock() + EXIT_S
        for worker in fleet.workers:
            await worker.exited(max(give_up_s - self._clock(), 0.0))
        names = [room_name(user.number) for user in self._plan.users]
        return [
            *agents,
            *leftovers.lingering([worker.seen() for worker in fleet.workers], self._passages),
            *await leftovers.orphans(fleet.workers),
            *await leftovers.dispatches(server, names),
        ]

    def _clock(self) -> float:
        return time.monotonic() - self._zero

    def _say(self, line: str) -> None:
        self._tell(self._clock(), line)
