"""The jobs of this worker: which run, and which have ended and left a dead agent behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final

from livekit.protocol.agent import Job

from build_aware.dispatch.agents import AgentSeen, Role, of_job, role_of

REMEMBERED_S: Final = 120.0
"""How long an ended job is remembered: longer than LiveKit shows a dead agent (20 s)."""

COMES_S: Final = 60.0
"""How long a job that runs here is taken to bring its agent. Teams may load a model before they
connect, or dial a number; a job process that hangs must not keep a user alone for ever. Other
workers wait for five seconds: they cannot know that it runs."""

BRIEF_S: Final = 5.0
"""A job that is over sooner has most likely crashed."""


@dataclass(slots=True)
class _Running:
    job: Job
    role: Role
    began_s: float
    has_joined: bool = False


@dataclass(frozen=True, slots=True)
class _Ended:
    at_s: float
    lasted_s: float
    dispatch_id: str


class OwnJobs:
    """Knows what runs here, and remembers for a while what no longer does.

    A job process that was killed leaves its agent behind in the room. Only the worker of that
    process can know at once that nobody is behind it. It knows that agent by its job alone: teams
    may give all their agents one identity.
    """

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}
        self._ended: dict[str, _Ended] = {}

    @property
    def rooms(self) -> Set[str]:
        """Names of the rooms for which a job runs here."""
        return {running.job.room.name for running in self._running.values()}

    @property
    def dead_jobs(self) -> Set[str]:
        """Ids of jobs that have ended here."""
        return self._ended.keys()

    def crashed_for(self, dispatch_id: str, *, since_s: float) -> int:
        """How many jobs of a dispatch have most likely crashed here.

        Args:
            dispatch_id: the dispatch.
            since_s: since when the user is there, a monotonic time: what has ended before may have
                ended with another one's visit, unless it was over at once.
        """
        return sum(
            job.dispatch_id == dispatch_id and (job.at_s >= since_s or job.lasted_s < BRIEF_S)
            for job in self._ended.values()
        )

    def roles(self, now_s: float) -> dict[str, set[Role]]:
        """The roles that jobs serve here, or are about to, by room."""
        roles: dict[str, set[Role]] = {}
        for running in self._serving(now_s):
            roles.setdefault(running.job.room.name, set()).add(running.role)
        return roles

    def agents_in(self, room: str, now_s: float) -> list[AgentSeen]:
        """The agents of jobs that serve a room here, or are about to."""
        serving = (running.job for running in self._serving(now_s))
        return [AgentSeen.of_job(job) for job in serving if job.room.name == room]

    def joined(self, agents: Iterable[AgentSeen]) -> None:
        """Take note of agents that are in their room."""
        for agent in agents:
            if agent.job_id is not None and agent.job_id in self._running:
                self._running[agent.job_id].has_joined = True

    def is_dead(self, agent: AgentSeen) -> bool:
        """Whether this is the agent of a job that has ended here."""
        return agent.job_id in self._ended

    def begins(self, job: Job, now_s: float) -> None:
        """Take note of a job that has begun here, and may have ended again before it is asked."""
        self._running.setdefault(job.id, _Running(job, role_of(of_job(job)), now_s))

    def update(self, running: Mapping[str, Job], now_s: float) -> set[str]:
        """Take in what runs now, by job id.

        Returns:
            The names of the rooms in which a job has ended since the last call.
        """
        ended = {key: each for key, each in self._running.items() if key not in running}
        self._running = {
            job_id: self._running.get(job_id) or _Running(job, role_of(of_job(job)), now_s)
            for job_id, job in running.items()
        }
        self._ended = {
            job_id: job for job_id, job in self._ended.items() if job.at_s > now_s - REMEMBERED_S
        } | {
            job_id: _Ended(now_s, now_s - each.began_s, each.job.dispatch_id)
            for job_id, each in ended.items()
        }
        return {each.job.room.name for each in ended.values()}

    def _serving(self, now_s: float) -> Iterator[_Running]:
        return (
            running
            for running in self._running.values()
            if running.has_joined or now_s < running.began_s + COMES_S
        )
