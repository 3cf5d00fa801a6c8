"""What becomes of the jobs that this worker leaves to another build.

A job that names no build may be for another one by the rollout. This worker leaves it to that, and
looks later whether somebody has taken it. If nobody has, it adopts the room, and pauses following.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from livekit.protocol.agent import JobStatus

from build_aware.adoption.judgement import Fits
from build_aware.dispatch.following import Following
from build_aware.dispatch.records import DispatchRecord
from build_aware.dispatch.rooms import RoomRecord

LEFT_S: Final = 3.5
"""For how long a job is left to another build: the chain of offers takes three seconds at most."""

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

    def refused(self, record: RoomRecord, dispatch_id: str, now_s: float) -> None:
        """This worker has refused a job for another build's sake."""
        if (known := record.get(dispatch_id)) is not None:
            known.left_s = now_s
            known.was_refused = True
            known.shown_before = record.watch.shows_agents

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
            known.was_refused = False
        return max(max(known.left_s, record.held_until_s) + LEFT_S - now_s, 0.0)

    def is_seen_taken(self, record: RoomRecord) -> bool:
        """Whether the list of rooms shows that a refused job has its agent, so that no look is due.

        Where another agent is or may come, the list cannot tell which one it shows.
        """
        asks = record.asks()
        if len(asks) != 1 or not asks[0].was_refused or asks[0].shown_before or record.agents:
            return False
        if not record.watch.shows_agents or self._following.is_probe(record.room.name):
            return False
        _is_settled(asks[0])
        return True

    def looked(self, record: RoomRecord) -> None:
        """A look has found who serves the dispatches of a room."""
        for known in list(_refused(record)):
            if (agent := record.served.get(known.dispatch.id)) is not None:
                _is_settled(known)
                if self._following.taken(record.room.name, agent.build):
                    logger.info("following the rollout again: another worker has taken a job")
            elif any(job.state.status == JobStatus.JS_RUNNING for job in known.dispatch.state.jobs):
                # Somebody took it, whose agent may need long to come.
                known.was_refused = False
            else:
                return
            record.watch.relax()

    def adopted(self, record: RoomRecord, dispatch_id: str, now_s: float) -> None:
        """This worker has started a job for a dispatch."""
        known = record.get(dispatch_id)
        if known is None or not known.was_refused:
            return
        _is_settled(known)
        name = record.room.name
        if pause_s := self._following.not_taken(name, now_s):
            logger.warning(
                "nobody took a job that is for another build by the rollout; this worker takes "
                "such jobs for a while. Start workers of that build, or promote another one",
                extra={
                    "room": name,
                    "wanted": self._following.left_to(name),
                    "pause_s": pause_s,
                },
            )


def _refused(record: RoomRecord) -> Iterable[DispatchRecord]:
    return (known for known in record.asks() if known.was_refused)


def _is_settled(known: DispatchRecord) -> None:
    known.left_s = None
    known.was_refused = False
