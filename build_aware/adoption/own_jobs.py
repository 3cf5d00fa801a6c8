"""The sessions of this worker: which run, and which have ended and left a dead agent behind."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

REMEMBERED_S: Final = 120.0
"""How long an ended session is remembered: longer than LiveKit shows a dead agent (20 s)."""


@dataclass(frozen=True, slots=True)
class OwnSession:
    """A session that runs on this worker.

    Attributes:
        room: the name of its room.
        identity: the identity of its agent there.
    """

    room: str
    identity: str


class OwnSessions:
    """Follows what runs here, and remembers for a while what no longer does.

    A job process that was killed leaves its agent behind in the room. Only the worker of that
    process can know at once that nobody is behind it.
    """

    def __init__(self) -> None:
        self._running: dict[str, OwnSession] = {}
        self._ended: dict[str, tuple[OwnSession, float]] = {}

    @property
    def rooms(self) -> set[str]:
        """Names of the rooms that are served here."""
        return {session.room for session in self._running.values()}

    @property
    def dead_jobs(self) -> Collection[str]:
        """Ids of jobs that have ended here."""
        return self._ended.keys()

    def is_dead(self, identity: str) -> bool:
        """Whether this is the agent of a process that is gone."""
        return any(session.identity == identity for session, _ in self._ended.values())

    def follow(self, running: Mapping[str, OwnSession], now_s: float) -> set[str]:
        """Take in what runs now, by job id.

        Returns:
            The names of the rooms in which a session has ended since the last call.
        """
        ended = {job: session for job, session in self._running.items() if job not in running}
        self._running = dict(running)
        self._ended = {
            job: (session, at_s)
            for job, (session, at_s) in self._ended.items()
            if at_s > now_s - REMEMBERED_S
        } | {job: (session, now_s) for job, session in ended.items()}
        return {session.room for session in ended.values()}
