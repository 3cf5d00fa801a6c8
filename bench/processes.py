"""Worker processes: started alike, measured through `/proc`, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import psutil

from tests.support.process import environment
from tests.support.waiting import until

from .stand_in import RegisteredWorker, StandIn

ROOT: Final = Path(__file__).resolve().parent.parent
REGISTRATION_DEADLINE_S: Final = 60.0

CREDENTIALS: Final = {
    "LIVEKIT_API_KEY": "benchmark",
    "LIVEKIT_API_SECRET": "only-for-the-benchmark-" + 32 * "x",
    "OPENAI_API_KEY": "unused",
}


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
    {"AGENT_MODELS": "openai", "AGENT_HEALTH_PORT": "0", "AGENT_STATUS_PORT": "0"}
    | {"AGENT_MAX_SESSIONS": "1000"},
)
STOCK: Final = Side("stock", ROOT / "bench" / "stock.py", {})


@dataclass(frozen=True)
class Memory:
    """The memory of one process in MiB: resident, and with shared pages counted by share."""

    rss: float
    pss: float


class WorkerProcess:
    """A worker's main process, and through it all others of that worker."""

    def __init__(
        self, side: Side, process: subprocess.Popen[bytes], log: IO[bytes], started_at: float
    ) -> None:
        self.side = side
        self.started_at = started_at
        self._process = process
        self._log = log

    @classmethod
    @contextmanager
    def running(cls, side: Side, url: str) -> Iterator[WorkerProcess]:
        """Start a worker, and end it with all its descendants, whatever happens."""
        # Logs go to a file, not a pipe: reading them here would compete with measuring.
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
            # What is killed cannot remove its own temporary files.
            env = environment(LIVEKIT_URL=url, TMPDIR=folder, **CREDENTIALS, **side.env)
            started_at = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, str(side.script), "start"],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield cls(side, process, log, started_at)
            finally:
                # The group outlives its leader, so it is also right for one that has crashed.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    async def registered(self, stand_in: StandIn) -> RegisteredWorker:
        """Wait until this worker has registered, or fail with its log."""
        registration = asyncio.create_task(stand_in.worker())
        try:
            await until(
                lambda: registration.done() or self._process.poll() is not None,
                f"the {self.side.name} worker to register",
                REGISTRATION_DEADLINE_S,
            )
            if registration.done():
                return registration.result()
        except TimeoutError:
            pass
        finally:
            registration.cancel()
        raise RuntimeError(f"the {self.side.name} worker did not register:\n{self._output()}")

    def process(self) -> psutil.Process:
        """The main process."""
        return psutil.Process(self._process.pid)

    def stop(self) -> None:
        """Send the stop signal."""
        self._process.terminate()

    def main_memory(self) -> Memory:
        """The memory of the main process."""
        return _memory(self._process.pid)

    def job_memories(self) -> list[Memory]:
        """The memory of each idle job process: the children of the fork server."""
        children = psutil.Process(self._process.pid).children()
        found = [_memory(job.pid) for child in children for job in child.children()]
        if not found:
            raise RuntimeError(f"the {self.side.name} worker has no idle job:\n{self._output()}")
        return found

    def total_pss(self) -> float:
        """What the worker costs the machine: the memory of all its processes together."""
        main = psutil.Process(self._process.pid)
        return sum(_memory(p.pid).pss for p in [main, *main.children(recursive=True)])

    def _output(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


def _memory(pid: int) -> Memory:
    folder = Path("/proc") / str(pid)
    return Memory(
        rss=_mebibytes(folder / "status", "VmRSS:"), pss=_mebibytes(folder / "smaps_rollup", "Pss:")
    )


def _mebibytes(file: Path, field: str) -> float:
    line = next(line for line in file.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
