"""Stop signals: they reach LiveKit whatever other code does, and a second one cuts no session.

LiveKit's command line acts on the first SIGTERM or SIGINT, and exits at once on a second one.
Supervisors do send two, and libraries do install handlers of their own. So the handlers here
stand in front of LiveKit's: they pass on the first signal, and look after their place.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

from .exit_codes import ExitCode

logger = logging.getLogger(__name__)

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

CHECK_INTERVAL_S: Final = 1.0
"""How often the handlers are looked at."""

LIVEKIT_ESCALATION_S: Final = 3.0
"""How long LiveKit waits for a blocked event loop before it signals the process once more.

Private to livekit-agents (`cli.cli._EXIT_ESCALATION_TIMEOUT`); a test compares the two.
"""

SAME_KEY_S: Final = 0.5
"""SIGINTs closer than this are one press of Ctrl+C: `uv run` sends it on after 0.2 s."""

SHELLS: Final = frozenset({"sh", "ash", "bash", "busybox", "dash", "fish", "ksh", "zsh"})

Handler = Callable[[int, FrameType | None], Any] | int | None


class StopSignals:
    """The handlers of SIGTERM and SIGINT in a worker's main process.

    Args:
        on_stop: called once, in the signal handler, when the first signal comes.
        on_force: called in the signal handler on a second SIGINT: a person is in a hurry.
    """

    def __init__(self, on_stop: Callable[[], None], on_force: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._on_force = on_force
        self._livekit: dict[int, Handler] = {}
        self._foreign: dict[int, list[Handler]] = {number: [] for number in STOP_SIGNALS}
        self._suspects: dict[int, Handler] = {}
        self._stopped_at: float | None = None
        self._interrupted_at = -math.inf
        self._forced = False
        self._draining = False

    def install(self) -> None:
        """Stand in front of LiveKit's handlers, which must be in place."""
        for number in STOP_SIGNALS:
            self._livekit[number] = signal.getsignal(number)
            signal.signal(number, self._handle)

    def drain_begins(self) -> None:
        """Take over for good: LiveKit's handlers would exit at once from here on."""
        self._draining = True
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)

    async def watch(self) -> None:
        """Look after the handlers until cancelled, which LiveKit's command line does at the end."""
        try:
            while True:
                await asyncio.sleep(CHECK_INTERVAL_S)
                self.check()
        finally:
            # Its last handler would turn a late repeated SIGTERM into an exit code of its own.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def check(self) -> None:
        """Find handlers that other code installed, name them, and go back in front of them."""
        for number in STOP_SIGNALS:
            found = signal.getsignal(number)
            if found == self._handle or _is_livekits(found):
                self._suspects.pop(number, None)
            elif found == signal.SIG_IGN and self._suspects.get(number) is not found:
                # LiveKit ignores SIGINT for moments, while it starts a job process.
                self._suspects[number] = found
            else:
                self._report(number, found)
                signal.signal(number, self._handle)

    def _report(self, number: signal.Signals, found: Handler) -> None:
        culprit = _loop_callback(number) or found
        if culprit in self._foreign[number]:
            return
        self._foreign[number].append(culprit)
        logger.error(
            "other code has taken over a stop signal, which would have kept this worker from "
            "draining; it is called after LiveKit's handler now. Remove its handler, or let it "
            "call the one it replaces",
            extra={"signal": number.name, **describe(culprit)},
        )

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
            self._on_stop()
            self._pass_on(self._livekit[number], number, frame)
        elif number == signal.SIGINT and time.monotonic() - self._interrupted_at < SAME_KEY_S:
            pass
        elif self._draining:
            if number == signal.SIGINT:
                if self._forced:
                    os._exit(ExitCode.SESSIONS_CUT)
                self._forced = True
                self._on_force()
        elif time.monotonic() - self._stopped_at >= LIVEKIT_ESCALATION_S:
            # LiveKit's own second signal: its handler raises, out of what blocks the event loop.
            self._pass_on(self._livekit[number], number, frame)
            return
        if number == signal.SIGINT:
            self._interrupted_at = time.monotonic()
        for foreign in self._foreign[number]:
            if not _is_in_the_loop(number, foreign):
                self._call_foreign(foreign, number, frame)

    def _pass_on(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        if callable(handler):
            handler(number, frame)

    def _call_foreign(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        try:
            self._pass_on(handler, number, frame)
        except BaseException:
            # It may even raise SystemExit: sessions are not cut for that.
            logger.exception("a stop signal handler of other code failed", extra=describe(handler))


def describe(handler: Handler) -> dict[str, str]:
    """Name a handler: its function, and the file and line where that begins."""
    code = getattr(handler, "__code__", None) or getattr(
        getattr(handler, "__func__", getattr(handler, "func", None)), "__code__", None
    )
    if code is None:
        return {"handler": str(getattr(handler, "name", handler))}
    return {"handler": code.co_qualname, "at": f"{code.co_filename}:{code.co_firstlineno}"}


def shell_that_is_pid_1(proc: Path = Path("/proc")) -> str | None:
    """The name of the shell that is PID 1 above this process, if one is.

    A shell without `exec` keeps the stop signal of the container to itself; as PID 1 it even
    ignores it.
    """
    if os.getpid() == 1:
        return None
    try:
        name = (proc / "1" / "comm").read_text().strip()
    except OSError:
        return None
    return name if name in SHELLS else None


def warn_of_a_shell() -> None:
    """Say so loudly if the stop signal will not arrive."""
    if (shell := shell_that_is_pid_1()) is not None:
        logger.error(
            "the stop signal will not arrive: a shell is PID 1 above this worker. Start it with "
            'CMD ["python", "agent.py", "start"], or put `exec` before the command in the script',
            extra={"pid_1": shell},
        )


def _is_livekits(handler: Handler) -> bool:
    return str(getattr(handler, "__module__", "")).startswith("livekit.agents.")


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
