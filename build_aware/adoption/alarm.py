"""What operators are told: of rooms that go on waiting, and of a server that cannot be asked."""

from __future__ import annotations

import logging
import time
from typing import Final, Protocol

from prometheus_client import Gauge

from build_aware.adoption import backoff
from build_aware.adoption.api_errors import API_ERRORS
from build_aware.adoption.launch import Busy
from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.rooms import Rooms

logger = logging.getLogger(__name__)

WARNING_S: Final = 60.0
"""From one warning about rooms that go on waiting to the next. A new one is told at once."""

FIRST_PAUSE_S: Final = 2.0
"""How long to wait after the first call that failed."""

SHOWN_ROOMS: Final = 10
"""How many rooms one warning names."""

SHOWN_TARGET: Final = 80
"""How many characters of a target it shows."""

WAITING: Final = Gauge(
    "agent_rooms_waiting", "Rooms that wait for a build other than this worker's."
)
BUSY: Final = Gauge(
    "agent_rooms_waiting_for_cpu",
    "Rooms that wait because LiveKit's measure of the CPU says that this worker is full.",
)
FAILING: Final = Gauge("agent_adoption_failing", "1 while looking for waiting rooms fails.")


class Alarm:
    """Warns of rooms that go on waiting: of new ones at once, of all of them from time to time."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._next_s = 0.0

    def check(self, busy: Busy | None) -> None:
        """Warn if there is reason to; to be called again and again."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + WARNING_S
            for record in self._rooms.all():
                record.told = False
        waiting = [record for record in self._rooms.all() if record.waits_for]
        for_cpu = [record for record in self._rooms.all() if busy and record.waits_for_cpu]
        WAITING.set(len(waiting))
        BUSY.set(len(for_cpu))
        if new := [record for record in waiting if not record.told]:
            logger.warning(
                "rooms wait for a build other than this one; start it, or correct their target",
                extra={"count": len(waiting), "rooms": _targets(new)},
            )
        new_for_cpu = [record.room.name for record in for_cpu if not record.told]
        if busy and new_for_cpu:
            logger.warning(
                "rooms wait although this build may serve them: LiveKit counts this worker as full "
                "by the CPU of its machine. Add CPUs or workers, or set AGENT_MAX_SESSIONS",
                extra={
                    "count": len(for_cpu),
                    "rooms": sorted(new_for_cpu)[:SHOWN_ROOMS],
                    "load": round(busy.load, 2),
                    "threshold": busy.threshold,
                },
            )
        for record in (*waiting, *for_cpu):
            record.told = True


class Fallible(Protocol):
    """What calls are made for: a sweep, or one room.

    Attributes:
        failures: how many calls in a row have failed for it.
    """

    failures: int


class Trouble:
    """Whether waiting rooms can be looked for; told when that ends, and when it is so again."""

    def __init__(self, sweep: Fallible, rooms: Rooms) -> None:
        self._sweep = sweep
        self._rooms = rooms
        self._told = False

    @property
    def lasts(self) -> bool:
        """Whether the last call failed for the sweep or for some room."""
        return self._sweep.failures > 0 or any(record.failures for record in self._rooms.all())

    def failed(self, what: Fallible, error: BaseException) -> float:
        """Take note of a call that failed, and return how many seconds to wait."""
        FAILING.set(1)
        if not self._told:
            self._told = True
            logger.warning(
                "cannot look for waiting rooms, trying again; "
                "check the LiveKit server if this lasts",
                # The traceback tells whose fault it is where it is none of the usual ones.
                exc_info=None if isinstance(error, API_ERRORS) else error,
                extra={"error": str(error) or type(error).__name__},
            )
        what.failures += 1
        return backoff.pause_s(FIRST_PAUSE_S, what.failures)

    def worked(self, what: Fallible) -> None:
        """Take note of a call that worked."""
        what.failures = 0
        if self._told and not self.lasts:
            self._told = False
            FAILING.set(0)
            logger.info("looking for waiting rooms again")


def _targets(records: list[RoomRecord]) -> dict[str, str]:
    shown = sorted(records, key=lambda record: record.room.name)[:SHOWN_ROOMS]
    return {
        record.room.name: ascii(" or ".join(record.waits_for))[:SHOWN_TARGET] for record in shown
    }
