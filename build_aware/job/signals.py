"""Stop signals in job processes: those of others change nothing.

The worker's main process alone acts on stop signals and ends its jobs in order. A supervisor or
a terminal that signals the whole process group must not cut live sessions. livekit-agents means
to ignore signals in job processes too, but below a fork server it does not
(livekit/agents#7336).

A handler, and neither a mask nor SIG_IGN: programs that a job starts would inherit those, and
could not be terminated.

LiveKit's native library ends a process that it cannot go on in by signalling it
(livekit/python-sdks#785). A signal to the group comes with the worker's own, which drains then; so
a SIGTERM without a drain is that library's, and ends the process.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import Final

from build_aware.job.logs import flush
from build_aware.job.shared import Shared

logger = logging.getLogger(__name__)

DRAIN_BEGINS_S: Final = 15.0
"""How long a job waits, after a SIGTERM, for its worker to drain: longer than a library in C, such
as a name lookup, may keep Python from handling the signal there."""


def ignore_all() -> None:
    """Ignore stop signals from here on, in this process and all that it forks."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)


def ignore_those_of_others(shared: Shared) -> None:
    """Ignore stop signals unless this process has ended itself.

    Args:
        shared: tells whether the worker drains.
    """

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        if not shared.drains:
            timer = threading.Timer(DRAIN_BEGINS_S, _end_unless_draining, (shared,))
            timer.daemon = True
            timer.start()

    def stop_as_any_program() -> None:
        for number, ours, default in (
            (signal.SIGINT, _ignore, signal.default_int_handler),
            (signal.SIGTERM, on_sigterm, signal.SIG_DFL),
        ):
            if signal.getsignal(number) is ours:
                signal.signal(number, default)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _ignore)
        signal.signal(signal.SIGTERM, on_sigterm)
        # What is forked from here and is no other program keeps handlers.
        os.register_at_fork(after_in_child=stop_as_any_program)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _end_unless_draining(shared: Shared) -> None:
    if shared.drains:
        return
    logger.error(
        "the job process got SIGTERM but its worker did not: LiveKit's native library ends its "
        "process this way when it panics; look for its message above"
    )
    flush()
    os._exit(1)
