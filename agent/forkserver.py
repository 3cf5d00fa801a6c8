"""Start the fork server of the job processes before anything slow happens.

A stock worker starts serially: its main process imports livekit-agents and the plugins, then
the fork server imports them all again, then job processes start, then the worker connects.
Here the fork server begins first and imports side by side with the main process, which never
imports a plugin at all. `bench/` measures what that saves.
"""

from __future__ import annotations

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


LOCAL_INFERENCE: Final = "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"
"""livekit-agents' switch for loading its end-of-turn model, about 250 MB, before any job."""


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


def read_exit_codes_once() -> None:
    """Keep two threads from reading the exit code of one process.

    The fork server sends it once. Python reads it in the thread that waits for the process, and
    whenever another process starts; where both do so at once, the second one finds nothing and
    makes it 255. LiveKit would log that as an error, and report the job as failed. Replaces
    `popen_forkserver.Popen.poll` of Python; a test has the two threads meet.
    """
    poll = popen_forkserver.Popen.poll
    if poll.__module__ == __name__:
        return
    reading = threading.Lock()

    def poll_once(self: popen_forkserver.Popen, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None and flag != os.WNOHANG:
            connection.wait([self.sentinel])
        with reading:
            return poll(self, os.WNOHANG)

    popen_forkserver.Popen.poll = poll_once  # type: ignore[method-assign,assignment]
