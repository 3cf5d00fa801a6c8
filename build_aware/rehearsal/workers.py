"""Worker processes: how they start, are stopped and end, as the operating system sees it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from build_aware.rehearsal.relay import Passage, relay
from build_aware.rehearsal.scenario import Stop
from build_aware.rehearsal.seen import WorkerSeen
from build_aware.testbed import Process, Processes, StartError
from build_aware.testbed.livekit_server import AGENT_NAME, LiveKitServer
from build_aware.testbed.proxy import Proxy
from build_aware.testbed.worker import READY_S, start_worker

ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder of the agent that is rehearsed."""

SECOND_SIGNAL_S: Final = 1.0
"""From the first to the second SIGTERM of the way `twice`."""

PACKAGES: Final = Path(__file__).parents[2]
"""Where `build_aware` is, for contestants that are part of it."""

EATER: Final = Path(__file__).parent / "eaten"
"""The folder whose `sitecustomize.py` eats the stop signal."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A worker that is rehearsed.

    Attributes:
        name: its name in reports.
        arguments: the arguments of Python that start it.
        answers: whether its agents name their build when they are asked; else the attributes of
            the agent that is there tell it.
    """

    name: str
    arguments: tuple[str, ...]
    answers: bool = True


OURS: Final = "ours"
"""The name of the agent whose command is run."""

CONTESTANTS: Final = {
    contestant.name: contestant
    for contestant in (
        Contestant("stock", ("-m", "build_aware.rehearsal.contestants.stock", "start")),
        Contestant("naive", ("-m", "build_aware.rehearsal.contestants.naive", "start")),
        Contestant("naive-false", ("-m", "build_aware.rehearsal.contestants.naive_false", "start")),
    )
}
"""By name, in the order of `--all`."""


def ours(file: Path, *, answers: bool) -> Contestant:
    """The agent that `file` begins."""
    return Contestant(OURS, (str(file.resolve()), "start"), answers)


def contestant(name: str, *, answers: bool) -> Contestant:
    """The contestant of this name, or the one in this file.

    Args:
        name: a name of `CONTESTANTS`, or the path of a Python file.
        answers: whether the agents of that file name their build when they are asked.

    Raises:
        StartError: there is no such name or file.
    """
    if name in CONTESTANTS:
        return CONTESTANTS[name]
    if name.endswith(".py"):
        file = Path(name).resolve()
        if file.is_file():
            return Contestant(file.stem, (str(file), "start"), answers)
    raise StartError(
        f"--worker {name!a}: expected {OURS}, {', '.join(CONTESTANTS)}, or the path of a Python "
        "file that `python FILE start` starts"
    )


class Worker:
    """One worker process behind its own door to the server.

    Attributes:
        name: its name in reports.
        build: the build that it is.
        process: its main process.
        door: the proxy through which it reaches the server.
    """

    def __init__(
        self,
        name: str,
        build: str,
        process: Process,
        door: Proxy,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.build = build
        self.process = process
        self.door = door
        self.started_s = clock()
        self.stop_s: float | None = None
        self.crashed_s: float | None = None
        self.exited_s: float | None = None
        self.gave_up_s: float | None = None
        self._clock = clock
        self._ready = asyncio.Event()
        self._ready_s: float | None = None
        self._waiting = asyncio.create_task(self._wait())
        self._second: asyncio.TimerHandle | None = None

    @classmethod
    async def start(
        cls,
        name: str,
        build: str,
        contestant: Contestant,
        *,
        server: LiveKitServer,
        started: Processes,
        passages: list[Passage],
        clock: Callable[[], float],
        eats_sigterm: bool,
    ) -> Worker:
        """Start a worker of `build`."""
        worker: Worker

        def registered() -> None:
            worker._is_ready()

        door = relay(name, server.port, clock=clock, on_registered=registered, passages=passages)
        await door.start()
        path = [str(EATER)] if eats_sigterm else []
        env = {
            "LIVEKIT_AGENT_NAME": AGENT_NAME,
            # Its code may name it, too; this wins over that, as in simulations of LiveKit's.
            "LIVEKIT_AGENT_NAME_OVERRIDE": AGENT_NAME,
            "AGENT_BUILD_ID": build,
            "AGENT_MAX_SESSIONS": "1000",
            "PYTHONPATH": ":".join([*path, str(PACKAGES)]),
        } | ({"REHEARSAL_EATS_SIGTERM": "1"} if eats_sigterm else {})
        process = await start_worker(
            started,
            server.credentials | {"LIVEKIT_URL": door.url},
            command=contestant.arguments,
            folder=Path.cwd(),
            name=name,
            registered=False,  # Its door tells.
            env=env,
        )
        worker = cls(name, build, process, door, clock)
        return worker

    async def ready(self) -> None:
        """Wait until livekit-server has confirmed the registration.

        Raises:
            StartError: it did not in time, or the worker has ended; with its log.
        """
        waits = [asyncio.create_task(self._ready.wait()), self._waiting]
        await asyncio.wait(waits, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        waits[0].cancel()
        if self._ready_s is None:
            found = "ended" if self.exited_s is not None else f"took over {READY_S:g} s"
            raise StartError(
                f"the worker {self.name} {found} before it registered:\n{self.process.tail()}"
            )

    @property
    def running(self) -> bool:
        """Whether the main process still runs."""
        return self.exited_s is None

    def stop(self, way: Stop) -> None:
        """Tell it to stop, as the deploy does."""
        if not self.running:
            return
        self.stop_s = self._clock()
        if way == "group":
            self.process.send_to_group()
        else:
            self._terminate()
        if way == "twice":
            loop = asyncio.get_running_loop()
            self._second = loop.call_later(SECOND_SIGNAL_S, self._terminate)

    def crash(self) -> None:
        """Kill its main process, without a warning. What its other processes do is up to them."""
        self.crashed_s = self._clock()
        self.process.send(signal.SIGKILL)

    def give_up(self) -> None:
        """Kill it because it does not exit."""
        if self.running:
            self.gave_up_s = self._clock()
            self.process.kill_family()

    async def exited(self, timeout_s: float) -> bool:
        """Wait for the end of the main process, and tell whether it came."""
        await asyncio.wait({self._waiting}, timeout=timeout_s)
        return not self.running

    def seen(self) -> WorkerSeen:
        """What was seen of it so far."""
        return WorkerSeen(
            name=self.name,
            build=self.build,
            started_s=self.started_s,
            ready_s=self._ready_s,
            stop_s=self.stop_s,
            crashed_s=self.crashed_s,
            exited_s=self.exited_s,
            gave_up_s=self.gave_up_s,
        )

    async def close(self) -> None:
        """Forget it: its processes end with the others of the rehearsal."""
        if self._second is not None:
            self._second.cancel()
        self._waiting.cancel()
        await self.door.stop()

    def _is_ready(self) -> None:
        if self._ready_s is None:
            self._ready_s = self._clock()
        self._ready.set()

    def _terminate(self) -> None:
        self.process.send()

    async def _wait(self) -> None:
        await self.process.exited()
        self.exited_s = self._clock()
