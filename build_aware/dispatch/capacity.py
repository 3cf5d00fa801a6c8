"""How full is this worker, where `AGENT_MAX_SESSIONS` says what full means.

LiveKit measures a worker by the CPU of its machine, which says little on a shared or small
one. Counting sessions is exact, but LiveKit Cloud allows its own measure only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

SERVER_TARGET_LOAD: Final = 0.7
"""A LiveKit server offers no jobs to a worker with this load or more (its `target_load`)."""


def count(accepting: Collection[str], *others: Iterable[str]) -> int:
    """How many sessions there are, by the ids of their jobs, each counted once.

    Args:
        accepting: those that were accepted and do not run yet. There may be hundreds after a burst
            of offers, each of which comes here.
        others: those that run, or are about to for another reason.
    """
    return len(accepting) + len({each for ids in others for each in ids if each not in accepting})


def is_full(sessions: Callable[[], int], max_sessions: int | None) -> bool:
    """Whether another session would be one too many.

    Args:
        sessions: counts them. Not asked where there is no limit, since each offer comes here.
        max_sessions: how many there may be; None leaves it to LiveKit's measure.
    """
    return max_sessions is not None and sessions() >= max_sessions


def load(sessions: int, max_sessions: int) -> float:
    """The load to report, scaled so that the server stops offering jobs when all is taken."""
    return SERVER_TARGET_LOAD * min(sessions / max_sessions, 1.0)
