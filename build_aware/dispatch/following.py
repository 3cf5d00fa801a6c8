"""Whether this worker follows the rollout: it stops where nobody takes what it refuses. Pure.

The rollout must never cost a session. A worker that refuses a job for another build looks what
becomes of it. Where nobody took it, this worker takes all jobs for a while, then refuses one to see
whether the other build is back, and waits longer each time that it is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from build_aware.dispatch import rollout as rollouts
from build_aware.dispatch.rollout import Rollout

PAUSE_S: Final = 60.0
"""How long a worker takes all jobs after nobody took one that it had refused."""

LONGEST_PAUSE_S: Final = 900.0
"""The longest of the pauses, each of which is twice the one before."""

GONE_AFTER: Final = 2
"""After how many probes in a row that found nobody the current build counts as gone."""

PROBE_S: Final = 30.0
"""How long a probe may stay without an answer: whoever was called has left, say."""


@dataclass(frozen=True, slots=True)
class _Probe:
    room: str
    until_s: float


class Following:
    """What this worker does with jobs that name no build. Times are monotonic seconds.

    It follows the rollout, or has paused: then it takes all such jobs. When a pause is over, it
    refuses one job as a probe, and takes all others until the probe is answered.

    Args:
        build: the id of its build.
    """

    def __init__(self, build: str) -> None:
        self._build = build
        self._rollout: Rollout | None = None
        self._is_known = False
        self._pause_s = 0.0
        self._until_s = -math.inf
        self._probe: _Probe | None = None
        self._empty_probes = 0

    @property
    def rollout(self) -> Rollout | None:
        """The rollout as this worker knows it; None where there is none."""
        return self._rollout

    @property
    def has_paused(self) -> bool:
        """Whether it takes jobs that are for another build, because nobody else took one."""
        return self._pause_s > 0

    @property
    def current_is_gone(self) -> bool:
        """Whether two probes in a row have found that nobody is there of the current build."""
        return self._empty_probes >= GONE_AFTER

    def facts(self) -> dict[str, Any]:
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
            "wanted": known.wants(self._build),
            "paused": self.has_paused,
        }

    def learn(self, rollout: Rollout | None) -> None:
        """Take in the rollout; a new revision ends a pause."""
        before = self._rollout
        self._rollout = rollout
        self._is_known = rollout is not None and rollout.knows(self._build)
        if rollout is None or before is None or rollout.revision != before.revision:
            self._follow()

    def is_wanted(self, room: str) -> bool:
        """Whether a job of this room that names no build is for this worker.

        One whose build is not known yet takes what it is offered: it is about to become so, and
        until then the workers before it go on.
        """
        if not self._is_known:
            return True
        return rollouts.wanted(self._rollout, room) in (None, self._build)

    def may_adopt(self, room: str) -> bool:
        """Whether to adopt such a room as if there were no rollout."""
        if self.is_wanted(room):
            return True
        return self.has_paused and (self._probe is None or self._probe.room != room)

    def takes(self, room: str, now_s: float) -> bool:
        """Whether to take such a job that is offered. To refuse it may begin a probe."""
        if self.is_wanted(room):
            return True
        if not self.has_paused:
            return False
        if now_s < self._until_s:
            return True
        if self._probe is None or now_s >= self._probe.until_s:
            self._probe = _Probe(room, now_s + PROBE_S)
        return self._probe.room != room

    def taken(self, room: str) -> bool:
        """Another worker's agent has come for a job that this one had left.

        Returns:
            Whether this ends a pause.
        """
        if self._probe is None or self._probe.room != room:
            return False
        self._follow()
        return True

    def not_taken(self, room: str, now_s: float) -> float:
        """Nobody has come for a job that this worker had left.

        Returns:
            For how long it takes all jobs from now on if this begins a pause, else 0.
        """
        if not self.has_paused:
            self._pause(PAUSE_S, now_s)
        elif self._probe is not None and self._probe.room == room:
            current = self._rollout.current if self._rollout else None
            if current is not None and rollouts.wanted(self._rollout, room) == current.build:
                self._empty_probes += 1
            self._pause(min(2 * self._pause_s, LONGEST_PAUSE_S), now_s)
        else:
            return 0.0
        return self._pause_s

    def _follow(self) -> None:
        self._pause_s = 0.0
        self._probe = None
        self._empty_probes = 0

    def _pause(self, pause_s: float, now_s: float) -> None:
        self._pause_s = pause_s
        self._until_s = now_s + pause_s
        self._probe = None
