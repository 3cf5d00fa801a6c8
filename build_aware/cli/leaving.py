"""The end of a command that has run sessions in this process or below it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Exit at once: functions that wait for the exit are called, threads are not waited for.

    All is closed by now. Python would take apart its modules one by one, which is most of the
    time that a worker needs to leave, and takes CPU from the sessions on the same machine. And it
    would wait for threads, such as that of a session that does not end.
    """
    atexit._run_exitfuncs()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # Nobody reads it any more.
            stream.flush()
    os._exit(code)
