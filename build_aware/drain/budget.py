"""The drain: how long each of its parts may take, and how far it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MIN_TOTAL_S: Final = 10
"""The smallest drain timeout that leaves a session time to say goodbye."""

SHUTDOWN_S: Final = 25.0
"""What cut sessions get for their shutdown callbacks, if the drain timeout allows it."""

EXIT_S: Final = 3.0
"""What the worker keeps for itself, to kill what is left and exit."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The parts of `AGENT_DRAIN_TIMEOUT`, in seconds; they add up to the whole.

    Attributes:
        sessions_s: sessions may go on, until their users leave.
        shutdown_s: sessions that are left are asked to end, and run their shutdown callbacks.
        exit_s: what is still left is killed, and the worker exits.
    """

    sessions_s: float
    shutdown_s: float
    exit_s: float

    @classmethod
    def of(cls, total_s: float) -> Budget:
        """Divide a drain timeout.

        Raises:
            ValueError: `total_s` is below `MIN_TOTAL_S`.
        """
        if total_s < MIN_TOTAL_S:
            raise ValueError(f"a drain needs at least {MIN_TOTAL_S} s, not {total_s:g}")
        shutdown_s = min(SHUTDOWN_S, (total_s - EXIT_S) / 2)
        return cls(total_s - shutdown_s - EXIT_S, shutdown_s, EXIT_S)

    @property
    def total_s(self) -> float:
        """From the stop signal to the exit of the process."""
        return self.sessions_s + self.shutdown_s + self.exit_s


class Drain:
    """One clock for all parts of a drain: what one part leaves unused, it leaves unused."""

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self._clock = clock
        self._began: float | None = None

    @property
    def began(self) -> bool:
        """Whether the stop signal has come."""
        return self._began is not None

    def begin(self) -> None:
        """Start the clock. Beginning again changes nothing."""
        if self._began is None:
            self._began = self._clock()

    def elapsed_s(self) -> float:
        """Seconds since the stop signal; 0 before it."""
        return 0.0 if self._began is None else self._clock() - self._began

    def left_s(self) -> float:
        """Seconds until the process is gone at the latest; infinite before the stop signal."""
        return self._until(self.budget.total_s)

    def sessions_left_s(self) -> float:
        """Seconds that sessions may still go on."""
        return self._until(self.budget.sessions_s)

    def shutdown_left_s(self) -> float:
        """Seconds until sessions that are left get killed."""
        return self._until(self.budget.sessions_s + self.budget.shutdown_s)

    def _until(self, offset_s: float) -> float:
        return math.inf if self._began is None else max(offset_s - self.elapsed_s(), 0.0)
