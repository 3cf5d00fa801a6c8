"""The workers of a soak: two of the current build, old ones that leave, and a steady one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from bench.paths import ROOT
from bench.soak.plan import FIRST_BUILD, STEADY_BUILD
from build_aware.rehearsal.relay import Passage
from build_aware.rehearsal.scenario import Stop, build_name
from build_aware.rehearsal.workers import Worker, ours
from build_aware.testbed import Processes
from build_aware.testbed.livekit_server import LiveKitServer

AT_A_TIME: Final = 2
"""Workers of one build."""

OVERLAP_S: Final = 1.0
"""From the switch of the target to the stop of the old workers."""

_POLL_S: Final = 0.2


class Fleet:
    """Starts, replaces and stops workers.

    Args:
        server: where they register.
        started: where their processes are started.
        passages: where their agents' connections are noted.
        clock: the time in seconds.
        say: told what happens.

    Attributes:
        workers: all that were ever started.
        target: the build that the backend asks for.
    """

    def __init__(
        self,
        server: LiveKitServer,
        started: Processes,
        *,
        passages: list[Passage],
        clock: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self.workers: list[Worker] = []
        self.target = FIRST_BUILD
        self._server = server
        self._started = started
        self._passages = passages
        self._clock = clock
        self._say = say
        self._builds = 1

    @property
    def steady(self) -> Worker:
        """The worker that is exempt from deploys and kills."""
        return self.workers[0]

    @property
    def current(self) -> list[Worker]:
        """The running workers of the target that were not told to stop."""
        return [
            worker
            for worker in self.workers
            if worker.build == self.target and worker.running and worker.stop_s is None
        ]

    async def begin(self) -> None:
        """Start the first workers."""
        await self.start(STEADY_BUILD, 1)
        await self.start(FIRST_BUILD, AT_A_TIME)

    async def start(self, build: str, count: int) -> None:
        """Start workers one after the other: it takes all the CPU that they get."""
        for _ in range(count):
            worker = await self._spawn(build)
            await worker.ready()

    async def supervise(self) -> None:
        """Start another worker in the place of one that is gone without having been told to."""
        replaced: set[str] = set()
        while True:
            for worker in list(self.workers):
                if worker.running or worker.stop_s is not None or worker.name in replaced:
                    continue
                replaced.add(worker.name)
                if worker.build in {STEADY_BUILD, self.target}:
                    code = await worker.process.exit()
                    self._say(f"{worker.name} has ended with {code}, another one is started")
                    await self._spawn(worker.build)
            await asyncio.sleep(_POLL_S)

    async def deploy(self, way: Stop) -> None:
        """Go on to the next build: start its workers, target it, stop the old ones."""
        self._builds += 1
        build = build_name(self._builds)
        await self.start(build, AT_A_TIME)
        self.target = build
        await asyncio.sleep(OVERLAP_S)
        old = [
            worker
            for worker in self.workers
            if worker.build not in {STEADY_BUILD, build} and worker.running and not worker.stop_s
        ]
        self._say(f"{build} is the target; stopping {', '.join(worker.name for worker in old)}")
        for worker in old:
            worker.stop(way)

    def stop_all(self) -> None:
        """Tell all to stop that were not told yet."""
        for worker in self.workers:
            if worker.stop_s is None:
                worker.stop("sigterm")

    async def close(self) -> None:
        """Forget them: their processes end with the others of the soak."""
        for worker in self.workers:
            await worker.close()

    async def _spawn(self, build: str) -> Worker:
        number = sum(worker.build == build for worker in self.workers) + 1
        worker = await Worker.start(
            f"{build}.{number}",
            build,
            ours(ROOT / "agent.py", answers=True),
            server=self._server,
            started=self._started,
            passages=self._passages,
            clock=self._clock,
            eats_sigterm=False,
        )
        self.workers.append(worker)
        return worker
