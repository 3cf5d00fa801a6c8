"""The answers to job offers, as the log and the metrics tell them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from livekit.protocol.agent import Job
from prometheus_client import Counter

from build_aware.dispatch import target as targets
from build_aware.dispatch.acceptance import Decision
from build_aware.dispatch.target import Asked, Malformed, Target

BURST_S: Final = 0.1
"""How long the lines of a burst of answers are held back. Writing one takes as long as answering:
the last offers of the burst would wait for the lines of the first."""

_SHOWN_CHARACTERS: Final = 80

JOBS_OFFERED: Final = Counter(
    "agent_jobs_offered_total",
    "Jobs that LiveKit offered to this worker, by answer and reason.",
    ["answer", "reason"],
)

logger = logging.getLogger(__name__)


class Answers:
    """Logs and counts answers: right after they were given, or when a burst of them is over.

    Args:
        then: called when all that were given are told, for what can wait until then.
    """

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self._then = then
        self._untold: deque[tuple[Job, Asked, Decision]] = deque()

    def given(self, job: Job, asked: Asked, decision: Decision) -> None:
        """An offer has been answered, or is about to be.

        Args:
            job: the offered job.
            asked: what it asked for.
            decision: the answer.
        """
        self._untold.append((job, asked, decision))
        if len(self._untold) == 1:
            # The event loop sends first what it was given first.
            asyncio.get_running_loop().call_later(0, self._tell_first)

    def tell_all(self) -> None:
        """Tell at once what is still to be told: the worker ends."""
        while self._untold:
            _tell(*self._untold.popleft())

    def _tell_first(self) -> None:
        if len(self._untold) > 1:
            asyncio.get_running_loop().call_later(BURST_S, self._tell_next)
        else:
            self._tell_next()

    def _tell_next(self) -> None:
        if not self._untold:
            return
        told = self._untold.popleft()
        if self._untold:
            # One at a time, so that the next offer need not wait for all of them.
            asyncio.get_running_loop().call_soon(self._tell_next)
        else:
            asyncio.get_running_loop().call_soon(self._then)
        _tell(*told)


def _tell(job: Job, asked: Asked, decision: Decision) -> None:
    answer = "accept" if decision.accept else "reject"
    JOBS_OFFERED.labels(answer, decision.reason).inc()
    fields = {
        "job_id": job.id,
        "dispatch_id": job.dispatch_id,
        "room": job.room.name,
        "room_id": job.room.sid,
        "agent_name": job.agent_name,
        "answer": answer,
        "reason": decision.reason,
    }
    if isinstance(asked, Target):
        fields["target"] = ascii(" or ".join(asked.names))[:_SHOWN_CHARACTERS]
    if isinstance(asked, Malformed):
        logger.warning(
            "job offer answered, ignoring a malformed target; correct it in the metadata",
            extra=fields | {"found": asked.found, "expected": targets.EXPECTED},
        )
    else:
        logger.info("job offer answered", extra=fields)
