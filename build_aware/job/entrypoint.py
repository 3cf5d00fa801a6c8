"""What runs in a job around the team's own functions. The one place that wires a job together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from livekit import rtc
from livekit.agents import JobContext

from build_aware.dispatch import attributes
from build_aware.job.claim import Claim
from build_aware.job.data_track import DataTrack
from build_aware.job.ending import Ending
from build_aware.job.facts import JobFacts
from build_aware.job.timers import ends_within
from build_aware.job.users import Users
from build_aware.job.withdrawal import withdraw

logger = logging.getLogger(__name__)

GRACE_S: Final = 0.5
"""What an entrypoint that still runs gets when its job ends. LiveKit waits 15 s for it."""

CONNECT_S: Final = 10.0
"""How long after its entrypoint has returned a job may take to connect to its room. LiveKit warns
after as long, and keeps the job for ever."""

_ENDING: Final = "build_aware.ending"

Function = Callable[[JobContext], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """LiveKit's entrypoint: the team's own, and a job that ends when it should."""

    function: Function

    async def __call__(self, ctx: JobContext) -> None:
        """Serve one job."""
        if ctx.is_fake_job():
            await self.function(ctx)
            return
        await _Job(ctx, self.function).run()


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """LiveKit's `on_session_end`: withdraws what asked for a session that ended on purpose."""

    function: Callable[[JobContext], Any] | None

    async def __call__(self, ctx: JobContext) -> None:
        """Do what has to be done before the agent leaves the room."""
        # There is none where the job is ended before its entrypoint has begun.
        ending: Ending | None = ctx.proc.userdata.get(_ENDING)
        if ending is not None and ending.on_purpose and _is_adoptable(ctx):
            await withdraw(ctx)
        if self.function is not None:
            await self.function(ctx)


def _is_adoptable(ctx: JobContext) -> bool:
    """Whether another worker may serve what this job serves, if nobody does."""
    # Some jobs nobody has dispatched, as those of LiveKit's `connect`.
    return JobFacts.of(ctx).shared.adopts and bool(ctx.job.dispatch_id)


class _Job:
    """One job, from its start to the end of its entrypoint."""

    def __init__(self, ctx: JobContext, function: Function) -> None:
        self._ctx = ctx
        self._function = function
        self._facts = JobFacts.of(ctx)
        self._users = Users(ctx, self._facts, self._end)
        self._ending = Ending(ctx, self._facts, lambda: self._users.present)
        ctx.proc.userdata[_ENDING] = self._ending
        self._claim: Claim | None = None
        if _is_adoptable(ctx):
            self._claim = Claim(ctx, self._ending.end, hidden=self._facts.hidden)
        ctx.room.on("connection_state_changed", self._name_the_build)
        if self._facts.presence:
            self._data_track = DataTrack(ctx.room)
        self._log_the_end()

    def _end(self, reason: str) -> None:
        if not self._ending.begun.is_set():
            self._ending.end(reason)

    async def run(self) -> None:
        # Not awaited: they end with the event loop of the job.
        self._beside = [
            asyncio.create_task(self._ending.leave_when_the_worker_dies()),
            asyncio.create_task(self._users.watch()),
            asyncio.create_task(self._follow_the_worker()),
        ]
        if self._claim is not None and await self._claim.is_taken():
            self._ending.end("another agent was here first")
        if self._ending.begun.is_set():
            return
        entrypoint = asyncio.create_task(self._run_function(), name="entrypoint")
        ends = asyncio.create_task(self._ending.begun.wait())
        try:
            await asyncio.wait({entrypoint, ends}, return_when=asyncio.FIRST_COMPLETED)
            if not entrypoint.done():
                await asyncio.wait({entrypoint}, timeout=GRACE_S)
        finally:
            ends.cancel()
            entrypoint.cancel()
            # Its own cleanup is the team's code, as a shutdown callback is.
            ended = await ends_within(entrypoint, self._facts.own_endings_s)
        if not ended:
            logger.error(
                "the entrypoint did not end in time after it was cancelled, and is left behind; "
                "let it clean up sooner, or raise the AgentServer's shutdown_process_timeout",
                extra={"room": self._ctx.job.room.name},
            )
            return
        if not entrypoint.cancelled():
            entrypoint.result()
        self._connecting = asyncio.create_task(self._end_unless_connected())

    async def _run_function(self) -> None:
        try:
            await self._function(self._ctx)
        except Exception:
            self._ending.comes_by_itself("the entrypoint raised")
            raise

    async def _end_unless_connected(self) -> None:
        await asyncio.sleep(CONNECT_S)
        if not self._ctx.room.isconnected() and not self._ending.begun.is_set():
            logger.error(
                "the entrypoint returned without connecting to its room, so the job is ended; "
                "call ctx.connect() or start an AgentSession",
                extra={"room": self._ctx.job.room.name},
            )
            self._ending.end("never connected")

    async def _follow_the_worker(self) -> None:
        """Begin to end when the worker closes; LiveKit tells its job process, but not us."""
        while not self._facts.shared.closes:  # noqa: ASYNC110 another process says so
            await asyncio.sleep(GRACE_S)
        self._ending.worker_closes()

    def _name_the_build(self, state: rtc.ConnectionState.ValueType) -> None:
        """Correct the attributes where the job was taken over from an earlier build.

        `lk agent dev` does so when it reloads: the agent joins again with the token of before.
        """
        if state != rtc.ConnectionState.CONN_CONNECTED:
            return
        told = self._ctx.room.local_participant.attributes.get(attributes.BUILD_ID)
        if told not in (None, self._facts.build.id):
            self._naming = asyncio.create_task(self._correct_the_build())

    async def _correct_the_build(self) -> None:
        agent = self._ctx.room.local_participant
        try:
            await agent.set_attributes(self._facts.build.attributes())
        except Exception as error:
            logger.warning(
                "the agent's attributes still name the previous build; include can_update_metadata "
                "in the AgentServer's permissions",
                extra={"room": self._ctx.job.room.name, "error": str(error)},
            )

    def _log_the_end(self) -> None:
        started_s = time.monotonic()

        async def session_ended(reason: str) -> None:
            duration_s = round(time.monotonic() - started_s, 3)
            logger.info("session ended", extra={"reason": reason, "duration_s": duration_s})

        self._ending.callbacks.add(session_ended)
