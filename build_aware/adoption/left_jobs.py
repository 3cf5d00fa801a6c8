"""What becomes of the jobs that this worker leaves to another build.

A job that names no build may be for another one by the rollout. This worker leaves it to that, and
looks later whether somebody has taken it. If nobody has, it adopts the room and pauses following.
"""

from __future__ import annotations

import logging
from typing import Final

from build_aware.adoption.judgement import Empty, Finding, Fits, NotAsked, Served
from build_aware.dispatch import rollout as rollouts
from build_aware.dispatch.following import Following
from build_aware.dispatch.rooms import RoomRecord

LEFT_S: Final = 3.5
"""For how long a job is left to another build: the chain of offers takes three seconds at most."""

logger = logging.getLogger(__name__)


class LeftJobs:
    """Leaves jobs to another build, and tells `following` what has become of them.

    Args:
        following: whether this worker follows the rollout.
    """

    def __init__(self, following: Following) -> None:
        self._following = following

    def leave(self, record: RoomRecord, dispatch_id: str, now_s: float) -> None:
        """This worker has refused a job for another build's sake."""
        if (known := record.get(dispatch_id)) is not None:
            known.left_s = now_s
        record.left = True
        record.watch.wake(now_s + LEFT_S)

    def for_another_s(self, record: RoomRecord, fits: Fits, now_s: float) -> float:
        """For how many seconds more to leave a room that waits to another build.

        Args:
            record: the room.
            fits: what this worker might serve there.
            now_s: the time.
        """
        if fits.reason != "untargeted" or self._following.may_adopt(record.room.name):
            return 0.0
        known = record.of(fits.dispatch)
        if known.left_s is None:
            known.left_s = now_s
            record.left = True
        return max(known.left_s + LEFT_S - now_s, 0.0)

    def is_taken(self, record: RoomRecord) -> bool:
        """Whether the list of rooms shows that a job which was left there has its agent."""
        if not record.left or not record.watch.shows_agents:
            return False
        self._taken(record)
        return True

    def found(self, record: RoomRecord, finding: Finding, now_s: float) -> None:
        """A look has found what a room needs."""
        if not record.left:
            return
        if isinstance(finding, Served):
            self._taken(record)
        elif isinstance(finding, Fits):
            self._not_taken(record, now_s)
        elif isinstance(finding, Empty | NotAsked):
            _forget(record)

    def _taken(self, record: RoomRecord) -> None:
        _forget(record)
        if self._following.taken(record.room.name):
            logger.info("following the rollout again: another worker has taken a job")

    def _not_taken(self, record: RoomRecord, now_s: float) -> None:
        _forget(record)
        name = record.room.name
        if pause_s := self._following.not_taken(name, now_s):
            logger.warning(
                "nobody took a job that is for another build by the rollout; this worker takes all "
                "jobs for a while. Start workers of that build, or promote another one",
                extra={
                    "room": name,
                    "wanted": rollouts.wanted(self._following.rollout, name),
                    "pause_s": pause_s,
                },
            )


def _forget(record: RoomRecord) -> None:
    record.left = False
    for known in record.asks():
        known.left_s = None
