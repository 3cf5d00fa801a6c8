"""A job that has to end does end, and its shutdown callbacks run once.

livekit-agents bounds some steps of a job's shutdown and others not at all; a session that hangs,
a callback that never returns or a thread that nobody joins would keep the job process, and with
it a draining worker, until the drain times out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

from livekit import rtc
from livekit.agents import AgentSession, JobContext, JobExecutorType

from build_aware.job import logs
from build_aware.job.shared import Shared

logger = logging.getLogger(__name__)

CALLBACK_S: Final = 10.0
"""What the shutdown callbacks get, all at once. LiveKit gives as much."""

SESSION_CLOSE_S: Final = 5.0
"""What closing the `AgentSession` gets. LiveKit allows 60 s."""

SESSION_END_S: Final = 10.0
"""What `session.end` gets, before the agent leaves the room. LiveKit allows 300 s."""

END_S: Final = 30.0
"""From the reason to end until the callbacks run, come what may. LiveKit alone gives an
entrypoint that still runs 15 s of it."""

EXIT_S: Final = 5.0
"""From the last callback to the end of the process, whatever threads still run."""

ShutdownCallback = Callable[[str], Awaitable[None]]


_BY_SOMEBODY: Final = (
    rtc.DisconnectReason.CLIENT_INITIATED,
    rtc.DisconnectReason.DUPLICATE_IDENTITY,
    rtc.DisconnectReason.PARTICIPANT_REMOVED,
    rtc.DisconnectReason.ROOM_DELETED,
    rtc.DisconnectReason.ROOM_CLOSED,
)
"""Why an agent is out of its room if somebody wanted that; else it was cut off."""


class Ending:
    """The end of one job, for whatever reason it comes.

    Args:
        ctx: the job.
        shared: where the worker is told if the job has lost its room.
    """

    def __init__(self, ctx: JobContext, shared: Shared) -> None:
        self._ctx = ctx
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._callbacks: list[ShutdownCallback] = []
        self._ran = False
        self._armed = False
        self._asked = False
        self.on_purpose = False
        """Whether the agent ended the session, and not its user, a fault or the worker."""
        self._shutdown = ctx.shutdown
        # User code ends a session with this, too.
        ctx.shutdown = self._on_shutdown  # type: ignore[method-assign]
        self._in_a_process = ctx.proc.executor_type is JobExecutorType.PROCESS
        ctx.add_shutdown_callback(self._run_callbacks)
        ctx.room.on("disconnected", self._on_disconnected)
        if self._in_a_process:
            self._following = asyncio.create_task(self._follow_the_worker())

    def add_callback(self, callback: ShutdownCallback) -> None:
        """Add a shutdown callback; it gets the reason.

        Callbacks run side by side, once, on every end of the job that leaves the process
        alive. Each has `CALLBACK_S` seconds, and a failing one stops no other.
        """
        self._callbacks.append(callback)

    def now(self, reason: str, *, on_purpose: bool = False) -> None:
        """End the job.

        Args:
            reason: why, as logged and told to shutdown callbacks.
            on_purpose: whether the agent wants no other to take over.
        """
        self.on_purpose = self.on_purpose or on_purpose
        self._asked = True
        self.must_come(reason)
        self._shutdown(reason)

    def must_come(self, reason: str) -> None:
        """The job is ending by itself: see to it that it gets there."""
        if self._in_a_process and not self._armed:
            self._armed = True
            _after(END_S, self._give_up, reason)

    def _on_shutdown(self, reason: str = "user requested") -> None:
        self.now(reason, on_purpose=True)

    async def _follow_the_worker(self) -> None:
        """Leave the room if the worker dies, so that the user gets another agent at once.

        LiveKit ends the event loop of a job whose worker is gone by cancelling its tasks.
        Without a word of farewell the server would show the dead agent for twenty seconds.
        """
        try:
            await asyncio.Event().wait()
        finally:
            # It waits in the end for a task of its own, which is cancelled as well.
            with contextlib.suppress(asyncio.CancelledError):
                await self._ctx.room.disconnect()
            await self._run_callbacks("the worker died")

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        if reason not in _BY_SOMEBODY and not self._asked:
            logger.error(
                "the session was cut: the agent lost its room and could not come back; "
                "look at the LiveKit server and the network",
                extra={"cause": rtc.DisconnectReason.Name(reason)},
            )
            self._shared.cut = self._shared.cut or self._shared.drains
        self.must_come("room disconnected")

    async def _run_callbacks(self, reason: str) -> None:
        if self._ran:
            return
        self._ran = True
        await asyncio.gather(*(self._run_one(callback, reason) for callback in self._callbacks))
        if self._in_a_process:
            # For threads that are not daemons, of which LiveKit warns but which it waits for.
            _after(EXIT_S, os._exit, 0)

    async def _run_one(self, callback: ShutdownCallback, reason: str) -> None:
        name = getattr(callback, "__qualname__", repr(callback))
        running = asyncio.ensure_future(callback(reason))
        # Not `wait_for`, which waits again for what does not mind its cancellation.
        await asyncio.wait([running], timeout=CALLBACK_S)
        if not running.done():
            running.cancel()
            logger.error(
                "a shutdown callback did not return in time and is left behind; "
                "let it finish sooner, or hand its work to a queue",
                extra={"callback": name, "timeout_s": CALLBACK_S},
            )
        elif not running.cancelled() and (error := running.exception()) is not None:
            logger.error("a shutdown callback failed", exc_info=error, extra={"callback": name})

    def _give_up(self, reason: str) -> None:
        """In a thread of its own: the event loop may be what hangs."""
        logger.error(
            "the job did not end in time, its process is ended; look for code that hangs",
            extra={"reason": reason, "timeout_s": END_S},
        )
        last = asyncio.run_coroutine_threadsafe(self._run_callbacks(reason), self._loop)
        with contextlib.suppress(Exception):
            last.result(CALLBACK_S + 1)
        logs.flush()
        os._exit(1)


class BoundedSession(AgentSession[None]):
    """An `AgentSession` whose closing cannot hold up the end of its job."""

    closed_from_outside = False
    """Whether `aclose` was called, as LiveKit does when the job ends for whatever reason."""

    async def aclose(self) -> None:
        """Close, or give up after `SESSION_CLOSE_S` seconds so that callbacks still run."""
        self.closed_from_outside = True
        closing = asyncio.ensure_future(super().aclose())
        await asyncio.wait([closing], timeout=SESSION_CLOSE_S)
        if closing.done():
            closing.result()
        else:
            logger.error(
                "the session did not close in time and is left behind; "
                "look for a model provider that hangs",
                extra={"timeout_s": SESSION_CLOSE_S},
            )


def _after(delay_s: float, function: Callable[..., None], *arguments: Any) -> None:
    timer = threading.Timer(delay_s, function, arguments)
    timer.daemon = True
    timer.start()
