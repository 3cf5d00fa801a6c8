"""How a stop signal ends what an event loop runs, also where synchronous code blocks the loop.

A handler that raises would do so inside whatever the loop happens to run, and kill a task that has
nothing to do with it. So the first signal only asks the loop. Where a blocked loop does not hear
it, such as in a request function that sleeps, raising is all that is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from types import FrameType
from typing import Final

ESCALATION_S: Final = 3.0
"""How long a blocked loop may hold up a stop signal. LiveKit's command line waits as long."""


class Preempted(SystemExit):
    """Raised out of what blocks the event loop.

    Only SystemExit and KeyboardInterrupt leave a task and the loop around it; and unlike an
    `Exception` it gets through what the blocking code catches.
    """


class Wakeup:
    """What stop signals do to one event loop: a handler to stand behind `signals.StopSignals`.

    Args:
        loop: the loop, which is run by the main thread.

    Attributes:
        requested: done once the loop has heard that it is to stop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.requested: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._watchdog: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Ask the loop to stop; a second call raises if it has not heard the first.

        Raises:
            Preempted: the loop is blocked.
        """
        if self._watchdog is not None:
            if not self.requested.done():
                raise Preempted
            return
        # Its main thread only, as of now: what blocks it is interrupted by nothing else.
        main = threading.main_thread().ident
        self._watchdog = threading.Timer(ESCALATION_S, signal.pthread_kill, (main, signal.SIGTERM))
        self._watchdog.daemon = True
        # The loop may be closed by now, and the interpreter about to end.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._hear)
            self._watchdog.start()

    def _hear(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        if not self.requested.done():
            self.requested.set_result(None)
