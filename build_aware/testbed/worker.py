"""Real workers, started the way users start them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from build_aware.testbed.environ import environment
from build_aware.testbed.processes import Process, Processes
from build_aware.testbed.turns import turn

PINNED: Final = {
    # LiveKit's CPU measure would make every worker look full on a busy machine.
    "AGENT_MAX_SESSIONS": "200",
    "AGENT_HEALTH_PORT": "0",
    "AGENT_STATUS_PORT": "0",
    "AGENT_MODELS": "offline",
}
"""Settings that keep a worker independent of the machine and of other workers on it."""

READY_S: Final = 180.0
"""How long a worker may take from its start to its registration, on a very busy machine."""


async def start_worker(
    processes: Processes,
    credentials: Mapping[str, str],
    *,
    command: tuple[str, ...],
    folder: Path,
    below: tuple[str, ...] = (),
    name: str = "worker",
    registered: bool = True,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a worker.

    Args:
        processes: where its process is started.
        credentials: URL, API key and secret of its server, as environment variables.
        command: the arguments of Python.
        folder: its working directory.
        below: a command that starts it in turn, such as a shell.
        name: what messages call it.
        registered: whether to wait until it says that LiveKit has registered it.
        env: more of its environment.
    """
    environ = environment(**(PINNED | dict(credentials) | dict(env or {})))
    arguments = (*below, sys.executable, *command)
    if not registered:
        return await processes.start(*arguments, name=name, cwd=folder, env=environ)
    async with turn():
        worker = await processes.start(*arguments, name=name, cwd=folder, env=environ)
        await worker.said("registered worker", READY_S)
    return worker
