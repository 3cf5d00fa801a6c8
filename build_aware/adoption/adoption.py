"""No session is lost: rooms that wait for an agent get one from a worker that may serve them.

A self-hosted LiveKit server offers a job once. If every worker says no, if none is up, if the
answer is late, or if the worker dies in the call, nobody asks again. So each worker sweeps over
the server's rooms and adopts those that wait: rooms that asked for this agent, have a user in
them and no agent for one of their dispatches, and whose target this build meets (or whose fallback
has come due).

How it joins: directly, not by asking the dispatcher again with `create_dispatch`. In a cluster a
new dispatch goes to one node, the one with the most free capacity, and never to another: where
that node has only other builds, every new dispatch is refused as the first one was. A worker
that joins by itself needs no node's favour. (Seen with two old workers on one node and the new
build on another: none of 20 rooms served after six dispatches each, all 20 by joining.)

Why two agents can never both speak for one dispatch: a room is one list of participants on one
node, behind one lock. Of any two agents that join it, the second one is told of the first in the
answer to its join. It leaves then, before it has said a word; see `claim`. How many workers adopt
a room at once does not matter. An agent that was cut off and finds another one when it comes back
leaves too, within a second or so. Which agent serves which dispatch is said in `dispatch.agents`.

How a session that ended on purpose is told from one that crashed: a session that ends on purpose
withdraws what asked for it. Before it leaves the room it deletes the dispatch that it serves (see
`withdrawal`), and a room without one never asked. A crashed session deletes nothing. Nor does one
whose users have left: if they come back to the room they get an agent again. A dispatch that a
team's request handler has ended for everybody is known by its job; see `judgement.was_ended`.

A worker that drains still owes itself to rooms that no other build may serve, and that it knew
at most `OWED_S` after its stop signal: it goes on adopting those. When its last session has ended
it takes one last look, for users who came a moment too late.

What a sweep costs, for each worker: one call for the list of all rooms, every two seconds and
never more than 2 % of the time; and two calls for each room that is looked at, or a few more; see
`look`, and for when `watchlist`. None for rooms that are known to have their agents. While a room
that was adopted waits for its agent to join, there is a call every 0.3 seconds.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal

from livekit.api import LiveKitAPI
from livekit.protocol.agent import Job
from livekit.protocol.models import Room

from build_aware.adoption.adopt import Adopter
from build_aware.adoption.alarm import Alarm, Trouble
from build_aware.adoption.judgement import Candidate, Fits
from build_aware.adoption.keeper import Keeper
from build_aware.adoption.last_look import FRESH_S, LAST_OFFERS_S, LastLook
from build_aware.adoption.launch import Busy, Launch
from build_aware.adoption.left_jobs import LEFT_S, LeftJobs
from build_aware.adoption.look import Lookout
from build_aware.adoption.own_jobs import OwnJobs
from build_aware.adoption.reconcile import Reconciler
from build_aware.adoption.sweep import Sweep
from build_aware.adoption.watchlist import Watchlist
from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.rooms import Rooms

TICK_S: Final = 0.25
"""How often this worker looks after its own jobs, and at what is due. It costs no call."""

REFUSED_S: Final = 3.5
"""How long after this worker refused a job the room is looked at: the chain of offers is over."""

OWED_S: Final = 30.0
"""How long after its stop signal a worker may first see a room that it still owes itself to."""


class Adoption:
    """Adopts waiting rooms while it runs.

    Args:
        candidate: what this worker may serve.
        rooms: what this worker knows of the rooms.
        api: opens a client of the server's API.
        sessions: the jobs that run here now, by id.
        accepting: the jobs that were accepted here and do not run yet.
        connected: whether this worker is registered. Also a full one has to know the rollout.
        may_adopt: whether it can take rooms: connected, and not full by its own count of sessions.
        busy: LiveKit's own measure of the CPU if this worker is full by that, else None.
        launch: asks the request handler whether to run a job here, and runs it; returns when its
            process has it. As a rule `functools.partial(launch.launch, server, ask=...,
            credentials=...)`.
        left: the jobs that this worker leaves to another build.
        keeper: keeps the rollout, where there is one.
    """

    def __init__(
        self,
        candidate: Candidate,
        rooms: Rooms,
        *,
        api: Callable[[], AbstractAsyncContextManager[LiveKitAPI]],
        sessions: Callable[[], Mapping[str, Job]],
        accepting: Callable[[], Iterable[Job]],
        connected: Callable[[], bool],
        may_adopt: Callable[[], bool],
        busy: Callable[[], Busy | None],
        launch: Launch,
        left: LeftJobs,
        keeper: Keeper | None = None,
    ) -> None:
        self._rooms = rooms
        self._left = left
        self._keeper = keeper
        self._open_api = api
        self._api: LiveKitAPI | None = None
        self._sessions = sessions
        self._connected = connected
        self._may_adopt = may_adopt
        self._busy = busy
        self._own = OwnJobs()
        self._watchlist = Watchlist(rooms)
        self._lookout = Lookout(candidate, self._own, accepting)
        self._adopter = Adopter(
            self._lookout,
            self._own,
            sessions=sessions,
            may_adopt=may_adopt,
            busy=busy,
            launch=launch,
            left=left,
        )
        self._sweep = Sweep(self._take_in)
        self._alarm = Alarm(rooms)
        self._trouble = Trouble(self._sweep, rooms)
        self._reconciler = Reconciler(
            self._lookout,
            self._adopter,
            self._watchlist,
            self._trouble,
            left,
            may_adopt=may_adopt,
            adoptable_in_s=self._adoptable_in_s,
        )
        self._last_look = LastLook(
            rooms,
            self._own,
            self._lookout,
            self._adopter,
            sessions=sessions,
            adoptable_in_s=self._adoptable_in_s,
        )
        self._drain_began_s: float | None = None

    @property
    def starting(self) -> Set[str]:
        """Ids of jobs that are about to start here."""
        return self._adopter.starting

    @property
    def state(self) -> Literal["on", "failing"]:
        """Whether waiting rooms are found, as far as is known."""
        return "failing" if self._trouble.lasts else "on"

    def refused(self, room: str) -> None:
        """Take note that this worker did not take a job: the room may be left waiting."""
        self._watchlist.suspect(room, time.monotonic() + REFUSED_S)

    def accepted(self, job: Job) -> None:
        """Take note of a job that this worker has begun: it may crash before the next tick."""
        self._own.begins(job, time.monotonic())

    def left(self, job: Job) -> None:
        """Take note of a job that this worker has refused for another build by the rollout."""
        now_s = time.monotonic()
        if (record := self._rooms.get(job.room.name)) is not None:
            self._left.refused(record, job.dispatch_id, now_s)
            record.watch.suspect(now_s + LEFT_S)

    def registered(self) -> None:
        """This worker has registered: sweep at once, whatever failed before."""
        self._sweep.soon()
        if self._keeper is not None:
            self._keeper.registered(time.monotonic())

    def drain_begins(self) -> None:
        """From here on adopt only what this worker owes itself to."""
        self._drain_began_s = now_s = time.monotonic()
        for record in self._rooms.all():
            if now_s - record.first_seen_s < FRESH_S:
                record.watch.suspect(now_s)

    async def run(self) -> None:
        """Sweep until cancelled. Errors, whoever makes them, are logged and waited out."""
        self.registered()
        async with self._open_api() as self._api:
            try:
                while True:
                    try:
                        await self._tick(self._api)
                    except Exception as error:
                        await asyncio.sleep(self._trouble.failed(self._sweep, error))
                    await asyncio.sleep(TICK_S)
            finally:
                for task in (looks := self._rooms.looks()):
                    task.cancel()
                await asyncio.gather(*looks, return_exceptions=True)
                await self._left.close()
                if self._keeper is not None:
                    await self._keeper.close()

    async def last_look(self) -> bool:
        """Look once more, when no session is left here, for rooms that nobody else may serve.

        Returns:
            Whether a session runs or starts here now.
        """
        if self._api is None or not self._may_adopt():
            return False
        give_up_s = time.monotonic() + LAST_OFFERS_S
        await asyncio.gather(*self._rooms.looks(), return_exceptions=True)
        try:
            self._follow_own_jobs()
            rooms = await self._sweep.list_rooms(self._api)
            await self._last_look.look(self._api, rooms, give_up_s=give_up_s)
        except Exception as error:
            self._trouble.failed(self._sweep, error)
        return bool(self._sessions() or self.starting)

    async def _tick(self, api: LiveKitAPI) -> None:
        self._follow_own_jobs()
        if not self._connected():
            return
        now_s = time.monotonic()
        counts = self._keeper is not None and self._keeper.is_due(now_s)
        if self._sweep.is_due(now_s) or (counts and not self._sweep.failures):
            try:
                await self._sweep.list_rooms(api)
            except Exception as error:
                self._sweep.wait(self._trouble.failed(self._sweep, error))
        if not self._may_adopt():
            return
        self._reconciler.begin(api, served_here=self._own.roles(time.monotonic()))
        self._alarm.check(self._busy())

    def _follow_own_jobs(self) -> None:
        now_s = time.monotonic()
        for room in self._own.update(self._sessions(), now_s):
            self._watchlist.suspect(room, now_s)
            if (record := self._rooms.get(room)) is not None:
                record.has_agent = False
                record.held_until_s = now_s
        for room in self._own.rooms:
            if (record := self._rooms.get(room)) is not None:
                record.has_agent = True

    def _take_in(self, rooms: list[Room], now_s: float) -> None:
        new = self._watchlist.listed(rooms, now_s)
        if self._drain_began_s is not None and now_s < self._drain_began_s + OWED_S:
            for name in new:
                self._watchlist.suspect(name, now_s)
        self._trouble.worked(self._sweep)
        self._left.lists_are(self._sweep.apart_s)
        if self._keeper is not None and self._api is not None:
            self._keeper.take_in(self._api, rooms, now_s)

    def _adoptable_in_s(self, record: RoomRecord, fits: Fits, *, patient: bool = True) -> float:
        """In how many seconds this worker may take what it may serve; infinite for never.

        Args:
            record: the room.
            fits: what it may serve there.
            patient: whether to wait after sessions that crashed.
        """
        now_s = time.monotonic()
        known = record.of(fits.dispatch)
        if self._drain_began_s is not None:
            owed_until_s = self._drain_began_s + OWED_S
            known_since_s = max(record.first_seen_s, now_s - fits.asked_s)
            if not fits.only_ours or known_since_s > owed_until_s:
                return math.inf
        if known.was_before(now_s - fits.first_user_s):
            patient = False
        pause_s = max(known.refused_until_s, known.not_before_s if patient else now_s) - now_s
        return pause_s if pause_s > 0 else self._left.for_another_s(record, fits, now_s)
