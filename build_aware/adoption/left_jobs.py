"""What becomes of the jobs that this worker leaves to another build.

A job that names no build may be for another one by the rollout. This worker leaves it to that, and
looks later whether somebody has taken it. If no agent has come it adopts the room, which it gives
back to one that comes late, and pauses following. That ends if the server then tells of a job.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Final

from livekit.api import LiveKitAPI
from livekit.protocol.agent import JobStatus
from livekit.protocol.agent_dispatch import AgentDispatch

from build_aware.adoption.client import REQUEST_S
from build_aware.adoption.judgement import Fits
from build_aware.adoption.sweep import SPREAD, SWEEP_S
from build_aware.dispatch.following import FOLLOWED_S, Following
from build_aware.dispatch.records import DispatchRecord
from build_aware.dispatch.room_record import RoomRecord

LEFT_S: Final = 3.5
"""For how long a job is left to another build: the chain of offers takes three seconds at most."""

LISTED_S: Final = 5.5
"""How old a dispatch is when all its jobs are listed. Once a minute livekit-server asks its nodes
anew for workers, and lists no job before it has waited five seconds for them (`EnabledCacheTTL`,
`CheckEnabledTimeout`)."""

FOLLOWED_LISTS: Final = FOLLOWED_S / (SWEEP_S * (1 + SPREAD))
"""For how many times the gap between two lists some workers may still go by the old rollout;
`FOLLOWED_S` is that for quick lists."""

REMEMBERED_S: Final = 30.0
"""How long after that a user may come and is not made to wait for as long again."""

logger = logging.getLogger(__name__)


class LeftJobs:
    """Leaves jobs to another build, and tells `following` what has become of them.

    Args:
        following: whether this worker follows the rollout.
    """

    def __init__(self, following: Following) -> None:
        self._following = following
        self._finding_out: set[asyncio.Task[None]] = set()

    def lists_are(self, apart_s: float) -> None:
        """Take note of the longest time from one list of rooms to the next.

        Where lists take long they do so for the other workers too, which learn of a change later.
        """
        self._following.within_s = max(FOLLOWED_S, FOLLOWED_LISTS * apart_s)

    async def close(self) -> None:
        """Ask no more."""
        for task in self._finding_out:
            task.cancel()
        await asyncio.gather(*self._finding_out, return_exceptions=True)

    def refused(self, record: RoomRecord, dispatch_id: str, now_s: float) -> None:
        """This worker has refused a job for another build's sake."""
        if (known := record.get(dispatch_id)) is not None:
            known.left_s = now_s
            known.was_refused = True

    def for_another_s(self, record: RoomRecord, fits: Fits, now_s: float) -> float:
        """For how many seconds more to leave a room that waits to another build.

        Args:
            record: the room.
            fits: what this worker might serve there.
            now_s: the time.
        """
        name = record.room.name
        if fits.reason != "untargeted" or self._following.may_adopt(name, now_s):
            return 0.0
        known = record.of(fits.dispatch)
        if known.left_s is None or now_s > known.left_s + REMEMBERED_S:
            known.left_s = now_s
        return max(max(known.left_s, record.held_until_s) + LEFT_S - now_s, 0.0)

    def looked(self, record: RoomRecord) -> None:
        """A look has found who serves the dispatches of a room."""
        for known in list(_refused(record)):
            if (agent := record.served.get(known.dispatch.id)) is not None:
                _is_settled(known)
                if self._following.taken(record.room.name, agent.build):
                    logger.info("following the rollout again: a worker of that build took a job")
            elif _was_taken(known.dispatch):
                known.was_refused = False  # Its agent may need long to come.
            else:
                return
            record.watch.relax()

    def adopted(self, api: LiveKitAPI, record: RoomRecord, fits: Fits) -> None:
        """This worker has started a job for a dispatch."""
        known = record.get(fits.dispatch.id)
        if known is None or not known.was_refused:
            return
        now_s = time.monotonic()
        left_s = now_s if known.left_s is None else known.left_s
        _is_settled(known)
        if fits.reason != "untargeted":
            return
        room = record.room.name
        self._following.doubt(room, fits.dispatch.id, now_s, left_s=left_s)
        task = asyncio.create_task(self._find_out(api, room, fits))
        self._finding_out.add(task)
        task.add_done_callback(self._finding_out.discard)

    async def _find_out(self, api: LiveKitAPI, room: str, fits: Fits) -> None:
        """Go on pausing if nobody took that job; its agent may just not have come yet."""
        await asyncio.sleep(max(LISTED_S - fits.asked_s, 0))
        try:
            async with asyncio.timeout(REQUEST_S):
                dispatches = await api.agent_dispatch.list_dispatch(room)
        except Exception:  # A gateway may answer in any form. Then it cannot be found out.
            dispatches = []
        known = next((each for each in dispatches if each.id == fits.dispatch.id), None)
        if known is None or _was_taken(known):
            if self._following.dispel(fits.dispatch.id):
                logger.info(
                    "another worker has taken the job after all, or the room is gone: following "
                    "the rollout again",
                    extra={"room": room},
                )
        elif pause_s := self._following.not_taken(room, fits.dispatch.id, time.monotonic()):
            logger.warning(
                "nobody took a job that is for another build by the rollout, so this worker takes "
                "that build's jobs for a while; start workers of that build, or make another one "
                "current with `agent.py promote BUILD`",
                extra={
                    "room": room,
                    "wanted": self._following.left_to(room),
                    "pause_s": pause_s,
                },
            )


def _was_taken(dispatch: AgentDispatch) -> bool:
    return any(job.state.status == JobStatus.JS_RUNNING for job in dispatch.state.jobs)


def _refused(record: RoomRecord) -> Iterable[DispatchRecord]:
    return (known for known in record.asks() if known.was_refused)


def _is_settled(known: DispatchRecord) -> None:
    known.left_s = None
    known.was_refused = False
