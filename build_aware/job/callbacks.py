"""Shutdown callbacks: each runs once, whatever the end; none holds it up, and none stops another.

livekit-agents waits for callbacks without a limit, and stops waiting for all of them when one
fails.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

from livekit.agents import JobContext, JobExecutorType

from build_aware.job.timers import after, ends_within

logger = logging.getLogger(__name__)

EXIT_S: Final = 5.0
"""From the last callback to the end of the process, whatever threads still run."""

Callback = Callable[..., Any]
Bounded = Callable[[str], Awaitable[None]]


class Callbacks:
    """The shutdown callbacks of one job; takes the place of `ctx.add_shutdown_callback`.

    Args:
        ctx: the job.
        limit_s: what each of them gets; asked again while they run.
    """

    def __init__(self, ctx: JobContext, limit_s: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._add = ctx.add_shutdown_callback
        self._all: list[Bounded] = []
        self._running = 0
        self._idle = asyncio.Event()
        self._in_a_process = ctx.proc.executor_type is JobExecutorType.PROCESS
        self._add(self._see_to_the_exit)
        ctx.add_shutdown_callback = self.add  # type: ignore[method-assign]

    def add(self, callback: Callback) -> None:
        """Add a callback. It gets the reason if it takes an argument."""
        bounded = self._bounded(callback)
        self._all.append(bounded)
        self._add(bounded)  # type: ignore[arg-type]

    async def run(self, reason: str) -> None:
        """Run those that have not run yet, where LiveKit will not, and wait for all."""
        await asyncio.gather(*(callback(reason) for callback in self._all))
        if self._running:
            await self._idle.wait()

    def _bounded(self, callback: Callback) -> Bounded:
        takes_reason = _takes_an_argument(callback)
        ran = False

        @functools.wraps(callback)
        async def bounded(reason: str) -> None:
            nonlocal ran
            if ran:
                return
            ran = True
            self._running += 1
            self._idle.clear()
            try:
                await self._run_one(callback, (reason,) if takes_reason else ())
            finally:
                self._running -= 1
                if not self._running:
                    self._idle.set()

        return bounded

    async def _run_one(self, callback: Callback, arguments: tuple[str, ...]) -> None:
        name = getattr(callback, "__qualname__", repr(callback))
        running = asyncio.ensure_future(_call(callback, arguments))
        if not await ends_within(running, self._limit_s):
            running.cancel()
            logger.error(
                "a shutdown callback did not return in time and is not waited for any longer; "
                "make it faster, hand its work to a queue, or raise the AgentServer's "
                "shutdown_process_timeout",
                extra={"callback": name, "timeout_s": self._limit_s()},
            )
        elif not running.cancelled() and (error := running.exception()) is not None:
            logger.error("a shutdown callback failed", exc_info=error, extra={"callback": name})

    async def _see_to_the_exit(self, reason: str) -> None:
        if not self._in_a_process:
            return
        # One that blocks the event loop is left behind, too.
        after(self._limit_s() + EXIT_S, os._exit, 0)
        await asyncio.sleep(0)  # The others begin.
        if self._running:
            await self._idle.wait()
        # For threads that are not daemons, of which LiveKit warns but which it waits for.
        after(EXIT_S, os._exit, 0)


async def _call(callback: Callback, arguments: tuple[str, ...]) -> None:
    returned = callback(*arguments)
    if inspect.isawaitable(returned):
        await returned


def _takes_an_argument(callback: Callback) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in kinds for each in inspect.signature(callback).parameters.values())
