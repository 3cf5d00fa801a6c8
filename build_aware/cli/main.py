"""Runs the command line, and ends the process with its exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from build_aware.cli.found import Found
from build_aware.cli.leaving import leave
from build_aware.drain.exit_codes import ExitCode

if TYPE_CHECKING:
    from livekit.agents import AgentServer, WorkerOptions

_LEAVE_AT_ONCE: Final = ("start", "dev", "connect", "console")
"""Commands after which nothing is left that Python should take apart."""


def run_app(server: AgentServer | WorkerOptions | str) -> None:
    """Run the command that the command line names; see `--help`.

    Args:
        server: a `build_aware.AgentServer`; or LiveKit's older `WorkerOptions`, from which one is
            made; or where to find one, such as `agent:server`: then `build` and `--help` need not
            import that module, which takes seconds.
    """
    run(Found(server))


def run(found: Found) -> None:
    """Run the command that the command line names, for an agent that has been found."""
    try:
        # Imported here: an interrupt may come meanwhile.
        from build_aware.cli import rollout_commands  # noqa: F401, PLC0415
        from build_aware.cli.app import app  # noqa: PLC0415

        app(obj=found)
    except KeyboardInterrupt:
        # Before our handlers are in place: nothing has begun yet.
        raise SystemExit(ExitCode.DRAINED) from None
    except SystemExit as end:
        told = end.code is None or isinstance(end.code, int)
        if told and not set(sys.argv[1:2]).isdisjoint(_LEAVE_AT_ONCE):
            leave(end.code or 0)  # type: ignore[arg-type]
        raise
