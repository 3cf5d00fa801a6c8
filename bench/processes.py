"""Worker processes: started alike, measured through `/proc`, and never left behind."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.paths import ROOT
from build_aware.testbed import Process, Processes, StartError, until
from build_aware.testbed.fake_livekit import Answer, FakeLiveKit, a_job
from build_aware.testbed.worker import READY_S, start_worker


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two workers that are compared.

    Attributes:
        name: how it is called in messages.
        script: what is run, with the argument `start`.
        env: the settings that only this side has.
    """

    name: str
    script: Path
    env: Mapping[str, str]


OURS: Final = Side(
    "ours",
    ROOT / "agent.py",
    {"AGENT_MODELS": "openai", "AGENT_MAX_SESSIONS": "1000"},
)
STOCK: Final = Side("stock", ROOT / "bench" / "stock.py", {})


@dataclass(frozen=True)
class Memory:
    """The memory of one process in MiB: resident, and with shared pages counted by share."""

    rss: float
    pss: float


class WorkerProcess:
    """A worker's main process, and through it all others of that worker."""

    def __init__(self, side: Side, process: Process, server: FakeLiveKit) -> None:
        self.side = side
        self._process = process
        self._server = server

    @classmethod
    @asynccontextmanager
    async def running(cls, side: Side, server: FakeLiveKit) -> AsyncIterator[WorkerProcess]:
        """Start a worker and wait until it has registered; it ends with the context."""
        with tempfile.TemporaryDirectory() as folder:
            processes = Processes(Path(folder))
            try:
                process = await start_worker(
                    processes,
                    server.credentials,
                    command=(str(side.script), "start"),
                    folder=ROOT,
                    name=side.name,
                    registered=False,  # Its server knows when.
                    env={"OPENAI_API_KEY": "unused", **side.env},
                )
                await until(
                    lambda: server.registered_at or not process.running, "a registration", READY_S
                )
                if not process.running:
                    raise StartError(f"{process} did not register:\n{process.tail()}")
                yield cls(side, process, server)
            finally:
                await processes.close()

    @property
    def start_s(self) -> float:
        """From its start to its registration."""
        return self._server.registered_at[0] - self._process.started_at

    async def offer(self, count: int, metadata: str) -> list[Answer]:
        """Offer it jobs all together."""
        jobs = [a_job(dispatch_metadata=metadata) for _ in range(count)]
        return await self._server.offer_all(jobs)

    def process(self) -> psutil.Process:
        """The main process."""
        return psutil.Process(self._process.pid)

    def stop(self) -> None:
        """Send the stop signal."""
        self._process.send()

    def main_memory(self) -> Memory:
        """The memory of the main process."""
        return _memory(self._process.pid)

    def job_memories(self) -> list[Memory]:
        """The memory of each idle job process: the children of the fork server."""
        children = psutil.Process(self._process.pid).children()
        found = [_memory(job.pid) for child in children for job in child.children()]
        if not found:
            raise StartError(f"{self._process} has no idle job:\n{self._process.tail()}")
        return found

    def total_pss(self) -> float:
        """What the worker costs the machine: the memory of all its processes together."""
        main = psutil.Process(self._process.pid)
        return sum(_memory(p.pid).pss for p in [main, *main.children(recursive=True)])


def _memory(pid: int) -> Memory:
    folder = Path("/proc") / str(pid)
    return Memory(
        rss=_mebibytes(folder / "status", "VmRSS:"), pss=_mebibytes(folder / "smaps_rollup", "Pss:")
    )


def _mebibytes(file: Path, field: str) -> float:
    line = next(line for line in file.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
