"""Child processes: their output can be waited for, and none of them outlives the test bed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psutil

from build_aware.testbed import turns
from build_aware.testbed.family import MARK, kill, marked
from build_aware.testbed.waiting import DEADLINE_S, until

END_S: Final = 5.0
"""How long killed processes may take to be gone."""

_POLL_S: Final = 0.02


class Process:
    """A child process in a session and process group of its own; its output goes to a file.

    Attributes:
        name: what messages call it.
        mark: the value of `MARK` that it and its descendants have.
        log: the file with its output.
        started_at: when it was started, as `time.perf_counter` tells it.
        exited_at: when it was gone, in Unix time; None while it runs.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        *,
        name: str,
        mark: str,
        log: Path,
        started_at: float,
    ) -> None:
        self.name = name
        self.mark = mark
        self.log = log
        self.started_at = started_at
        self.exited_at: float | None = None
        self._process = process
        self._lines: list[str] = []
        self._records: list[dict[str, Any]] = []
        self._read_bytes = 0
        self._ending = asyncio.create_task(self._wait())

    @property
    def pid(self) -> int:
        """The id of the main process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the main process still runs."""
        return self.exited_at is None

    @property
    def text(self) -> list[str]:
        """The lines that it has written so far."""
        self._read()
        return self._lines

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return "\n".join(self.text)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines that are JSON objects, as log records are in production."""
        self._read()
        return self._records

    def find(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        """The log records whose message contains this, and that have these fields."""
        return [
            record
            for record in self.records
            if message in str(record.get("message", record.get("msg", "")))
            and all(record.get(key) == value for key, value in fields.items())
        ]

    async def logged(
        self, message: str, *, count: int = 1, deadline_s: float = DEADLINE_S, **fields: Any
    ) -> list[dict[str, Any]]:
        """Wait until `count` records with this message and these fields were logged."""

        def enough() -> list[dict[str, Any]] | None:
            ended = not self.running
            found = self.find(message, **fields)
            if len(found) < count and ended:
                raise AssertionError(f"{self} ended without {message!r}:\n{self.tail()}")
            return found if len(found) >= count else None

        try:
            return await until(enough, f"{count} x {message!r} {fields} from {self}", deadline_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.tail()}") from None

    async def said(self, text: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the output contains `text`, whatever its format."""
        try:
            await until(lambda: text in self.output, f"{text!r} from {self}", deadline_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.tail()}") from None

    async def exit(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for the end of the main process, and return its exit code."""
        if not await self.exited(deadline_s):
            raise TimeoutError(f"{self} still runs after {deadline_s} s\n{self.tail()}")
        assert self._process.returncode is not None  # noqa: S101 it has exited
        return self._process.returncode

    async def exited(self, within_s: float | None = None) -> bool:
        """Wait for the end of the main process, for ever if not told, and tell if it came."""
        await asyncio.wait({self._ending}, timeout=within_s)
        return not self.running

    def lasted_since(self, record: Mapping[str, Any]) -> float:
        """Seconds from a log record until the main process was gone."""
        assert self.exited_at is not None, f"{self} still runs"  # noqa: S101
        return self.exited_at - logged_at(record)

    def send(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Signal the main process."""
        if self.running:
            # Not asyncio's way: it would take the exit code that asyncio itself waits for.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def send_to_group(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Signal the whole process group, if there is anything left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def family(self) -> list[psutil.Process]:
        """The main process and all its descendants."""
        try:
            process = psutil.Process(self.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill_family(self) -> None:
        """Kill the process and all its descendants, as the end of a container does."""
        for process in self.family():
            kill(process)

    async def stop(self) -> None:
        """End the process and all that it started at once, whatever state they are in."""
        self.kill()
        await _end(self.mark)
        await self.exited(END_S)

    def kill(self) -> None:
        """Kill the main process and its group; the mark of some programs cannot be read.

        Redis writes its title over its environment.
        """
        if self.running:
            self.send_to_group(signal.SIGKILL)

    def tail(self, lines: int = 15) -> str:
        """Its last lines, none of them endless."""
        return "\n".join(line[:300] for line in self.text[-lines:])

    def _read(self) -> None:
        with self.log.open("rb") as file:
            file.seek(self._read_bytes)
            new = file.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(complete)
        for line in complete.decode(errors="replace").splitlines():
            self._lines.append(line)
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    self._records.append(record)

    async def _wait(self) -> None:
        await self._process.wait()
        self.exited_at = time.time()

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


class Processes:
    """Everything that one test bed has started, and all that this started in turn.

    Args:
        folder: where the output of the processes goes.
    """

    def __init__(self, folder: Path) -> None:
        self.mark = f"{os.environ.get(MARK, '')}/{uuid4().hex}"
        self._folder = folder
        # What is killed cannot remove its own temporary files. The name of a socket among them
        # must be short, so they are not below `folder`.
        self._temporary = tempfile.mkdtemp(prefix="testbed-")
        self._started: list[Process] = []
        self._numbers = itertools.count()

    async def start(
        self, *command: str, name: str, env: Mapping[str, str], cwd: Path | None = None
    ) -> Process:
        """Start a process.

        Args:
            command: the program and its arguments.
            name: what messages and its log file are called.
            env: its environment, usually from `environment`.
            cwd: its working directory.
        """
        number = next(self._numbers)  # Two may be started at the same time.
        mark = f"{self.mark}.{number}/"
        log = self._folder / f"{name}.log"
        if log.exists():
            log = self._folder / f"{name}-{number}.log"
        with log.open("wb") as output:
            started_at = time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=cwd,
                env=dict(env)
                | {MARK: mark, "TMPDIR": self._temporary, turns.VARIABLE: str(turns.folder())},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        started = Process(process, name=name, mark=mark, log=log, started_at=started_at)
        self._started.append(started)
        return started

    def alive(self) -> list[psutil.Process]:
        """Those that still run, orphans too: found by their mark and not by their parents."""
        return marked(self.mark)

    def end_all(self) -> None:
        """Kill all that is left, and wait until it is gone. To be called again at will."""
        give_up = time.monotonic() + END_S
        for started in self._started:
            started.kill()
        while (left := self.alive()) and time.monotonic() < give_up:
            for process in left:
                kill(process)
            # Not psutil's wait: it would take the exit codes that asyncio waits for.
            time.sleep(_POLL_S)
        shutil.rmtree(self._temporary, ignore_errors=True)

    async def close(self) -> None:
        """Kill all that is left, and take note of its end."""
        for process in self._started:
            process.kill()
        await _end(self.mark)
        for process in self._started:
            await process.exited(END_S)
        shutil.rmtree(self._temporary, ignore_errors=True)


async def _end(mark: str) -> None:
    """Kill what has this mark, again and again: a process may start another one meanwhile."""

    def ended() -> bool:
        left = marked(mark)
        for process in left:
            kill(process)
        return not left

    await until(ended, f"the processes of {mark} to be gone", DEADLINE_S)


def logged_at(record: Mapping[str, Any]) -> float:
    """When a log record of a worker was made, in Unix time."""
    return datetime.fromisoformat(record["timestamp"]).timestamp()
