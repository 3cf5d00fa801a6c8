"""A run that is stopped by a signal ends all that it started."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from .processes import Processes

T = TypeVar("T")


async def interruptible(main: Coroutine[Any, Any, T]) -> T:
    """Let other stop signals do what Ctrl+C does.

    Raises:
        KeyboardInterrupt: one has come.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 this runs in one
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    try:
        return await main
    except asyncio.CancelledError:
        if stopped:
            raise KeyboardInterrupt from None
        raise


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
