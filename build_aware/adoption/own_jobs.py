"""The jobs of this worker: which run, and which have ended and left a dead agent behind."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from livekit.protocol.agent import Job

from build_aware.dispatch.agents import AgentSeen, Role, of_job, role_of

REMEMBERED_S: Final = 120.0
"""How long an ended job is remembered: longer than LiveKit shows a dead agent (20 s)."""


@dataclass(frozen=True, slots=True)
class _Ended:
    at_s: float
    dispatch_id: str


class OwnJobs:
    """Knows what runs here, and remembers for a while what no longer does.

    A job process that was killed leaves its agent behind in the room. Only the worker of that
    process can know at once that nobody is behind it. It knows that agent by its job alone: teams
    may give all their agents one identity.
    """

    def __init__(self) -> None:
        self._running: dict[str, Job] = {}
        self._roles: dict[str, Role] = {}
        self._ended: dict[str, _Ended] = {}

    @property
    def rooms(self) -> Set[str]:
        """Names of the rooms for which a job runs here."""
        return {job.room.name for job in self._running.values()}

    @property
    def dead_jobs(self) -> Set[str]:
        """Ids of jobs that have ended here."""
        return self._ended.keys()

    def ended_for(self, dispatch_id: str) -> int:
        """How many jobs of a dispatch have ended here."""
        return sum(job.dispatch_id == dispatch_id for job in self._ended.values())

    def roles(self) -> dict[str, set[Role]]:
        """The roles for which jobs run here, by room."""
        roles: dict[str, set[Role]] = {}
        for job_id, job in self._running.items():
            roles.setdefault(job.room.name, set()).add(self._roles[job_id])
        return roles

    def agents_in(self, room: str) -> list[AgentSeen]:
        """The agents of the jobs that run here for a room, whether they have joined it or not."""
        jobs = self._running.values()
        return [AgentSeen.of_job(job) for job in jobs if job.room.name == room]

    def is_dead(self, agent: AgentSeen) -> bool:
        """Whether this is the agent of a job that has ended here."""
        return agent.job_id in self._ended

    def update(self, running: Mapping[str, Job], now_s: float) -> set[str]:
        """Take in what runs now, by job id.

        Returns:
            The names of the rooms in which a job has ended since the last call.
        """
        ended = {job_id: job for job_id, job in self._running.items() if job_id not in running}
        self._running = dict(running)
        self._roles = {
            job_id: self._roles.get(job_id) or role_of(of_job(job))
            for job_id, job in running.items()
        }
        self._ended = {
            job_id: job for job_id, job in self._ended.items() if job.at_s > now_s - REMEMBERED_S
        } | {job_id: _Ended(now_s, job.dispatch_id) for job_id, job in ended.items()}
        return {job.room.name for job in ended.values()}
