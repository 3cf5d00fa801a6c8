"""Where the command line begins and ends."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from typing import NoReturn

from build_aware.drain.exit_codes import ExitCode
from build_aware.settings import CONNECTING


def main() -> None:
    """Run the command that the command line names."""
    command = next((name for name in CONNECTING if sys.argv[1:2] == [name]), None)
    talks = sys.argv[1:2] == ["console"] and "--text" in sys.argv
    try:
        # Imported here: an interrupt may come meanwhile.
        from agent.cli.app import app  # noqa: PLC0415

        app()
    except KeyboardInterrupt:
        # Before LiveKit's handlers are in place: nothing has begun yet.
        raise SystemExit(ExitCode.DRAINED) from None
    except SystemExit as end:
        if (command or talks) and (end.code is None or isinstance(end.code, int)):
            _leave(end.code or 0)
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
