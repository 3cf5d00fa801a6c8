"""Agents of the tests' own, as programs: what others write, on a plain `AgentServer`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from build_aware.testbed import Process, Testbed
from build_aware.testbed.environ import environment
from build_aware.testbed.fake_livekit import FakeLiveKit
from tests.support.paths import ROOT

PYTHON: Final = (sys.executable, "-W", "error::DeprecationWarning")
"""Nothing of LiveKit's that is deprecated may be stood on."""

BEFORE: Final = """
import asyncio, multiprocessing, os, signal, sys, time
from livekit.agents import Agent, AgentServer, AgentSession, JobContext

from tests.support.command_line import main

server = AgentServer(load_fnc=lambda: 0.0, port=0, num_idle_processes=0)


def say(what):
    print(what, flush=True)
"""

AFTER: Final = """
if __name__ == "__main__":
    main(server)
"""


def write(folder: Path, agent: str) -> None:
    """Write `agent.py`: a program whose `server` is an agent server, and `agent` what it does."""
    folder.mkdir(exist_ok=True)
    (folder / "agent.py").write_text(f"{BEFORE}\n{agent}\n{AFTER}")


def environ(**extra: str) -> dict[str, str]:
    """The environment of such a program."""
    return environment(PYTHONPATH=str(ROOT), **extra)


async def start(
    bed: Testbed, fake: FakeLiveKit, folder: Path, agent: str, *arguments: str
) -> Process:
    """Start such a program as a worker of `fake`."""
    write(folder, agent)
    return await bed.processes.start(
        *PYTHON,
        "agent.py",
        *arguments,
        name="worker",
        cwd=folder,
        env=environ(**fake.credentials),
    )
