"""The fork server, which all job processes of a worker are forked from.

A stock worker imports livekit-agents twice, which is most of what a start costs: in its main
process, and in the fork server. Here the main process forks the fork server when it has imported
livekit-agents, before any code of the team has run, so that they share that. The fork then waits:
what the team's code puts into the environment has to be there before plugins are imported. When
LiveKit is about to start job processes it is told to go on. It ends with the main process, whatever
happens to that. `bench/` measures what all this saves.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
import types
import warnings
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker
from typing import Any, Final, NoReturn

from build_aware.drain import starting
from build_aware.job import signals
from build_aware.server.modules import finished, forget_unfinished

METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client reads this variable when it is imported, and never again."""

FIRST: Final = "build_aware.server.in_forkserver"
"""What a fork server imports first, also one that Python has started by itself."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A fork server that has been forked, and waits.

    Attributes:
        pid: of its process.
        address: where it will be asked for job processes.
        alive_w: the fork server ends when nobody has this open.
        go_w: takes what it waits for.
        metrics: the value of `METRICS` when it was forked.
    """

    pid: int
    address: str
    alive_w: int
    go_w: int
    metrics: str | None


_waiting: _Waiting | None = None


def fork() -> None:
    """Fork the fork server, once livekit-agents is imported, if that is safe here.

    Where it is not, LiveKit has Python start one of its own, as always.
    """
    global _waiting  # noqa: PLW0603 there is one fork server for a process, as Python has it
    # A lock that a thread holds would stay locked in the fork for ever. And since Python 3.14 a
    # fork server needs a key, which is private to Python.
    if (
        _waiting is not None
        or sys.platform != "linux"
        or sys.version_info >= (3, 14)
        or threading.active_count() > 1
        or _pid() is not None
        # Job processes run the team's modules. One that has run here already may have left
        # something in a library, such as a metric, that it cannot register twice.
        or finished()
    ):
        return
    resource_tracker.ensure_running()
    with socket.socket(socket.AF_UNIX) as listener:
        address: str = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
        listener.bind(address)
        if not address.startswith("\0"):
            os.chmod(address, 0o600)  # noqa: PTH101 it may be no path
        listener.listen()
        alive_r, alive_w = os.pipe()
        go_r, go_w = os.pipe()
        # A garbage collection writes to every object, and would end the sharing of their memory.
        gc.freeze()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, starting.STOP_SIGNALS)
        with warnings.catch_warnings():
            # Python 3.12 warns of native threads, as numerical libraries have. They bear a fork, as
            # they do when a job process is forked.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os.close(alive_w)
            os.close(go_w)
            _serve(listener, alive_r, go_r, mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(alive_r)
        os.close(go_r)
    _waiting = _Waiting(pid, address, alive_w, go_w, os.environ.get(METRICS))


def release_when_needed() -> None:
    """Have the fork server go on when LiveKit is about to start job processes.

    LiveKit says what to preload by the public `set_forkserver_preload` of the context of
    `multiprocessing`, when all that it exports is in the environment.
    """
    context: Any = multiprocessing.get_context("forkserver")
    say_what_to_preload = context.set_forkserver_preload

    def release(modules: list[str]) -> None:
        del context.set_forkserver_preload
        modules = [FIRST, *modules]
        say_what_to_preload(modules)
        _release(modules)

    context.set_forkserver_preload = release


def end() -> None:
    """End the fork server that waits, if there is one: it is not needed."""
    global _waiting
    if _waiting is not None:
        waiting, _waiting = _waiting, None
        os.close(waiting.go_w)
        _end(waiting)


def _release(modules: list[str]) -> None:
    """Let the fork server that waits be the one that Python knows.

    Uses the private `ForkServer._forkserver_address`, `_forkserver_alive_fd` and `_forkserver_pid`;
    a test fails when they move.
    """
    global _waiting
    if _pid() is not None or _waiting is None or os.environ.get(METRICS) != _waiting.metrics:
        # The team's code has started one of its own, or ours has imported too early.
        end()
        return
    waiting, _waiting = _waiting, None
    try:
        with os.fdopen(waiting.go_w, "wb") as go:
            pickle.dump((dict(os.environ), sys.path, modules), go)
    except BrokenPipeError:
        # It has been killed. Python starts one of its own.
        _end(waiting)
        return
    server = _python_s()
    server._forkserver_address = waiting.address
    server._forkserver_alive_fd = waiting.alive_w
    server._forkserver_pid = waiting.pid


def _end(waiting: _Waiting) -> None:
    os.close(waiting.alive_w)
    # Killed, as what others have forked meanwhile may hold those pipes open.
    with contextlib.suppress(ProcessLookupError):
        os.kill(waiting.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(waiting.pid, 0)


def _serve(
    listener: socket.socket, alive_r: int, go_r: int, mask: set[int | signal.Signals]
) -> NoReturn:
    """Be the fork server until the main process and all job processes have ended."""
    code = 1
    try:
        signals.ignore_all()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Imports make much and free nothing.
        gc.disable()
        os.register_at_fork(after_in_child=gc.enable)
        with os.fdopen(go_r, "rb") as go:
            told = go.read()
        if told:
            environ, sys.path[:], modules = pickle.loads(told)  # noqa: S301 of our own process
            os.environ.clear()
            os.environ.update(environ)
            time.tzset()
            _begin_anew()
            forkserver.main(listener.fileno(), alive_r, modules)
        code = 0
    except SystemExit:
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # The exit handlers are the main process's, and must not run here.
        os._exit(code)


def _begin_anew() -> None:
    """Leave to each job process what a fork server of Python's own would leave to it.

    It runs the team's module again, which only happens where none is there yet, and which sets up
    its logging.
    """
    starting.run_by_livekit = False
    forget_unfinished()
    sys.modules["__main__"] = types.ModuleType("__main__")
    for log in (logging.getLogger(), *logging.Logger.manager.loggerDict.values()):
        if isinstance(log, logging.Logger):
            # Libraries add a `NullHandler` to theirs, and are not imported again.
            log.handlers[:] = [h for h in log.handlers if isinstance(h, logging.NullHandler)]


def _pid() -> int | None:
    pid: int | None = _python_s()._forkserver_pid
    return pid


def _python_s() -> Any:
    return getattr(forkserver, "_forkserver")  # noqa: B009
