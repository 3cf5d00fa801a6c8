"""A run that is stopped by a signal ends all that it started."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from build_aware.testbed.processes import Processes

T = TypeVar("T")


STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that stop a run."""


async def interruptible(main: Coroutine[Any, Any, T]) -> T:
    """Let stop signals end a run, and all processes with it.

    The end is bounded, so all signals after the first are ignored until this process has ended:
    nothing may break into it, neither a second Ctrl+C nor a supervisor that has lost patience.

    Raises:
        KeyboardInterrupt: a stop signal has come.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 this runs in one
    # One that is ignored already is so on purpose: by nohup, or by a shell in the background.
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in STOPS}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    stopped = False

    def stop(_: int, __: Any) -> None:
        nonlocal stopped
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)
        if not stopped:
            stopped = True
            loop.call_soon_threadsafe(task.cancel)

    # Not the loop's own handlers: removing one restores the default for a moment, and again when
    # the loop closes.
    for number in heeded:
        signal.signal(number, stop)
    try:
        result = await main
        if stopped:
            raise KeyboardInterrupt
        return result
    except asyncio.CancelledError:
        if stopped:
            raise KeyboardInterrupt from None
        raise
    finally:
        if not stopped:
            for number in heeded:
                signal.signal(number, before[number])


def end_all(started: Processes) -> None:
    """End what is left, deaf to a second Ctrl+C.

    And to SIGTERM, which LiveKit's native library sends to its own process when it panics, as it
    does over a room that nobody waits for any more.
    """
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, signal.SIG_IGN)
    try:
        started.end_all()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
