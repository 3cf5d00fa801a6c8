"""Do I take this job: a pure decision, and the request handler around it.

The handler answers every offer exactly once, within microseconds and without I/O: a
self-hosted LiveKit server gives the whole chain of offers three seconds (the default timeout
of its psrpc client), and every worker that says no spends from the same three.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from livekit.protocol.agent import Job

from build_aware.dispatch import attributes
from build_aware.dispatch.rooms import Rooms
from build_aware.dispatch.target import Asked, Malformed, Target
from build_aware.identity.build import Build

if TYPE_CHECKING:
    from livekit.agents import JobRequest
    from livekit.agents.job import JobAcceptArguments

RequestHandler = Callable[["JobRequest"], Awaitable[Any]]

Reason = Literal[
    "target", "other-target", "untargeted", "malformed", "rollout", "full", "held", "on_request"
]

logger = logging.getLogger(__name__)

ANSWER_S: Final = 10.0
"""How long a request handler may take: livekit-server waits as long (`AssignJobTimeout`)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one offer.

    Attributes:
        accept: whether this worker takes the job.
        reason: why, as logged and counted. `on_request` is never ours: the agent's own request
            handler refused what this build would have taken.
    """

    accept: bool
    reason: Reason


def decide(
    asked: Asked,
    build: Build,
    *,
    untargeted: Literal["accept", "reject"],
    full: bool,
    held: bool = False,
    wanted: bool = True,
) -> Decision:
    """Decide on one job: total, pure, and the only place where the rule is written.

    Args:
        asked: what the job's metadata asks for.
        build: the build of this worker.
        untargeted: what to do with a job that names no build.
        full: whether this worker has no room for another session.
        held: whether the room is left to the agent that it had before an outage.
        wanted: whether a job that names no build is for this one by the rollout.
    """
    if isinstance(asked, Target):
        if not asked.met_by(build.answers_to):
            return Decision(False, "other-target")
        reason: Reason = "target"
    else:
        reason = "malformed" if isinstance(asked, Malformed) else "untargeted"
        if untargeted == "reject":
            return Decision(False, reason)
        if not wanted:
            return Decision(False, "rollout")
    if held:
        return Decision(False, "held")
    return Decision(False, "full") if full else Decision(True, reason)


class Acceptance:
    """The `request_fnc` of this worker.

    Args:
        build: the build of this worker.
        untargeted: what to do with a job that names no build.
        is_full: whether this worker has no room for another session.
        rooms: what this worker knows of the rooms; an offer adds to it.
        team: the team's own `on_request`, if it has one: asked after ours, it may refuse, or accept
            under a name of its own.
        on_answered: is told each answer, right before it is given: the job, what it asks for, and
            the decision.
        takes: whether the rollout gives a job that names no build to this worker; is asked for the
            name of its room, at a monotonic time.
        on_left: is told each job that this worker leaves to another build by the rollout.
        on_refused: is told the room of each other job that this worker does not get to serve.
        on_accepted: is told each job that has begun here.
    """

    def __init__(
        self,
        build: Build,
        *,
        untargeted: Literal["accept", "reject"],
        is_full: Callable[[], bool],
        rooms: Rooms,
        team: RequestHandler | None = None,
        on_answered: Callable[[Job, Asked, Decision], None] = lambda _, __, ___: None,
        takes: Callable[[str, float], bool] = lambda _, __: True,
        on_left: Callable[[Job], None] = lambda _: None,
        on_refused: Callable[[str], None] = lambda _: None,
        on_accepted: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self._build = build
        self._untargeted = untargeted
        self._is_full = is_full
        self._rooms = rooms
        self._team = team
        self._on_answered = on_answered
        self._takes = takes
        self._on_left = on_left
        self._on_refused = on_refused
        self._on_accepted = on_accepted
        self._accepting: dict[str, Job] = {}
        self._explained = False

    @property
    def accepting(self) -> Mapping[str, Job]:
        """Jobs accepted but not yet running, by id: assignment or process is on its way."""
        return self._accepting

    async def __call__(self, request: JobRequest) -> None:
        """Answer one offer.

        A worker that says no always says it with `terminate=False`, so that LiveKit asks the
        next worker: the default of `reject()` ends the job for everybody.
        """
        job = request.job
        now_s = time.monotonic()
        asked = self._rooms.offered(job, now_s)
        decision = decide(
            asked,
            self._build,
            untargeted=self._untargeted,
            full=self._is_full(),
            held=self._rooms.holds(job.room.name, now_s),
            wanted=isinstance(asked, Target) or self._takes(job.room.name, now_s),
        )
        if not decision.accept:
            self._on_answered(job, asked, decision)
            await request.reject(terminate=False)
            if decision.reason == "rollout":
                self._on_left(job)
            else:
                self._on_refused(job.room.name)
            return
        self._accepting[job.id] = job
        accepted = False

        def answered(accepts: bool) -> None:
            nonlocal accepted
            accepted = accepts
            said = decision if accepts else Decision(False, "on_request")
            self._on_answered(job, asked, said)

        try:
            await self.ask_team(request, answered)
            if accepted:
                self._on_accepted(job)
        except _never_assigned():
            logger.warning(
                "accepted a job that LiveKit never assigned; "
                "if this repeats, look for slow answers or a restart in the server's log",
                extra={"job_id": job.id, "room": job.room.name},
            )
            self._on_refused(job.room.name)
        finally:
            del self._accepting[job.id]

    async def ask_team(
        self, request: JobRequest, answered: Callable[[bool], None] = lambda _: None
    ) -> None:
        """Accept a job that this build may serve, unless the team's own `on_request` refuses it.

        Args:
            request: the request to answer.
            answered: is told the answer right before it is given: whether the job is accepted.
        """
        job = request.job
        ours = attributes.of_job(self._build, job)
        if self._team is None:
            answered(True)
            await request.accept(attributes=ours)
            return

        from livekit.agents import JobRequest  # noqa: PLC0415 loaded by now

        limit = asyncio.timeout(ANSWER_S)

        def in_time() -> None:
            # What answers later than that, or after the handler has returned, is told by LiveKit.
            with contextlib.suppress(RuntimeError):
                limit.reschedule(None)

        async def on_accept(said: JobAcceptArguments) -> None:
            in_time()
            answered(True)
            await request.accept(
                name=said.name,
                identity=said.identity,
                metadata=said.metadata,
                attributes=(said.attributes or {}) | ours,
            )

        async def on_reject(terminate: bool) -> None:
            in_time()
            answered(False)
            if terminate and not self._explained:
                self._explained = True
                logger.info(
                    "this agent's on_request has ended a job for all workers; use "
                    "reject(terminate=False) to let another worker take it",
                    extra={"job_id": job.id, "room": job.room.name},
                )
            await request.reject(terminate=terminate)
            if not terminate:
                self._on_refused(job.room.name)

        try:
            async with limit:
                await self._team(JobRequest(job=job, on_reject=on_reject, on_accept=on_accept))
        except TimeoutError:
            if not limit.expired():
                raise
            # LiveKit takes that for a no, for this worker alone.
            logger.error(
                "the request handler did not answer in time and is cancelled; bound what it waits "
                "for",
                extra={"job_id": job.id, "room": job.room.name, "timeout_s": ANSWER_S},
            )
            self._on_refused(job.room.name)


def _never_assigned() -> type[Exception]:
    # Asked for only when something is raised.
    from livekit.agents import AssignmentTimeoutError  # noqa: PLC0415 loaded by now

    return AssignmentTimeoutError
