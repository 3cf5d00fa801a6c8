"""How a worker leaves: its sessions end, what is left is closed or killed, and the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import multiprocessing
import os
from collections.abc import Awaitable, Callable
from typing import Final

from livekit.agents import AgentServer

from build_aware import livekit_private
from build_aware.drain.budget import Drain
from build_aware.drain.exit_codes import ExitCode
from build_aware.job.shared import Shared

logger = logging.getLogger(__name__)

SESSIONS_CHECK_S: Final = 0.1
"""How often it is looked whether sessions that were adopted in the drain have ended."""


class Shutdown:
    """The end of one worker.

    Args:
        server: the worker's server.
        clock: the clock of its drain.
        shared: what its jobs say.
        session_count: how many sessions run or are about to.
    """

    def __init__(
        self,
        server: AgentServer,
        clock: Drain,
        shared: Shared,
        session_count: Callable[[], int],
    ) -> None:
        self._server = server
        self._clock = clock
        self._shared = shared
        self._session_count = session_count
        self._forced = asyncio.Event()
        self.exit_code = ExitCode.DRAINED

    def force(self) -> None:
        """Somebody is in a hurry: wait for no session any longer."""
        self._forced.set()

    async def let_sessions_end(
        self,
        drain: Callable[[float], Awaitable[None]],
        last_look: Callable[[], Awaitable[bool]],
    ) -> None:
        """Wait until no session is left, within the budget.

        Args:
            drain: LiveKit's own drain, with its limit in seconds.
            last_look: looks for users who came a moment too late; whether sessions run again.
        """
        draining = asyncio.ensure_future(self._until_none_is_left(drain, last_look))
        forced = asyncio.ensure_future(self._forced.wait())
        await asyncio.wait(
            {draining, forced},
            timeout=self._clock.sessions_left_s(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        forced.cancel()
        draining.cancel()
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await draining
        rooms = sorted(running.job.room.name for running in self._server.active_jobs)
        if rooms:
            self.exit_code = ExitCode.SESSIONS_CUT
            logger.error(
                "sessions cut; give them more time with AGENT_DRAIN_TIMEOUT, "
                "or find out why they did not end",
                extra={
                    "rooms": rooms,
                    "cause": "second SIGINT" if self._forced.is_set() else "drain timeout",
                    "drained_s": round(self._clock.elapsed_s(), 1),
                },
            )
        elif self._shared.cut:
            # The job has said which room, and why.
            self.exit_code = ExitCode.SESSIONS_CUT

    async def _until_none_is_left(
        self,
        drain: Callable[[float], Awaitable[None]],
        last_look: Callable[[], Awaitable[bool]],
    ) -> None:
        livekit_private.keep_drain_from_spinning()
        # LiveKit takes 0 for no limit at all.
        await drain(max(self._clock.sessions_left_s(), 0.001))
        while await last_look():
            while self._session_count():  # noqa: ASYNC110 LiveKit tells of no end of a job
                await asyncio.sleep(SESSIONS_CHECK_S)

    async def close(self, aclose: Callable[[], Awaitable[None]]) -> None:
        """Close what is left, by force where it does not end in time."""
        self._shared.closes = True
        closing = asyncio.ensure_future(aclose())
        left_s = self._clock.shutdown_left_s()
        done, _ = await asyncio.wait({closing}, timeout=None if math.isinf(left_s) else left_s)
        if not done:
            left = multiprocessing.active_children()
            logger.error("killing job processes that do not end", extra={"count": len(left)})
            for process in left:
                process.kill()
            done, _ = await asyncio.wait({closing}, timeout=self._clock.budget.exit_s / 2)
        if not done:
            logging.shutdown()
            os._exit(self.exit_code)
        closing.result()
