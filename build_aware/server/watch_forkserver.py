"""Sessions survive the death of the fork server, and another one starts at once."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from multiprocessing import connection, forkserver, popen_forkserver
from typing import Final

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S: Final = 1.0
"""How often to check that the fork server still runs."""

_LOST: Final = 255
"""What Python makes of an exit code that it cannot read."""


async def keep_running() -> None:
    """Start the fork server again when it has died, until cancelled.

    Python does so when the next process is needed, and the user who needs it waits for all the
    imports. Uses the private `ForkServer._forkserver_pid`; a test fails when it moves.
    """
    if sys.platform != "linux":
        return
    before = None
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        before = before or _pid()
        if before is None:
            continue  # Jobs run in threads, or none has been started yet.
        forkserver.ensure_running()
        now = _pid()
        if now != before:
            logger.warning(
                "the fork server of the job processes has died and is being restarted; sessions "
                "go on, and their exit codes will be 255. Find out what killed it, such as a "
                "lack of memory",
                extra={"died": before, "started": now},
            )
        before = now


def _pid() -> int | None:
    pid: int | None = getattr(forkserver, "_forkserver")._forkserver_pid  # noqa: B009
    return pid


def mend_exit_codes() -> None:
    """Keep Python from taking 255 for the exit code of a process that has another, or still runs.

    The fork server sends an exit code once. Python reads it in the thread that waits for the
    process, and whenever another process starts. Where both do so at once the second one finds
    nothing, and makes it 255: LiveKit would log an error and report the job as failed. Where the
    fork server has died, nothing comes from any process, and all sessions would be given up.

    Replaces `popen_forkserver.Popen.poll` of Python; tests show what it does without.
    """
    poll = popen_forkserver.Popen.poll
    if poll.__module__ == __name__:
        return
    reading = threading.Lock()

    def mended(self: popen_forkserver.Popen, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None and flag != os.WNOHANG:
            connection.wait([self.sentinel])
        with reading:
            code = poll(self, os.WNOHANG)
            if code != _LOST or _has_ended(self.pid, 0):
                return code
            self.returncode = None
        if flag == os.WNOHANG:
            return None
        _has_ended(self.pid, None)
        self.returncode = _LOST
        return _LOST

    popen_forkserver.Popen.poll = mended  # type: ignore[method-assign,assignment]


def _has_ended(pid: int, timeout_s: float | None) -> bool:
    """Whether a process, which may be another one's child, ends within this time."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(connection.wait([process], timeout_s))
    finally:
        os.close(process)
