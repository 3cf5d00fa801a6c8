"""Stop signals while a worker starts: nothing has begun, so it leaves at once.

Only what Python has loaded by itself is imported here: the handlers must be in place before
anything slow happens.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any, Final, NoReturn

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


run_by_livekit = False
"""Whether this program is `python -m livekit.agents`, which has stop signal handlers of its own."""


def stop_means_exit() -> None:
    """Leave on a stop signal from here on, until `signals.StopSignals` takes over."""
    for number in STOP_SIGNALS:
        signal.signal(number, _on_signal)


def leave() -> NoReturn:
    """Exit with 0, from a signal handler, and take along what was started: none of it is at work.

    A fork server that is still importing would otherwise notice the end seconds later, and a job
    process would report it with a traceback.
    """
    try:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
    finally:
        os._exit(0)


def _children() -> list[int]:
    # Not imported here: the signal may have interrupted just that import.
    psutil: Any = sys.modules.get("psutil")
    if hasattr(psutil, "Process"):
        return [process.pid for process in psutil.Process().children(recursive=True)]
    forkserver: Any = sys.modules.get("multiprocessing.forkserver")
    pid = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    return [] if pid is None else [pid]


def _on_signal(number: int, frame: FrameType | None) -> NoReturn:
    leave()
