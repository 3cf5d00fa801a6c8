"""A job that has to end does end, and it is known why.

livekit-agents bounds some steps of a job's shutdown and others not at all; a session that hangs
or an entrypoint that never returns would keep the job process, and with it a draining worker, until
the drain times out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import Final

from livekit import rtc
from livekit.agents import JobContext, JobExecutorType

from build_aware.job import logs
from build_aware.job.callbacks import EXIT_S, Callbacks
from build_aware.job.facts import JobFacts
from build_aware.job.timers import after

logger = logging.getLogger(__name__)

CLOSE_S: Final = 80.0
"""What LiveKit gives an entrypoint (15 s) and the closing of an `AgentSession` (60 s) at the end of
a job, and 5 s more. `on_session_end` comes after them, and has a limit of its own."""

KILL_S: Final = 3.0
"""How long before a worker that closes kills a job its callbacks should have run."""

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
        facts: what the worker says, and where it is told if the job has lost its room.
        user_is_there: whether there is a user, as far as is known.
    """

    def __init__(self, ctx: JobContext, facts: JobFacts, user_is_there: Callable[[], bool]) -> None:
        self._ctx = ctx
        self._facts = facts
        self._user_is_there = user_is_there
        self._loop = asyncio.get_running_loop()
        self._guarded = False
        self._asked = False
        self.begun = asyncio.Event()
        """Set when the job begins to end."""
        self.on_purpose = False
        """Whether the team's code ended the session, and not its user, a fault or the worker."""
        self.callbacks = Callbacks(ctx, facts.own_endings_s)
        self._shutdown = ctx.shutdown
        ctx.shutdown = self._on_shutdown  # type: ignore[method-assign]
        self._in_a_process = ctx.proc.executor_type is JobExecutorType.PROCESS
        ctx.room.on("disconnected", self._on_disconnected)

    def end(self, reason: str) -> None:
        """End the job; `reason` is logged and told to shutdown callbacks."""
        self._asked = True
        self.comes_by_itself(reason)
        self._shutdown(reason)

    def comes_by_itself(self, reason: str) -> None:
        """LiveKit is ending the job: see to it that it gets there."""
        self.begun.set()
        if self._in_a_process and not self._guarded:
            self._guarded = True
            after(CLOSE_S + self._facts.session_end_s, self._give_up, reason)

    def worker_closes(self) -> None:
        """The worker ends what still runs, and will kill it: callbacks have to run before that."""
        self.comes_by_itself("the worker closes")
        if self._in_a_process:
            last_s = self._facts.callbacks_s + KILL_S
            after(
                max(self._facts.shutdown_s - last_s, self._facts.shutdown_s / 2),
                self._give_up,
                "the worker closes",
            )

    async def leave_when_the_worker_dies(self) -> None:
        """Leave the room if the worker dies, so that the user gets another agent at once.

        LiveKit ends the event loop of a job whose worker is gone by cancelling its tasks.
        Without a word of farewell the server would show the dead agent for twenty seconds.
        """
        try:
            await asyncio.Event().wait()
        finally:
            if self._in_a_process:
                # The loop waits for all its tasks, also for one that does not mind its end.
                after(self._facts.callbacks_s + EXIT_S, os._exit, 1)
            # It waits in the end for a task of its own, which is cancelled as well.
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await self._ctx.room.disconnect()
            await self.callbacks.run("the worker died")

    def _on_shutdown(self, reason: str = "user requested") -> None:
        # A session that is closed because its job ends tells the team's code, which ends the job.
        ends_already = self.begun.is_set() or self._facts.shared.closes
        # Where no user is left, nobody has to be kept from coming back.
        if not ends_already and self._user_is_there():
            self.on_purpose = True
        self.end(reason)

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        if reason not in _BY_SOMEBODY and not self._asked:
            logger.error(
                "the session was cut: the agent lost the connection to its room and could not "
                "reconnect; check the LiveKit server and the network",
                extra={"cause": rtc.DisconnectReason.Name(reason)},
            )
            shared = self._facts.shared
            shared.cut = shared.cut or shared.drains
        self.comes_by_itself("room disconnected")

    def _give_up(self, reason: str) -> None:
        """In a thread of its own: the event loop may be what hangs."""
        logger.error(
            "the job did not end in time, so its process is ended; find out what its entrypoint, "
            "its session or its on_session_end is waiting for",
            extra={"room": self._ctx.job.room.name, "reason": reason},
        )
        last = asyncio.run_coroutine_threadsafe(self.callbacks.run(reason), self._loop)
        with contextlib.suppress(Exception):
            last.result(self._facts.callbacks_s + 1)
        logs.flush()
        os._exit(1)
