"""Runs the command line, and ends the process with its exit code."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from build_aware.cli.found import Found
from build_aware.drain.exit_codes import ExitCode

if TYPE_CHECKING:
    from livekit.agents import AgentServer, WorkerOptions

_LEAVE_AT_ONCE: Final = ("start", "dev", "connect", "console")
"""Commands after which nothing is left that Python should take apart."""


def run_app(server: AgentServer | WorkerOptions | str) -> None:
    """Run the command that the command line names; see `--help`.

    Args:
        server: a `build_aware.AgentServer`; or LiveKit's older `WorkerOptions`, of which one is
            made; or where one is, as in `agent:server`: then `build` and `--help` need not import
            that module, which takes seconds.
    """
    run(Found(server))


def run(found: Found) -> None:
    """Run the command that the command line names, for an agent that has been found."""
    try:
        # Imported here: an interrupt may come meanwhile.
        from build_aware.cli.app import app  # noqa: PLC0415

        app(obj=found)
    except KeyboardInterrupt:
        # Before our handlers are in place: nothing has begun yet.
        raise SystemExit(ExitCode.DRAINED) from None
    except SystemExit as end:
        told = end.code is None or isinstance(end.code, int)
        if told and not set(sys.argv[1:2]).isdisjoint(_LEAVE_AT_ONCE):
            _leave(end.code or 0)  # type: ignore[arg-type]
        raise


def _leave(code: int) -> NoReturn:
    """Exit at once: functions that wait for the exit are called, threads are not waited for.

    All is closed by now. Python would take apart its modules one by one, which is most of the
    time that a worker needs to leave, and takes CPU from the sessions on the same machine.
    """
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
