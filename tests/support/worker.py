"""Real workers of different builds, started the way users start them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from agent.build import ROOT, SHIPPED

from .process import LoggedProcess, environment

StartWorker: TypeAlias = Callable[..., Awaitable[LoggedProcess]]
"""The fixture that starts workers."""

WAYS_IN = [
    ("agent.py", "start"),
    ("-m", "livekit.agents", "start", "agent.py"),
]
"""The commands, behind `python`, that start a production worker."""

OFFLINE = {"AGENT_MODELS": "offline"}

PINNED = {
    # LiveKit's CPU measure would make every worker look full on a busy machine.
    "AGENT_MAX_SESSIONS": "200",
    "AGENT_HEALTH_PORT": "0",
    "AGENT_STATUS_PORT": "0",
}


def copy_of_the_agent(folder: Path, *, version: str | None = None, change: str = "") -> Path:
    """Copy the shipped files to `folder`, as a build of their own.

    Args:
        folder: an empty or missing folder.
        version: the version that the copy has.
        change: text that is added to its assistant, to make it another build.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    if version is not None:
        project = folder / "pyproject.toml"
        text = project.read_text().splitlines(keepends=True)
        lines = [f'version = "{version}"\n' if x.startswith("version = ") else x for x in text]
        project.write_text("".join(lines))
    if change:
        with (folder / "agent" / "assistant.py").open("a") as file:
            file.write(f"\n# {change}\n")
    return folder


async def start_worker(
    credentials: Mapping[str, str],
    *,
    below: tuple[str, ...] = (),
    command: tuple[str, ...] = ("agent.py", "start"),
    folder: Path = ROOT,
    name: str = "worker",
    registered: bool = True,
    **env: str,
) -> LoggedProcess:
    """Start a worker as `BELOW python COMMAND` in `folder`, and wait until LiveKit knows it."""
    worker = await LoggedProcess.start(
        *below,
        sys.executable,
        *command,
        name=name,
        cwd=folder,
        env=environment(**(OFFLINE | PINNED | dict(credentials) | env)),
    )
    if registered:
        try:
            await worker.logged("registered worker")
        except BaseException:
            await worker.stop()
            raise
    return worker
