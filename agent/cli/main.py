"""Where the command line begins: first what must not wait, then the commands."""

from __future__ import annotations

import sys

from ..exit_codes import ExitCode
from ..settings import CONNECTING


def main() -> None:
    """Run the command that the command line names."""
    try:
        for command in CONNECTING:
            if sys.argv[1:2] == [command]:
                from .startup import begin  # noqa: PLC0415

                begin(command, sys.argv[2:])

        # Imported late: the fork server is at work by now.
        from .app import app  # noqa: PLC0415

        app()
    except KeyboardInterrupt:
        # Before LiveKit's handlers are in place: nothing has begun yet.
        raise SystemExit(ExitCode.DRAINED) from None
