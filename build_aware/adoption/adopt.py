"""Adopts a room that fits: starts a job here when there is a place, and waits for its agent."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from livekit.api import LiveKitAPI
from livekit.protocol.agent import Job
from prometheus_client import Counter

from build_aware.adoption import backoff
from build_aware.adoption.judgement import Fits
from build_aware.adoption.launch import Busy, Launch, Outcome, job_for
from build_aware.adoption.left_jobs import LeftJobs
from build_aware.adoption.look import Lookout
from build_aware.adoption.own_jobs import OwnJobs
from build_aware.dispatch.records import DispatchRecord
from build_aware.dispatch.room_record import RoomRecord

logger = logging.getLogger(__name__)

ARRIVAL_S: Final = 10.0
"""How long an agent is waited for at most. LiveKit calls a join that takes longer a mistake."""

ARRIVAL_CHECK_S: Final = 0.3
"""How often the room is asked meanwhile: a call each time, only for rooms that are adopted."""

FULL_S: Final = 2.0
"""How long after a room was found that this worker has no place for it is looked at again."""

BUSY_WAIT_S: Final = 10.0
"""How long a room waits before a worker adopts it that is full by LiveKit's measure of the CPU."""

BUSY_TURN_S: Final = 0.25
"""How often such a worker asks whether it is the turn of the next room."""

CRASH_PAUSE_S: Final = 4.0
"""How long after the second run of a dispatch the third begins, at the earliest.

A first crash is rarely the room's fault, so the second run comes at once. From there on the pauses
double: an entrypoint that crashes may have dialled a telephone number each time.
"""

REFUSED_S: Final = 60.0
"""For how long a request handler is not asked again for a dispatch that it refused."""

ADOPTED: Final = Counter(
    "agent_rooms_adopted_total", "Rooms that this worker served without being asked.", ["reason"]
)


class Adopter:
    """Starts jobs here for rooms that wait, at most one at a time for each room.

    Args:
        lookout: asks the server about a room.
        own: the jobs that have run here.
        sessions: the jobs that run here now, by id.
        may_adopt: whether this worker can take rooms at all.
        busy: LiveKit's own measure of the CPU if this worker is full by that.
        launch: starts a job here.
        left: is told what was adopted.
    """

    def __init__(
        self,
        lookout: Lookout,
        own: OwnJobs,
        *,
        sessions: Callable[[], Mapping[str, Job]],
        may_adopt: Callable[[], bool],
        busy: Callable[[], Busy | None],
        launch: Launch,
        left: LeftJobs,
    ) -> None:
        self._lookout = lookout
        self._left = left
        self._own = own
        self._sessions = sessions
        self._may_adopt = may_adopt
        self._busy = busy
        self._launch = launch
        self._while_busy = asyncio.Lock()
        self.starting: set[str] = set()
        """Ids of jobs that are about to start here."""

    async def adopt(self, api: LiveKitAPI, record: RoomRecord, fits: Fits) -> float:
        """Adopt a room if there is a place for it now, and wait until an agent has come.

        Returns:
            In how many seconds to look at the room again: at once if something was done about it.
        """
        if not self._may_adopt():
            return FULL_S
        if self._busy() is None:
            return await self._start_and_wait(api, record, fits)
        record.waits_for_cpu = True
        if fits.waited_s < BUSY_WAIT_S:
            return BUSY_WAIT_S - fits.waited_s
        if self._while_busy.locked():
            return BUSY_TURN_S
        async with self._while_busy:
            record.waits_for_cpu = False
            return await self._start_and_wait(api, record, fits)

    async def start(self, api: LiveKitAPI, record: RoomRecord, fits: Fits) -> Job | None:
        """Start a job for a room, whatever is free here.

        Returns:
            The job, or None if none has started.
        """
        known = record.of(fits.dispatch)
        now_s = time.monotonic()
        user_since_s = now_s - fits.first_user_s
        if known.was_before(user_since_s):
            known.attempts = 0
        known.attempts += 1
        known.adopted_s = now_s
        crashed_here = self._own.crashed_for(fits.dispatch.id, since_s=user_since_s)
        known.not_before_s = now_s + pause_s(known, crashed_here)
        job = job_for(fits.dispatch, record.room)
        self.starting.add(job.id)
        try:
            is_free = functools.partial(self._lookout.is_free, api, record, fits.dispatch)
            outcome = await self._launch(job, is_free=is_free)
        except Exception as error:
            # LiveKit raises whatever its last attempt to reach a job process has raised.
            logger.error(
                "a waiting room could not be adopted; find out why job processes do not start",
                extra={"room": record.room.name, "error": str(error) or type(error).__name__},
            )
            return None
        finally:
            self.starting.discard(job.id)
        if outcome == "launched":
            self._own.begins(job, time.monotonic())
            self._left.adopted(api, record, fits)
        self._tell(outcome, record, fits, known)
        return job if outcome == "launched" else None

    def _tell(
        self, outcome: Outcome, record: RoomRecord, fits: Fits, known: DispatchRecord
    ) -> None:
        fields = {
            "room": record.room.name,
            "room_id": record.room.sid,
            "dispatch_id": fits.dispatch.id,
            "reason": fits.reason,
        }
        if outcome == "launched":
            ADOPTED.labels(fits.reason).inc()
            logger.info("adopting a waiting room", extra=fields | {"attempt": known.attempts})
        elif outcome == "refused":
            known.attempts -= 1
            known.refused_until_s = time.monotonic() + REFUSED_S
            logger.info(
                "the request handler refused a waiting room",
                extra=fields | {"asked_again_in_s": REFUSED_S},
            )
        else:
            logger.info("a waiting room was taken just before this worker joined", extra=fields)

    async def _start_and_wait(self, api: LiveKitAPI, record: RoomRecord, fits: Fits) -> float:
        job = await self.start(api, record, fits)
        if job is not None:
            await self._wait_for_an_agent(api, record, fits, job)
        return 0.0

    async def _wait_for_an_agent(
        self, api: LiveKitAPI, record: RoomRecord, fits: Fits, job: Job
    ) -> None:
        """Wait until the dispatch has an agent, or the job that should bring it has ended."""
        with contextlib.suppress(Exception):  # The next look at this room says more.
            async with asyncio.timeout(ARRIVAL_S):
                while job.id in self._sessions():
                    await asyncio.sleep(ARRIVAL_CHECK_S)
                    if await self._lookout.has_come(api, record, fits.dispatch):
                        return


def pause_s(known: DispatchRecord, crashed_here: int) -> float:
    """How long after it was adopted a dispatch may be adopted again, by how often it has run.

    Args:
        known: the dispatch.
        crashed_here: how many jobs of it have crashed in this worker, as far as that can be told:
            livekit-server 1.13.5 lists a job up to five seconds late where no user is.
    """
    ran_elsewhere = any(job.state.participant_identity for job in known.dispatch.state.jobs)
    return backoff.pause_s(CRASH_PAUSE_S, max(known.attempts - 1 + ran_elsewhere, crashed_here))
