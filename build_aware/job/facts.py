"""What a job process is told by its worker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from livekit.agents import JobContext, JobExecutorType, JobProcess, get_job_context

from build_aware.identity.build import Build
from build_aware.identity.snapshot import Snapshot
from build_aware.job import signals
from build_aware.job.shared import Shared
from build_aware.settings import EndWithLastUser

logger = logging.getLogger(__name__)

CALM_S: Final = 60.0
"""What each of a job's own endings gets while nobody waits for its worker to leave: as long as
LiveKit gives an `AgentSession` to close."""

_KEY: Final = "build_aware"
_SHOWN_FILES: Final = 5

Setup = Callable[[JobProcess], Any]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a job has to know of its worker, which it gets when its process starts.

    Attributes:
        build: the worker's build. A job must not identify itself: the files may have been replaced
            since the worker started.
        counted: the files of that build, as they were when they were hashed; None if unknown.
        shared: what the worker learns later, and what it is told.
        end_with_last_user: when the job ends with its last user.
        join_timeout_s: for how long the job waits for its first user; None for ever.
        callbacks_s: what LiveKit gives shutdown callbacks when it ends a job process.
        shutdown_s: what a worker that closes gives its jobs before it kills them.
        session_end_s: what LiveKit gives the team's `on_session_end`.
        hidden: whether other participants cannot see this agent.
        presence: whether it publishes a data track to be counted.
    """

    build: Build
    counted: Snapshot | None
    shared: Shared
    end_with_last_user: EndWithLastUser
    join_timeout_s: float | None
    callbacks_s: float
    session_end_s: float
    shutdown_s: float
    hidden: bool
    presence: bool = False

    def own_endings_s(self) -> float:
        """What each of the team's own endings gets now: callbacks, and the entrypoint's cleanup.

        LiveKit limits them where it ends a job process, and nowhere else.
        """
        if self.shared.drains or self.shared.closes:
            return self.callbacks_s
        return max(self.callbacks_s, CALM_S)

    @classmethod
    def of(cls, ctx: JobContext) -> JobFacts:
        """The facts that the process of this job was prepared with."""
        facts: JobFacts = ctx.proc.userdata[_KEY]
        return facts


@dataclass(frozen=True, slots=True)
class Prepare:
    """Makes a job process ready: LiveKit's `setup_fnc`, around the team's own.

    Attributes:
        facts: what the process is told.
        setup: the team's own, if it has one.
    """

    facts: JobFacts
    setup: Setup | None

    def __call__(self, process: JobProcess) -> None:
        """Prepare `process`."""
        process.userdata[_KEY] = self.facts
        if process.executor_type is JobExecutorType.PROCESS:
            # Again: the team's module has run in this process, and may have handlers of its own.
            signals.ignore_those_of_others(self.facts.shared)
        self._warn_if_stale()
        if self.setup is not None:
            self.setup(process)

    def _warn_if_stale(self) -> None:
        shared = self.facts.shared
        if shared.stale or self.facts.counted is None:
            return
        if changed := self.facts.counted.changed():
            shared.stale = True
            logger.error(
                "files of this build have changed while the worker runs, so new sessions run "
                "the changed code: deploy into a new folder, and have the agent write its files "
                "elsewhere",
                extra={"files": list(changed[:_SHOWN_FILES]), "count": len(changed)},
            )


def current_build() -> Build:
    """The build that serves; to be called inside a job.

    Raises:
        RuntimeError: it is not called in a job, or not in a job of a build-aware worker.
    """
    facts = get_job_context().proc.userdata.get(_KEY)
    if facts is None:
        raise RuntimeError("this job was not started by a build_aware.AgentServer")
    build: Build = facts.build
    return build
