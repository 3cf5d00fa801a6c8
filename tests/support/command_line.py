"""The least command line that runs an agent of the tests: `start`, `dev` and `console --text`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from livekit.agents import AgentServer

from build_aware.cli import leaving, logs, reload
from build_aware.drain import starting


def main(server: AgentServer) -> NoReturn:
    """Run the command that this program's arguments name."""
    code = 0
    try:
        if sys.argv[1] == "console":
            code = _talk(server)
        elif sys.argv[1] == "dev" and reload.NO_RELOAD not in sys.argv:
            logging.basicConfig(level="INFO")
            code = reload.run(reload.command_line(), Path(sys.argv[0]).parent)
        else:
            _work(server, dev=sys.argv[1] == "dev")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    leaving.leave(code)


def _talk(server: AgentServer) -> int:
    from build_aware.cli import console  # noqa: PLC0415

    level = sys.argv[sys.argv.index("--log-level") + 1] if "--log-level" in sys.argv else None
    return console.run(server, header=["An agent of the tests"], log_level=level)


def _work(server: AgentServer, *, dev: bool) -> None:
    from build_aware.cli import runner  # noqa: PLC0415
    from build_aware.drain.signals import StopSignals  # noqa: PLC0415

    starting.stop_means_exit()
    signals = StopSignals(
        starting.leave, lambda: _say("the drain begins"), lambda: _say("the drain is forced")
    )
    watching: list[asyncio.Task[None]] = []
    server.once("worker_started", signals.begin)
    server.once("worker_started", lambda: watching.append(asyncio.ensure_future(signals.watch())))
    logs.set_up(server, dev=dev)
    runner.run(server, dev=dev, signals=signals)


def _say(what: str) -> None:
    # In a signal handler, where a buffer may be in use.
    os.write(sys.stdout.fileno(), f"{what}\n".encode())
