"""A child process whose JSON log lines can be waited for, and which never outlives its test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from .waiting import DEADLINE_S, until


class LoggedProcess:
    """A child process in a process group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self.name = name
        self.records: list[dict[str, Any]] = []
        self.text: list[str] = []
        self.exited_at: float | None = None
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, *command: str, name: str, cwd: Path | None = None, env: Mapping[str, str]
    ) -> LoggedProcess:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=2**22,
        )
        return cls(process, name)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    @property
    def output(self) -> str:
        return "\n".join(self.text)

    def find(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        """The log records with this message and these fields."""
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
            found = self.find(message, **fields)
            if len(found) < count and not self.running and self._reading.done():
                raise AssertionError(f"{self} ended without {message!r}:\n{self.tail()}")
            return found if len(found) >= count else None

        try:
            return await until(enough, f"{count} x {message!r} {fields} from {self}", deadline_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.tail()}") from None

    async def said(self, text: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the output contains `text`, whatever its format."""
        await until(lambda: text in self.output, f"{text!r} from {self}", deadline_s)

    async def exit(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for the end of the process and return its exit code."""
        try:
            await asyncio.wait_for(asyncio.shield(self._reading), deadline_s)
            return await asyncio.wait_for(self._process.wait(), deadline_s)
        except TimeoutError:
            raise TimeoutError(f"{self} still runs after {deadline_s} s\n{self.tail()}") from None

    def lasted_since(self, record: Mapping[str, Any]) -> float:
        """Seconds from a log record until the process was gone."""
        assert self.exited_at is not None
        return self.exited_at - logged_at(record)

    def send(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def send_to_group(self, number: signal.Signals = signal.SIGTERM) -> None:
        os.killpg(self.pid, number)

    def family(self) -> list[psutil.Process]:
        """The process and all its descendants."""
        try:
            process = psutil.Process(self.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    async def stop(self) -> None:
        """End the process and all that it started at once, whatever state they are in."""
        if not self.running and psutil.pid_exists(self.pid):
            return  # The id is another process's by now, so nothing of this one's group is left.
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # What it has left behind is in its group still, and would keep its output open.
        with contextlib.suppress(ProcessLookupError):
            self.send_to_group(signal.SIGKILL)
        if self.running:
            await self._process.wait()
        await asyncio.wait([self._reading], timeout=DEADLINE_S)

    def tail(self, lines: int = 15) -> str:
        return "\n".join(line[:300] for line in self.text[-lines:])

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            self.text.append(line)
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                self.records.append(record)
        await self._process.wait()
        self.exited_at = time.time()

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without any setting of LiveKit or of the agent."""
    ours = ("LIVEKIT_", "AGENT_", "OPENAI_", "PYTHONPATH")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | extra


def logged_at(record: Mapping[str, Any]) -> float:
    """When a log record of a worker was made, in Unix time."""
    return datetime.fromisoformat(record["timestamp"]).timestamp()


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not, it only waits for its parent to notice."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if runs(process)]


def command_line(process: psutil.Process) -> Sequence[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return ()
