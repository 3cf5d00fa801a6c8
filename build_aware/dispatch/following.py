"""Whether this worker follows the rollout: it stops where nobody takes what it leaves. Pure.

The rollout must never cost a session. A worker that refuses a job for another build looks what
becomes of it. Where nobody took it, this worker takes what is for that build for a while, then
leaves one job to see whether that build is back, and waits longer each time that it is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from build_aware.dispatch import rollout as rollouts
from build_aware.dispatch.rollout import Rollout

PAUSE_S: Final = 60.0
"""How long a worker takes the jobs of another build after nobody took one that it had left."""

LONGEST_PAUSE_S: Final = 900.0
"""The longest of the pauses, each of which is twice the one before."""

GONE_AFTER: Final = 2
"""After how many probes in a row that did not find it the current build counts as gone."""

FOLLOWED_S: Final = 4.0
"""How long after a change some workers may still go by what was before, where lists of rooms are
quick: then they are 2.5 seconds apart at most. Jobs that all refuse meanwhile say nothing of the
build they are for."""

PRESENT_S: Final = 120.0
"""For how long the current build counts as there after a worker of it has said so: it may be full,
or out of reach. Then two probes may find it gone again."""

PROBE_S: Final = 30.0
"""How long a probe may stay without an answer: whoever called has left, say."""


@dataclass(frozen=True, slots=True)
class _Probe:
    room: str
    until_s: float


@dataclass(slots=True)
class _Pause:
    """This worker takes what is for one other build.

    Attributes:
        length_s: how long it is.
        until_s: when it ends. Then one job is left as a probe, and all others are taken until the
            probe is answered.
        probe: that job.
        missed: how many probes in a row were not answered by that build.
        doubts: the dispatches for whose sake it has begun, while it may still be that somebody
            took their jobs; None once it is certain that nobody took one of them.
    """

    length_s: float
    until_s: float
    probe: _Probe | None = None
    missed: int = 0
    doubts: set[str] | None = field(default_factory=set)


class Following:
    """What this worker does with jobs that name no build. Times are monotonic seconds.

    Args:
        build: the id of its build.

    Attributes:
        within_s: how long after a change some workers may still go by what was before.
    """

    def __init__(self, build: str) -> None:
        self._build = build
        self._rollout: Rollout | None = None
        self._takes_all = True
        self._pauses: dict[str, _Pause] = {}
        self._present_until_s = -math.inf
        self._followed_s = -math.inf
        self.within_s = FOLLOWED_S

    @property
    def rollout(self) -> Rollout | None:
        """The rollout as this worker knows it; None where there is none."""
        return self._rollout

    def facts(self, now_s: float) -> dict[str, Any]:
        """What `/status` tells of it.

        That is the revision and the current build, None where there is none; the ramp; whether this
        worker's build is wanted for any job; and whether following is paused.
        """
        known = self._rollout or Rollout()
        ramp = known.ramp
        return {
            "revision": known.revision or None,
            "current": known.current and known.current.build,
            "ramp": ramp and {"build": ramp.build, "percent": ramp.percent},
            "wanted": self._takes_all or known.wants(self._build),
            "paused": any(now_s < pause.until_s for pause in self._pauses.values()),
        }

    def learn(self, rollout: Rollout, now_s: float, *, becomes_known: bool) -> None:
        """Take in the rollout. Pauses end where it gives the jobs to others than before.

        Args:
            rollout: the rollout.
            now_s: the time.
            becomes_known: whether this worker is about to make its build known. Until then it takes
                what it is offered, and the workers before it go on.
        """
        before = self._rollout or Rollout()
        self._rollout = rollout
        self._takes_all = becomes_known and not rollout.knows(self._build)
        if (before.current, before.ramp) != (rollout.current, rollout.ramp):
            self._pauses.clear()
            self._present_until_s = -math.inf
            if before.current is not None:
                self._followed_s = now_s + self.within_s
        elif before.challenger is not None and rollout.challenger is None:
            # Somebody of the current build is there, full or out of reach as it may be.
            self._present_until_s = now_s + PRESENT_S
            for pause in self._pauses.values():
                pause.missed = 0
                pause.length_s = PAUSE_S
                pause.until_s = min(pause.until_s, now_s + PAUSE_S)

    def current_is_gone(self, now_s: float) -> bool:
        """Whether two probes in a row have not found the current build."""
        current = self._rollout and self._rollout.current
        pause = self._pauses.get(current.build) if current else None
        return pause is not None and pause.missed >= GONE_AFTER and now_s >= self._present_until_s

    def left_to(self, room: str) -> str | None:
        """The build to which a job of this room that names none is left; None if to nobody."""
        if self._takes_all:
            return None
        wanted = rollouts.wanted(self._rollout, room)
        return None if wanted == self._build else wanted

    def takes(self, room: str, now_s: float) -> bool:
        """Whether to take such a job that is offered. To refuse it may begin a probe."""
        other = self.left_to(room)
        pause = None if other is None else self._pauses.get(other)
        if pause is None:
            return other is None
        if now_s < pause.until_s:
            return True
        if pause.probe is None or now_s >= pause.probe.until_s:
            pause.doubts = None
            pause.probe = _Probe(room, now_s + PROBE_S)
        return pause.probe.room != room

    def may_adopt(self, room: str, now_s: float) -> bool:
        """Whether to adopt such a room as if there were no rollout."""
        other = self.left_to(room)
        if other is None:
            return True
        pause = self._pauses.get(other)
        return pause is not None and now_s < pause.until_s

    def taken(self, room: str, build: str | None) -> bool:
        """An agent has come for a job that this worker had left.

        Args:
            room: the job's room.
            build: the id of the agent's build; None if it tells none.

        Returns:
            Whether this ends a pause.
        """
        other = self.left_to(room)
        pause = None if other is None else self._pauses.get(other)
        if other is None or pause is None or pause.probe is None or pause.probe.room != room:
            return False
        if build == other:
            del self._pauses[other]
            return True
        # One more worker that has paused was faster: that says little, so the next job is a probe.
        pause.probe = None
        pause.missed += 1
        return False

    def doubt(self, room: str, dispatch_id: str, now_s: float, *, left_s: float = math.inf) -> None:
        """Nobody seems to have taken a job that this worker had left: a pause begins at once.

        To find out for sure takes two seconds more, and nobody else should wait for that. Call
        `not_taken` or `dispel` next.

        Args:
            room: the job's room.
            dispatch_id: the job's dispatch.
            now_s: the time.
            left_s: when this worker had left it.
        """
        if (other := self.left_to(room)) is None or left_s < self._followed_s:
            return
        pause = self._pauses.setdefault(other, _Pause(PAUSE_S, now_s + PAUSE_S))
        if pause.doubts is not None:
            pause.doubts.add(dispatch_id)

    def dispel(self, dispatch_id: str) -> bool:
        """Somebody has taken a job after all, or that cannot be found out.

        Returns:
            Whether this ends a pause.
        """
        for build, pause in self._pauses.items():
            if pause.doubts is not None and dispatch_id in pause.doubts:
                pause.doubts.discard(dispatch_id)
                if not pause.doubts:
                    del self._pauses[build]
                    return True
        return False

    def not_taken(self, room: str, dispatch_id: str, now_s: float) -> float:
        """Nobody has taken a job that this worker had left.

        Args:
            room: the job's room.
            dispatch_id: the job's dispatch.
            now_s: the time.

        Returns:
            The length of the pause that this confirms or extends, in seconds; 0 if none.
        """
        other = self.left_to(room)
        pause = None if other is None else self._pauses.get(other)
        if pause is None:
            return 0.0
        if pause.doubts is not None and dispatch_id in pause.doubts:
            pause.doubts = None
        elif pause.probe is not None and pause.probe.room == room:
            pause.missed += 1
            pause.probe = None
            pause.length_s = min(2 * pause.length_s, LONGEST_PAUSE_S)
            pause.until_s = now_s + pause.length_s
        else:
            return 0.0
        return pause.length_s
