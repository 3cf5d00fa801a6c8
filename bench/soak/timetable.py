"""The times of a plan as they come: on a slow machine everything comes later, in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence


class Timetable:
    """Waits for times of a plan; where a fault comes late, so does all that is planned after it.

    Args:
        faults: the planned times of the faults, in order, in seconds.
        clock: the time in seconds; the plan begins now.
    """

    def __init__(self, faults: Sequence[float], clock: Callable[[], float]) -> None:
        self._faults = [(at_s, asyncio.Event()) for at_s in faults]
        self._clock = clock
        self._zero_s = clock()

    async def fault(self, number: int) -> None:
        """Wait for the time of a fault, which begins now."""
        at_s, begun = self._faults[number]
        await self._until(at_s)
        self._zero_s = self._clock() - at_s
        begun.set()

    async def user(self, at_s: float) -> None:
        """Wait for the time of anything else."""
        for fault_s, begun in self._faults:
            if fault_s < at_s:
                await begun.wait()
        await self._until(at_s)

    async def _until(self, at_s: float) -> None:
        while True:  # A fault may come late meanwhile.
            left_s = self._zero_s + at_s - self._clock()
            if left_s <= 0:
                return
            await asyncio.sleep(left_s)
