"""Start the fork server of the job processes before anything slow happens.

A stock worker starts serially: its main process imports livekit-agents and the plugins, then
the fork server imports them all again, then job processes start, then the worker connects.
Here the fork server begins first and imports side by side with the main process, which never
imports a plugin at all. `bench/` measures what that saves.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import sys
import threading
from multiprocessing import connection, forkserver, popen_forkserver
from typing import TYPE_CHECKING, Final

from .build import ROOT

if TYPE_CHECKING:
    from .settings import Models

PRELOAD: Final = "agent.preload"
"""Our module for the fork server."""

FRAMEWORK_PRELOAD: Final = ("livekit.agents.ipc._preload", "livekit.agents.ipc._preload_freeze")
"""What livekit-agents preloads when it starts the fork server itself, the freeze last.

Private to livekit-agents; a test compares it with what a stock worker logs.
"""


CHECK_INTERVAL_S: Final = 1.0
"""How often it is made sure that the fork server runs."""

LOCAL_INFERENCE: Final = "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"
"""livekit-agents' switch for loading its end-of-turn model, about 250 MB, before any job."""

_LOST: Final = 255
"""What Python makes of an exit code that it cannot read."""

logger = logging.getLogger(__name__)


def start(models: Models) -> None:
    """Start the fork server in the background, where LiveKit uses one (on Linux).

    The environment must be complete: job processes inherit it as it is now.
    """
    if sys.platform != "linux":
        return
    prepare_environment(models)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD, *FRAMEWORK_PRELOAD])
    forkserver.ensure_running()


def prepare_environment(models: Models) -> None:
    """Set the variables that a fork server and its job processes start with."""
    os.environ["AGENT_MODELS"] = models
    # A fork server does not get `sys.path`, and silently goes on without what it cannot import.
    # It would find another `agent` in the working directory before this one, unless told not to.
    os.environ["PYTHONSAFEPATH"] = "1"
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, paths)])
    if models != "openai":
        # The realtime model finds the end of a turn by itself, and text needs none.
        os.environ.setdefault(LOCAL_INFERENCE, "0")


async def keep_running() -> None:
    """Start the fork server again when it has died, until cancelled.

    Python does so when the next process is needed, and the user who needs it waits for all the
    imports. Uses the private `ForkServer._forkserver_pid`; a test fails when it moves.
    """
    if sys.platform != "linux":
        return
    forkserver.ensure_running()
    before = _pid()
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        forkserver.ensure_running()
        if (now := _pid()) != before:
            logger.warning(
                "the fork server of the job processes has died, and is started again; sessions "
                "go on, and their exit codes will be 255. Look for what killed it, such as a "
                "shortage of memory",
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
