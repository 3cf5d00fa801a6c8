"""Processes that a rehearsal starts: in groups of their own, marked, and never left behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from uuid import uuid4

import psutil

from agent import settings

MARK: Final = "REHEARSAL_ID"
"""The variable that all processes of one rehearsal have, whoever their parent is by now."""

FORBIDDEN: Final = ("LIVEKIT_", "AGENT_", "OPENAI_", "PYTHONPATH", "REHEARSAL_")
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy")

BELOW_EPHEMERAL: Final = range(10_000, 32_000)
"""Ports that the system does not hand out to outgoing connections by itself."""

END_S: Final = 5.0
"""How long killed processes may take to be gone."""

_POLL_S: Final = 0.02


class Processes:
    """All processes of one rehearsal."""

    def __init__(self) -> None:
        self._id = uuid4().hex
        self._children: list[asyncio.subprocess.Process] = []

    async def start(
        self, command: list[str], *, log: Path, cwd: Path, env: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        """Start a process in a session and group of its own.

        Args:
            command: the program and its arguments.
            log: the file that gets its output.
            cwd: its working directory.
            env: its environment, beside what every process gets.
        """
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=cwd,
                env=dict(env) | {MARK: self._id},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(process)
        return process

    def alive(self) -> list[psutil.Process]:
        """Those that still run, orphans too: found by their mark and not by their parents."""
        return list(self._marked())

    def end_all(self) -> None:
        """Kill all that is left, and wait until it is gone. To be called again at will."""
        give_up = time.monotonic() + END_S
        while (left := self.alive()) and time.monotonic() < give_up:
            for process in left:
                kill(process)
            # Not psutil's wait: it would take the exit codes that asyncio waits for.
            time.sleep(_POLL_S)

    async def reap(self) -> None:
        """Take note of the end of those that were started here."""
        waits = [asyncio.create_task(process.wait()) for process in self._children]
        if waits:
            await asyncio.wait(waits, timeout=END_S)

    def _marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                # Cheapest first. A zombie only waits for its parent to notice.
                if (
                    process.pid != os.getpid()
                    and process.status() != psutil.STATUS_ZOMBIE
                    and process.environ().get(MARK) == self._id
                ):
                    yield process
            except psutil.Error:
                continue


def kill(process: psutil.Process) -> None:
    """Kill a process, which may be gone by now."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def kill_family(pid: int) -> None:
    """Kill a process and all its descendants, as the end of a container does."""
    try:
        main = psutil.Process(pid)
        family = [main, *main.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        kill(process)


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without proxies and settings of agents, and with `extra`.

    The agent's settings are there but empty, which shields them from a `.env.local`.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FORBIDDEN) and name.lower() not in PROXIES
    }
    return inherited | dict.fromkeys(settings.VARIABLES, "") | extra


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[int]:
    """Ports of the loopback interface that nobody listens on, all different."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            port = random.choice(BELOW_EPHEMERAL)  # noqa: S311 no secret
            listener = stack.enter_context(socket.socket(socket.AF_INET, kind))
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group that this process leads, if there is anything left of it."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
