"""The fork server, which all job processes of a worker are forked from.

A stock worker imports livekit-agents twice, which is most of what a start costs: in its main
process, and in the fork server. Here the main process forks the fork server when it has imported
livekit-agents, so that they share that, and the fork server alone imports the plugins. `bench/`
measures what that saves.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from multiprocessing import connection, forkserver, popen_forkserver, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from build_aware.drain.starting import STOP_SIGNALS
from build_aware.job import signals as job_signals

if TYPE_CHECKING:
    from build_aware.settings import Models

ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder that holds `agent`."""

PRELOAD: Final = "agent.preload"
"""Our module for the fork server."""

FRAMEWORK_PRELOAD: Final = ("livekit.agents.ipc._preload", "livekit.agents.ipc._preload_freeze")
"""What livekit-agents preloads when it starts the fork server itself, the freeze last.

Private to livekit-agents; a test compares it with what a stock worker logs.
"""

CHECK_INTERVAL_S: Final = 1.0
"""How often to check that the fork server still runs."""

LOCAL_INFERENCE: Final = "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"
"""livekit-agents' switch for loading its end-of-turn model, about 250 MB, before any job."""

_LOST: Final = 255
"""What Python makes of an exit code that it cannot read."""

logger = logging.getLogger(__name__)


def start(models: Models) -> None:
    """Start the fork server, where LiveKit uses one (on Linux), once livekit-agents is imported.

    The environment must be complete: job processes inherit it as it is now.
    """
    if sys.platform != "linux":
        return
    prepare_environment(models)
    preload = [PRELOAD, *FRAMEWORK_PRELOAD]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preload)
    if threading.active_count() > 1 or sys.version_info >= (3, 14):
        # A lock that a thread holds would stay locked in the fork for ever. And since Python 3.14 a
        # fork server needs a key, which is private to Python.
        forkserver.ensure_running()
    else:
        _fork(preload)


def _fork(preload: Sequence[str]) -> None:
    """Do what `ForkServer.ensure_running` does, with a fork instead of a new Python.

    Uses the private `ForkServer._forkserver_address`, `_forkserver_alive_fd` and `_forkserver_pid`;
    a test fails when they move.
    """
    server: Any = getattr(forkserver, "_forkserver")  # noqa: B009
    resource_tracker.ensure_running()
    with socket.socket(socket.AF_UNIX) as listener:
        address: str = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
        listener.bind(address)
        if not address.startswith("\0"):
            os.chmod(address, 0o600)  # noqa: PTH101 it may be no path
        listener.listen()
        alive_r, alive_w = os.pipe()
        # A garbage collection writes to every object, and would end the sharing of their memory.
        gc.freeze()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pid = os.fork()
        if pid == 0:
            os.close(alive_w)
            _serve(listener, alive_r, preload)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(alive_r)
    server._forkserver_address = address
    server._forkserver_alive_fd = alive_w
    server._forkserver_pid = pid


def _serve(listener: socket.socket, alive_r: int, preload: Sequence[str]) -> NoReturn:
    """Be the fork server until the main process and all job processes have ended."""
    code = 1
    try:
        job_signals.ignore_in_children()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        forkserver.main(listener.fileno(), alive_r, list(preload))
    except SystemExit:
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # The exit handlers are the main process's, and must not run here.
        os._exit(code)


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
