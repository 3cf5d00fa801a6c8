"""Lists all rooms of the server, again and again: when to, and how long to wait after an error."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

from livekit.api import LiveKitAPI
from livekit.protocol.models import Room
from livekit.protocol.room import ListRoomsRequest

from build_aware.adoption.client import REQUEST_S

SWEEP_S: Final = 2.0
"""From one list of rooms to the next, give or take `SPREAD` of it."""

SPREAD: Final = 0.25
"""By how much of itself that time differs, so that workers spread."""

FIRST_SWEEP_S: Final = 0.2
"""The most that a worker which has just registered waits before its first sweep."""

MAX_SHARE: Final = 0.02
"""The share of the time that listing rooms may take; beyond it sweeps get rarer."""


class Sweep:
    """The list of all rooms, one call each time.

    Args:
        take_in: takes in what was listed, and the monotonic time of that in seconds.

    Attributes:
        failures: how many lists in a row have failed.
        apart_s: how long after the last list the next one is at the latest.
    """

    def __init__(self, take_in: Callable[[list[Room], float], None]) -> None:
        self._take_in = take_in
        self._next_s = 0.0
        self.failures = 0
        self.apart_s = SWEEP_S * (1 + SPREAD)

    def soon(self) -> None:
        """Sweep at once, whatever failed before."""
        self._next_s = time.monotonic() + random.uniform(0, FIRST_SWEEP_S)  # noqa: S311

    def wait(self, pause_s: float) -> None:
        """Do not sweep again for a while."""
        self._next_s = time.monotonic() + pause_s

    def is_due(self, now_s: float) -> bool:
        """Whether to sweep now."""
        return now_s >= self._next_s

    async def list_rooms(self, api: LiveKitAPI) -> list[Room]:
        """List all rooms, take them in, and set the time of the next sweep.

        Raises:
            API_ERRORS: the call failed; anything else if the server answers in no known form.
        """
        began_s = time.monotonic()
        async with asyncio.timeout(REQUEST_S):
            rooms = list((await api.room.list_rooms(ListRoomsRequest())).rooms)
        now_s = time.monotonic()
        pause_s = max(SWEEP_S, (now_s - began_s) / MAX_SHARE)
        self.apart_s = pause_s * (1 + SPREAD)
        self._take_in(rooms, now_s)
        self.wait(pause_s * random.uniform(1 - SPREAD, 1 + SPREAD))  # noqa: S311
        return rooms
