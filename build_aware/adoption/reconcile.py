"""Looks at rooms when they are due, and acts on what is found."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Mapping, Set
from typing import Any, Final

from livekit.agents.utils import hw
from livekit.api import LiveKitAPI

from build_aware.adoption.adopt import FULL_S, Adopter
from build_aware.adoption.alarm import Trouble
from build_aware.adoption.api_errors import is_gone, is_not_found
from build_aware.adoption.client import REQUEST_S
from build_aware.adoption.judgement import Finding, Fits, Served, Waiting
from build_aware.adoption.left_jobs import LeftJobs
from build_aware.adoption.look import Lookout
from build_aware.adoption.watchlist import RECHECK_S, Watchlist
from build_aware.dispatch.agents import Role
from build_aware.dispatch.room_record import RoomRecord

MIN_AT_ONCE: Final = 2
"""Rooms that are looked at, or adopted, at the same time: one for each CPU, but at least these.

A slot is held until an agent is in the room. Without that, workers that start together would all
adopt all rooms, and the sessions that come too late would take the CPU from those that stay: 8
workers with 20 rooms on 2 CPUs started 76 sessions in place of 37, and took twice the time.
"""

UNREACHABLE_AT_MOST: Final = 10
"""A room whose node does not answer is looked at ever more rarely, in so many minutes at most."""


class Reconciler:
    """Gives rooms that are due what they need, each in a task of its own.

    Args:
        lookout: asks the server about a room.
        adopter: starts jobs here.
        watchlist: says which rooms are due.
        trouble: is told of calls that fail, and that work.
        left: knows which jobs this worker leaves to another build.
        may_adopt: whether this worker can take rooms at all.
        adoptable_in_s: in how many seconds this worker may take what it may serve in a room.
    """

    def __init__(
        self,
        lookout: Lookout,
        adopter: Adopter,
        watchlist: Watchlist,
        trouble: Trouble,
        left: LeftJobs,
        *,
        may_adopt: Callable[[], bool],
        adoptable_in_s: Callable[[RoomRecord, Fits], float],
    ) -> None:
        self._lookout = lookout
        self._adopter = adopter
        self._watchlist = watchlist
        self._trouble = trouble
        self._left = left
        self._may_adopt = may_adopt
        self._adoptable_in_s = adoptable_in_s
        self._slots = asyncio.Semaphore(max(MIN_AT_ONCE, int(hw.get_cpu_monitor().cpu_count())))

    def begin(self, api: LiveKitAPI, *, served_here: Mapping[str, Set[Role]]) -> None:
        """Begin to look at all that is due.

        Args:
            api: the server's API.
            served_here: the roles for which jobs run here, by room.
        """
        now_s = time.monotonic()

        def is_served_here(record: RoomRecord) -> bool:
            roles = served_here.get(record.room.name)
            return roles is not None and record.roles <= roles

        for record in self._watchlist.due(now_s, served_here=is_served_here):
            _begin(record, self._look(api, record))
        for record in self._watchlist.due_checks(now_s, served_here=is_served_here):
            _begin(record, self._check(api, record))

    async def _check(self, api: LiveKitAPI, record: RoomRecord) -> None:
        name = record.room.name
        try:
            async with asyncio.timeout(REQUEST_S):
                unchanged = await self._lookout.check(api, record)
        except Exception as error:
            self._look_failed(record, error)
        else:
            self._trouble.worked(record)
            if unchanged:
                self._watchlist.seen(name, len(record.agents), time.monotonic())
            else:
                self._watchlist.suspect(name, time.monotonic())

    async def _look(self, api: LiveKitAPI, record: RoomRecord) -> None:
        async with self._slots:
            name = record.room.name
            now_s = time.monotonic()
            if not self._may_adopt():
                self._watchlist.postpone(name, now_s + FULL_S)
            elif now_s < record.held_until_s:
                self._watchlist.postpone(name, record.held_until_s)
            else:
                try:
                    async with asyncio.timeout(REQUEST_S):
                        finding = await self._lookout.look(
                            api,
                            record,
                            adoptable_in_s=functools.partial(self._adoptable_in_s, record),
                        )
                except Exception as error:
                    self._look_failed(record, error)
                else:
                    self._trouble.worked(record)
                    record.unreachable = 0
                    self._left.looked(record)
                    await self._act(api, record, finding)

    def _look_failed(self, record: RoomRecord, error: Exception) -> None:
        name = record.room.name
        if is_not_found(error):
            self._watchlist.unserved(name, time.monotonic())  # It has just closed.
        elif is_gone(error):
            # Its node is gone, most likely, and whoever comes back changes its numbers. Many such
            # rooms would keep those that wait from being looked at.
            record.unreachable = min(record.unreachable + 1, UNREACHABLE_AT_MOST)
            if record.unreachable == 1:
                self._watchlist.unserved(name, time.monotonic())
            else:
                pause_s = RECHECK_S * record.unreachable
                self._watchlist.postpone(name, time.monotonic() + pause_s)
        else:
            self._watchlist.postpone(name, time.monotonic() + self._trouble.failed(record, error))

    async def _act(self, api: LiveKitAPI, record: RoomRecord, finding: Finding) -> None:
        name = record.room.name
        now_s = time.monotonic()
        record.waits_for = finding.names if isinstance(finding, Waiting) else ()
        record.waits_for_cpu = False
        self._watchlist.seen(name, len(record.agents), now_s)
        if isinstance(finding, Fits):
            again_in_s = await self._adopter.adopt(api, record, finding)
            self._watchlist.postpone(name, time.monotonic() + again_in_s)
        elif isinstance(finding, Served):
            self._watchlist.served(name, now_s, verify=not finding.asked)
        elif isinstance(finding, Waiting) and finding.in_s is not None:
            self._watchlist.postpone(name, now_s + finding.in_s)
        else:
            self._watchlist.unserved(name, now_s)


def _begin(record: RoomRecord, looking: Coroutine[Any, Any, None]) -> None:
    record.look = asyncio.create_task(looking)
