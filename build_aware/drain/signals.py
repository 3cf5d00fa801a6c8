"""Stop signals: they start the drain whatever other code does, and a second one cuts no session.

What runs the worker acts on the first SIGTERM or SIGINT: our runner, or LiveKit's command line,
which exits at once on a second one. Supervisors do send two, and libraries do install handlers of
their own. So the handlers here stand in front: they pass on the first signal, and look after their
place, also where LiveKit itself would take it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from build_aware import livekit_private
from build_aware.drain.exit_codes import ExitCode
from build_aware.drain.starting import STOP_SIGNALS
from build_aware.drain.wakeup import ESCALATION_S

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S: Final = 1.0
"""How often the handlers are looked at."""

SAME_KEY_S: Final = 0.5
"""SIGINTs closer than this are one press of Ctrl+C: `uv run` sends it on after 0.2 s."""

SHELLS: Final = frozenset({"sh", "ash", "bash", "busybox", "dash", "fish", "ksh", "zsh"})

Handler = Callable[[int, FrameType | None], Any] | int | None


class StopSignals:
    """The handlers of SIGTERM and SIGINT in a worker's main process.

    What runs the worker stands behind them: a handler that asks the event loop to stop when it is
    called, and raises out of what blocks the loop when it is called again.

    Args:
        on_start_stopped: called in the signal handler when a signal comes before `begin`; it must
            not return.
        on_stop: called once, in the signal handler, when the first signal comes after that.
        on_force: called in the signal handler on a second SIGINT: a person is in a hurry.
    """

    def __init__(
        self,
        on_start_stopped: Callable[[], NoReturn],
        on_stop: Callable[[], None],
        on_force: Callable[[], None],
    ) -> None:
        self._on_start_stopped = on_start_stopped
        self._on_stop = on_stop
        self._on_force = on_force
        self._behind: dict[int, Handler] = {}
        self._escalation_s = ESCALATION_S
        self._foreign: dict[int, list[Handler]] = {number: [] for number in STOP_SIGNALS}
        self._begun = False
        self._stopped_at: float | None = None
        self._interrupted_at = -math.inf
        self._escalated = False
        self._leaving = False
        self._next_sigint_exits: ExitCode | None = None

    def stand_before(self, stop: Callable[[int, FrameType | None], None]) -> None:
        """Handle the stop signals, with `stop` of our runner behind."""
        for number in STOP_SIGNALS:
            self._behind[number] = stop
            signal.signal(number, self._handle)
        livekit_private.keep_ctrl_c()

    def await_livekit(self) -> None:
        """Get in front of LiveKit's handlers in the moment in which it installs them.

        Its command line does so some time before it runs the worker; a second signal in between
        would exit with 1.
        """
        livekit_private.follow_signal_handlers(STOP_SIGNALS, self._get_in_front)

    def install(self) -> None:
        """Stand in front of LiveKit's handlers, unless something stands behind these already.

        LiveKit would take the place back: before it calls `AgentServer.drain` its command line
        installs handlers that exit at once, so that a SIGTERM in that moment would cut every
        session. And while it starts job processes, from an executor and for as long as a burst
        lasts, it ignores SIGINT, for the sake of children that `job.signals` protects already.

        A program that runs a server by itself, and not by a command line, handles its signals by
        itself, too.
        """
        if not self._behind and not _somebody_handles():
            return
        for number in STOP_SIGNALS:
            if number not in self._behind:
                self._get_in_front(number)
        livekit_private.keep_signal_handlers()
        livekit_private.keep_ctrl_c()

    def _get_in_front(self, number: int) -> None:
        found = signal.getsignal(number)
        # Of another server of this program, which does not run.
        other = getattr(found, "__self__", None)
        if isinstance(other, StopSignals) and other is not self:
            found = other._behind.get(number)
        self._behind[number] = found
        self._escalation_s = livekit_private.escalation_s()
        signal.signal(number, self._handle)

    def begin(self) -> None:
        """From here on there may be sessions, and a signal starts the drain."""
        self._begun = True

    def drain_begins(self) -> None:
        """From here on a SIGTERM changes nothing, and a SIGINT forces."""
        self._leaving = True

    def close_begins(self, exit_code: ExitCode) -> None:
        """From here on a SIGTERM changes nothing, and a SIGINT exits at once with `exit_code`."""
        self._leaving = True
        self._next_sigint_exits = exit_code

    async def watch(self) -> None:
        """Look after the handlers until cancelled, which what runs the worker does at the end."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            self.check()

    def check(self) -> None:
        """Find handlers that other code installed, name them, and go back in front of them."""
        for number in filter(self._behind.__contains__, STOP_SIGNALS):
            found = signal.getsignal(number)
            if found != self._handle:
                self._report(number, found)
                signal.signal(number, self._handle)

    def _report(self, number: signal.Signals, found: Handler) -> None:
        culprit = _loop_callback(number) or found
        if culprit in self._foreign[number]:
            return
        self._foreign[number].append(culprit)
        logger.error(
            "other code has taken over a stop signal, which would have kept this worker from "
            "draining; its handler now runs after ours. Remove it, or have it call the handler "
            "that it replaces",
            extra={"signal": number.name, **describe(culprit)},
        )

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._begun:
            self._on_start_stopped()
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
            self._on_stop()
            self._pass_on(self._behind[number], number, frame)
        elif number == signal.SIGINT and time.monotonic() - self._interrupted_at < SAME_KEY_S:
            pass
        elif self._leaving:
            if number == signal.SIGINT:
                self._hurry()
        elif time.monotonic() - self._stopped_at >= self._escalation_s and not self._escalated:
            # From what stands behind: it raises now, out of what blocks the event loop.
            self._escalated = True
            self._pass_on(self._behind[number], number, frame)
            return
        if number == signal.SIGINT:
            self._interrupted_at = time.monotonic()
        for foreign in self._foreign[number]:
            if not _is_in_the_loop(number, foreign):
                self._call_foreign(foreign, number, frame)

    def _hurry(self) -> None:
        if self._next_sigint_exits is not None:
            os._exit(self._next_sigint_exits)
        self._next_sigint_exits = ExitCode.SESSIONS_CUT
        self._on_force()

    def _pass_on(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        if callable(handler):
            handler(number, frame)

    def _call_foreign(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        try:
            self._pass_on(handler, number, frame)
        except BaseException:
            # It may even raise SystemExit: sessions are not cut for that.
            logger.exception("other code's stop signal handler failed", extra=describe(handler))


def _somebody_handles() -> bool:
    """Whether this program has a handler for SIGTERM, which Python has not."""
    here = threading.current_thread() is threading.main_thread()
    return here and callable(signal.getsignal(signal.SIGTERM))


def describe(handler: Handler) -> dict[str, str]:
    """Name a handler: its function, and the file and line where that begins."""
    code = getattr(handler, "__code__", None) or getattr(
        getattr(handler, "__func__", getattr(handler, "func", None)), "__code__", None
    )
    if code is None:
        return {"handler": str(getattr(handler, "name", handler))}
    return {"handler": code.co_qualname, "at": f"{code.co_filename}:{code.co_firstlineno}"}


def shell_that_is_pid_1(proc: Path = Path("/proc")) -> str | None:
    """The name of the shell that is PID 1 above this process, if it keeps SIGTERM to itself.

    A shell without `exec` does: as PID 1 it even ignores it. One with a `trap` for it is there to
    pass it on.
    """
    if os.getpid() == 1:
        return None
    try:
        # Not `comm`: of a script that names its shell in the first line, that is the script's name.
        program = (proc / "1" / "cmdline").read_text().partition("\0")[0]
        status = (proc / "1" / "status").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    name = Path(program).name
    return name if name in SHELLS and not _catches(signal.SIGTERM, status) else None


def _catches(number: signal.Signals, status: str) -> bool:
    """Whether a process whose `status` in /proc this is has a handler for a signal."""
    mask = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def warn_of_a_shell() -> None:
    """Say so loudly if the stop signal will not arrive."""
    if (shell := shell_that_is_pid_1()) is not None:
        logger.error(
            "the stop signal will not arrive: a shell is PID 1 above this worker. Start it with "
            'CMD ["python", "agent.py", "start"], or put `exec` before the command in the script',
            extra={"pid_1": shell},
        )


def _loop_callback(number: int) -> Handler:
    """The callback of `loop.add_signal_handler`.

    asyncio has no public way to ask for it; a test pins this one.
    """
    try:
        handlers = getattr(asyncio.get_running_loop(), "_signal_handlers", {})
    except RuntimeError:
        return None
    callback: Handler = getattr(handlers.get(number), "_callback", None)
    return callback


def _is_in_the_loop(number: int, handler: Handler) -> bool:
    # asyncio's wake-up descriptor calls it by itself, whoever's handler is in front.
    return handler is not None and _loop_callback(number) == handler
