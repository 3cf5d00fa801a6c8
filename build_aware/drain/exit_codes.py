"""The exit codes of this program, for supervisors. LiveKit's own command line knows only 0 and 1.

docs/draining.md has the same table.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import NoReturn


class ExitCode(IntEnum):
    """What the end of the process means."""

    DRAINED = 0
    """All sessions ended by themselves, or there were none."""

    CRASHED = 1
    """An error of the program itself, with a traceback in the log."""

    CONFIGURATION = 2
    """A setting or an argument is not valid. Restarting does not help."""

    UNREACHABLE = 3
    """LiveKit could not be reached, or did not register this worker. Restarting may help."""

    SESSIONS_CUT = 4
    """The drain was forced, by its timeout or a second Ctrl+C, while sessions still ran."""


def fail(*problems: str) -> NoReturn:
    """End with one line for each problem, and the exit code for bad configuration."""
    for problem in problems:
        sys.stderr.write(f"build-aware: {problem}\n")
    raise SystemExit(ExitCode.CONFIGURATION)
