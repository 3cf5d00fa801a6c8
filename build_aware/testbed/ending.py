"""How a program with users ends: at once, with an exit code of its own."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(program: Callable[[], object]) -> NoReturn:
    """Run a program, and end this process as Python would, but without its finalization.

    Functions registered with atexit are called; threads are not waited for.

    livekit's native threads call Python whenever they have something to log, also after the last
    user has left. Python before 3.14 ends a thread that comes back to it during finalization by
    unwinding its stack, which Rust answers with SIGABRT.
    """
    code = 0
    try:
        program()
    except SystemExit as end:
        code = _exit_code(end)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    sys.stderr.write(f"{end.code}\n")
    return 1
