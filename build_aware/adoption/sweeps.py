"""No session is lost: rooms that wait for an agent get one from a worker that may serve them.

A self-hosted LiveKit server offers a job once. If every worker says no, if none is up, if the
answer is late, or if the worker dies in the call, nobody asks again. So each worker sweeps over
the server's rooms and adopts those that wait: rooms that asked for this agent, have a user in
them and no agent, and whose target this build meets (or whose fallback has come due).

How it joins: directly, not by asking the dispatcher again with `create_dispatch`. In a cluster a
new dispatch goes to one node, the one with the most free capacity, and never to another: where
that node has only other builds, every new dispatch is refused as the first one was. A worker
that joins by itself needs no node's favour. (Seen with two old workers on one node and the new
build on another: none of 20 rooms served after six dispatches each, all 20 by joining.)

Why two agents can never both speak: a room is one list of participants on one node, behind one
lock. Of any two agents that join it, the second one is told of the first in the answer to its
join. It leaves then, before it has said a word; see `claim`. How many workers adopt a room at
once does not matter. An agent that was cut off and finds another one when it comes back leaves too,
within a second or so.

How a session that ended on purpose is told from one that crashed: a session that ends on purpose
withdraws what asked for it. Before it leaves the room it deletes the room's dispatches for this
agent (see `withdrawal`), and a room without one never asked. A crashed session deletes nothing.
Nor does one whose users have left: if they come back to the room they get an agent again.

A worker that drains still owes itself to rooms that no other build may serve, and that it knew
at most `OWED_S` after its stop signal: it goes on adopting those. When its last session has ended
it takes one last look, for users who came a moment too late.

What a sweep costs, for each worker: one call for the list of all rooms, every two seconds and
never more than 2 % of the time; and two calls (participants, dispatches) for a room that looks
as if it waits, one for a room that turns out to have an agent; `watchlist` says when a room is
looked at. None for rooms that are known to have an agent. While a room that was adopted waits
for its agent to join, there is a call every 0.3 seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Set
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, TypeAlias

import aiohttp
from livekit.agents.utils import hw
from livekit.api import LiveKitAPI, TwirpError
from livekit.protocol.agent import Job
from livekit.protocol.models import ParticipantInfo, Room
from livekit.protocol.room import (
    ListParticipantsRequest,
    ListRoomsRequest,
    RoomParticipantIdentity,
)
from prometheus_client import Counter, Gauge

from build_aware.adoption import launch as joining
from build_aware.adoption import notes
from build_aware.adoption.api_errors import API_ERRORS, is_not_found
from build_aware.adoption.judgement import (
    Candidate,
    Empty,
    Finding,
    Fits,
    Served,
    Waiting,
    judge,
    presence,
)
from build_aware.adoption.own_jobs import OwnSession, OwnSessions
from build_aware.adoption.watchlist import Watchlist
from build_aware.dispatch import ages
from build_aware.dispatch.rooms import RoomRecord, Rooms

logger = logging.getLogger(__name__)

SWEEP_S: Final = 2.0
"""From one list of rooms to the next, give or take a quarter, so that workers spread."""

FIRST_SWEEP_S: Final = 0.2
"""The most that a worker which has just registered waits before its first sweep."""

MAX_SHARE: Final = 0.02
"""The share of the time that listing rooms may take; beyond it sweeps get rarer."""

TICK_S: Final = 0.25
"""How often this worker looks after its own sessions, and at what is due. It costs no call."""

MIN_AT_ONCE: Final = 2
"""Rooms that are looked at, or adopted, at the same time: one for each CPU, but at least these.

A slot is held until an agent is in the room. Without that, workers that start together would all
adopt all rooms, and the sessions that come too late would take the CPU from those that stay: 8
workers with 20 rooms on 2 CPUs started 76 sessions in place of 37, and took twice the time.
"""

ARRIVAL_S: Final = 10.0
"""How long a slot is held at most. LiveKit calls a join that takes longer a mistake."""

ARRIVAL_CHECK_S: Final = 0.3
"""How often the room is asked meanwhile: a call each time, only for rooms that are adopted."""

REFUSED_S: Final = 3.5
"""How long after this worker refused a job the room is looked at: the chain of offers is over."""

FULL_S: Final = 2.0
"""How long after a room was found that this worker has no place for it is looked at again."""

MAX_PAUSE_S: Final = 60.0
"""The longest pause after errors, and between adoptions of a room whose sessions keep crashing."""

WARNING_S: Final = 60.0
"""From one warning about rooms that go on waiting to the next. A new one is told at once."""

REQUEST_S: Final = 5.0
"""How long a list of rooms, or a look at one room, may take. LiveKit's client sets no limit."""

OWED_S: Final = 30.0
"""How long after its stop signal a worker may first see a room that it still owes itself to."""

FRESH_S: Final = 6.0
"""For how long a room's numbers may say nothing of its users: they are up to five seconds old."""

LAST_OFFERS_S: Final = 3.5
"""How long a worker that has nothing left to do waits for offers that are still under way."""

BUSY_WAIT_S: Final = 10.0
"""How long a room waits before a worker adopts it that is full by LiveKit's measure of the CPU."""

_FREE_ATTEMPTS: Final = 2
_SHOWN_ROOMS: Final = 10
_LAST_LOOKS_AT_ONCE: Final = 16

ADOPTED: Final = Counter(
    "agent_rooms_adopted_total", "Rooms that this worker served without being asked.", ["reason"]
)
WAITING: Final = Gauge(
    "agent_rooms_waiting", "Rooms that wait for a build which this worker is not."
)
BUSY: Final = Gauge(
    "agent_rooms_waiting_for_cpu",
    "Rooms that wait because LiveKit's measure of the CPU says that this worker is full.",
)
FAILING: Final = Gauge("agent_adoption_failing", "1 while waiting rooms cannot be looked for.")

Launch: TypeAlias = Callable[[Job], Awaitable[None]]


class Adoption:
    """Adopts waiting rooms while it runs.

    Args:
        candidate: what this worker may serve.
        rooms: what this worker knows of the rooms.
        api: opens a client of the server's API.
        sessions: the sessions that run here now, by job id.
        may_adopt: whether this worker can take rooms at all: connected, and not full by its own
            count of sessions.
        busy: whether LiveKit's own measure of the CPU says that this worker is full.
        launch: runs a job here; returns when its process has it.
    """

    def __init__(
        self,
        candidate: Candidate,
        rooms: Rooms,
        *,
        api: Callable[[], AbstractAsyncContextManager[LiveKitAPI]],
        sessions: Callable[[], Mapping[str, OwnSession]],
        may_adopt: Callable[[], bool],
        busy: Callable[[], joining.Busy | None],
        launch: Launch,
    ) -> None:
        self._candidate = candidate
        self._rooms = rooms
        self._open_api = api
        self._api: LiveKitAPI | None = None
        self._sessions = sessions
        self._may_adopt = may_adopt
        self._busy = busy
        self._launch = launch
        self._own = OwnSessions()
        self._watchlist = Watchlist()
        self._sweep_at_s = 0.0
        self._sweep_failures = 0
        self._drain_began_s: float | None = None
        self._alarm = _Alarm()
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_at_once())
        self._while_busy = asyncio.Lock()
        self._starting: set[str] = set()

    @property
    def starting(self) -> Set[str]:
        """Ids of jobs that are about to start here."""
        return self._starting

    @property
    def state(self) -> Literal["on", "failing"]:
        """Whether waiting rooms are found, as far as is known."""
        return "failing" if self._fails() else "on"

    def refused(self, room: str) -> None:
        """Take note that this worker did not take a job: the room may be left waiting."""
        self._watchlist.suspect(room, time.monotonic() + REFUSED_S)

    def sweep_soon(self) -> None:
        """Sweep at once: this worker has just registered, whatever failed before."""
        self._sweep_at_s = time.monotonic() + random.uniform(0, FIRST_SWEEP_S)  # noqa: S311

    def drain_begins(self) -> None:
        """From here on adopt only what this worker owes itself to."""
        self._drain_began_s = now_s = time.monotonic()
        for name, record in self._rooms.all():
            if now_s - record.first_seen_s < FRESH_S:
                self._watchlist.suspect(name, now_s)

    async def run(self) -> None:
        """Sweep until cancelled. Errors, whoever makes them, are logged and waited out."""
        self.sweep_soon()
        async with self._open_api() as self._api:
            try:
                while True:
                    try:
                        await self._tick(self._api)
                    except Exception as error:
                        await asyncio.sleep(self._sweep_failed(error))
                    await asyncio.sleep(TICK_S)
            finally:
                for task in self._looking.values():
                    task.cancel()
                await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def last_look(self) -> bool:
        """Look once more, when no session is left here, for rooms that nobody else may serve.

        Returns:
            Whether a session runs or starts here now.
        """
        if self._api is None or not self._may_adopt():
            return False
        give_up_s = time.monotonic() + LAST_OFFERS_S
        await asyncio.gather(*self._looking.values(), return_exceptions=True)
        try:
            left = [room for room in await self._list(self._api) if self._may_wait(room)]
            while left and not self._sessions():
                left = await self._look_at_last(self._api, left)
                if not left or time.monotonic() > give_up_s:
                    break
                await asyncio.sleep(TICK_S)
        except Exception as error:
            self._sweep_failed(error)
        return bool(self._sessions() or self._starting)

    async def _look_at_last(self, api: LiveKitAPI, rooms: Iterable[Room]) -> list[Room]:
        """Adopt the rooms of these that wait, and return those that are still being offered."""
        at_once = asyncio.Semaphore(_LAST_LOOKS_AT_ONCE)

        async def offered(room: Room) -> bool:
            async with at_once, asyncio.timeout(REQUEST_S):
                record = self._rooms.get(room.name)
                if record is None:
                    return False
                finding = await self._look(api, room, record, also_empty=True)
                if isinstance(finding, Fits) and self._is_owed(record, finding):
                    await self._start(room, record, finding)
                return isinstance(finding, Waiting) and finding.offered and finding.only_ours

        rooms = list(rooms)
        answers = await asyncio.gather(*map(offered, rooms), return_exceptions=True)
        return [room for room, answer in zip(rooms, answers, strict=True) if answer is True]

    def _may_wait(self, room: Room) -> bool:
        """Whether a user may be in a room, whose numbers are up to five seconds old."""
        record = self._rooms.get(room.name)
        if record is None or room.name in self._own.rooms:
            return False
        age_s = time.monotonic() - record.first_seen_s
        if (server_now_s := ages.server_now_s()) is not None:
            age_s = max(age_s, server_now_s - room.creation_time)
        return room.num_participants > 0 or age_s < FRESH_S

    async def _tick(self, api: LiveKitAPI) -> None:
        now_s = time.monotonic()
        for room in self._own.follow(self._sessions(), now_s):
            self._watchlist.suspect(room, now_s)
            if (record := self._rooms.get(room)) is not None:
                record.has_agent = False
                record.held_until_s = now_s
        for room in self._own.rooms:
            if (record := self._rooms.get(room)) is not None:
                record.has_agent = True
        if self._may_adopt():
            if now_s >= self._sweep_at_s:
                await self._sweep(api)
            self._look_at_what_is_due(api)
            self._alarm.check(self._rooms, self._busy())

    async def _sweep(self, api: LiveKitAPI) -> None:
        began_s = time.monotonic()
        try:
            await self._list(api)
        except Exception as error:
            self._sweep_at_s = time.monotonic() + self._sweep_failed(error)
            return
        now_s = time.monotonic()
        pause_s = max(SWEEP_S, (now_s - began_s) / MAX_SHARE)
        self._sweep_at_s = now_s + pause_s * random.uniform(0.75, 1.25)  # noqa: S311

    async def _list(self, api: LiveKitAPI) -> list[Room]:
        async with asyncio.timeout(REQUEST_S):
            rooms = list((await api.room.list_rooms(ListRoomsRequest())).rooms)
        failed, self._sweep_failures = self._fails(), 0
        now_s = time.monotonic()
        new = self._rooms.listed(rooms, now_s)
        self._watchlist.listed(rooms, now_s)
        if self._drain_began_s is not None and now_s < self._drain_began_s + OWED_S:
            for name in new:
                self._watchlist.suspect(name, now_s)
        self._tell_if_mended(failed)
        return rooms

    def _look_at_what_is_due(self, api: LiveKitAPI) -> None:
        now_s = time.monotonic()
        self._looking = {name: task for name, task in self._looking.items() if not task.done()}
        busy = self._looking.keys() | self._own.rooms
        for room in self._watchlist.due(now_s, without=busy):
            record = self._rooms.get(room.name)
            if record is None:
                continue
            if now_s < record.held_until_s:
                self._watchlist.postpone(room.name, record.held_until_s)
                continue
            self._looking[room.name] = asyncio.create_task(self._look_and_adopt(api, room, record))

    async def _look_and_adopt(self, api: LiveKitAPI, room: Room, record: RoomRecord) -> None:
        async with self._slots:
            if not self._may_adopt():
                self._watchlist.postpone(room.name, time.monotonic() + FULL_S)
                return
            try:
                async with asyncio.timeout(REQUEST_S):
                    finding = await self._look(api, room, record)
            except Exception as error:
                if is_not_found(error):
                    self._watchlist.unserved(room.name, time.monotonic())  # It has just closed.
                else:
                    pause_s = self._failed(record, error)
                    self._watchlist.postpone(room.name, time.monotonic() + pause_s)
                return
            failed, record.failures = self._fails(), 0
            self._tell_if_mended(failed)
            await self._act(api, room, record, finding)

    async def _act(self, api: LiveKitAPI, room: Room, record: RoomRecord, finding: Finding) -> None:
        now_s = time.monotonic()
        record.waits_for = finding.names if isinstance(finding, Waiting) else ()
        record.waits_for_cpu = False
        if isinstance(finding, Fits) and self._is_owed(record, finding):
            await self._adopt(api, room, record, finding)
        elif isinstance(finding, Served):
            record.attempts = 0
            self._watchlist.served(room.name, now_s)
        elif isinstance(finding, Waiting) and finding.in_s is not None:
            self._watchlist.postpone(room.name, now_s + finding.in_s)
        else:
            self._watchlist.unserved(room.name, now_s)

    def _is_owed(self, record: RoomRecord, finding: Fits) -> bool:
        """Whether this worker may still take a room that it may serve."""
        if self._drain_began_s is None:
            return True
        owed_until_s = self._drain_began_s + OWED_S
        asked_at_s = time.monotonic() - finding.asked_s
        return finding.only_ours and max(record.first_seen_s, asked_at_s) <= owed_until_s

    async def _look(
        self, api: LiveKitAPI, room: Room, record: RoomRecord, *, also_empty: bool = False
    ) -> Finding:
        """Find out what a room needs.

        Args:
            api: the server's API.
            room: the room.
            record: what is known of it.
            also_empty: whether to look at offers that are under way where no user is yet.
        """
        request = ListParticipantsRequest(room=room.name)
        participants: list[ParticipantInfo] = []
        for participant in (await api.room.list_participants(request)).participants:
            if self._own.is_dead(participant.identity):
                # LiveKit would show it for another twenty seconds.
                await _remove(api, room.name, participant.identity)
            else:
                participants.append(participant)
        seen = presence(participants, self._candidate.agent_name)
        record.has_agent = isinstance(seen, Served)
        if record.has_agent:
            record.served_s = time.monotonic()
        if seen is not None and not (also_empty and isinstance(seen, Empty)):
            return seen
        dispatches = list(await api.agent_dispatch.list_dispatch(room.name))
        asking = self._candidate.asked_in(dispatches)
        if asking:
            record.dispatch = max(asking, key=lambda each: each.state.created_at)
        elif not notes.is_noted(self._candidate.agent_name, dispatches):
            dispatches += record.asked_before()
        now_s = time.monotonic()
        finding = judge(
            self._candidate,
            participants=participants,
            dispatches=dispatches,
            asked=lambda dispatch: record.asked(dispatch.metadata, room.metadata),
            dead_jobs=self._own.dead_jobs,
            age=record.ages.at(now_s, ages.server_now_s()),
            served_ago_s=now_s - record.served_s,
        )
        return seen if seen is not None and isinstance(finding, Fits) else finding

    async def _adopt(self, api: LiveKitAPI, room: Room, record: RoomRecord, finding: Fits) -> None:
        now_s = time.monotonic()
        if not self._may_adopt():
            self._watchlist.postpone(room.name, now_s + FULL_S)
        elif record.not_before_s > now_s:
            self._watchlist.postpone(room.name, record.not_before_s)
        elif self._drain_began_s is not None or self._busy() is None:
            await self._start_and_wait(api, room, record, finding)
        elif finding.waited_s < BUSY_WAIT_S:
            record.waits_for_cpu = True
            self._watchlist.postpone(room.name, now_s + BUSY_WAIT_S - finding.waited_s)
        elif self._while_busy.locked():
            record.waits_for_cpu = True
            self._watchlist.postpone(room.name, now_s + TICK_S)
        else:
            async with self._while_busy:
                await self._start_and_wait(api, room, record, finding)

    async def _start_and_wait(
        self, api: LiveKitAPI, room: Room, record: RoomRecord, finding: Fits
    ) -> None:
        job = await self._start(room, record, finding)
        if job is not None:
            await self._wait_for_an_agent(api, room, job)

    async def _start(self, room: Room, record: RoomRecord, finding: Fits) -> Job | None:
        record.attempts += 1
        # The first attempts may follow at once: a crash is rarely the room's fault.
        pause_s = 0.0
        if record.attempts > _FREE_ATTEMPTS:
            pause_s = min(2.0 ** min(record.attempts, 6), MAX_PAUSE_S)
        record.not_before_s = time.monotonic() + pause_s
        self._watchlist.postpone(room.name, time.monotonic() + max(pause_s, FULL_S))
        logger.info(
            "adopting a waiting room",
            extra={
                "room": room.name,
                "room_id": room.sid,
                "dispatch_id": finding.dispatch.id,
                "reason": finding.reason,
                "attempt": record.attempts,
            },
        )
        ADOPTED.labels(finding.reason).inc()
        job = joining.job_for(finding.dispatch, room)
        self._starting.add(job.id)
        try:
            await self._launch(job)
        except Exception as error:
            # LiveKit raises whatever its last attempt to reach a job process has raised.
            logger.error(
                "a waiting room could not be adopted; see why job processes do not start",
                extra={"room": room.name, "error": str(error) or type(error).__name__},
            )
            return None
        finally:
            self._starting.discard(job.id)
        return job

    async def _wait_for_an_agent(self, api: LiveKitAPI, room: Room, job: Job) -> None:
        """Wait until somebody serves the room, or the session that should has ended."""
        request = ListParticipantsRequest(room=room.name)
        with contextlib.suppress(Exception):  # The next look at this room says more.
            async with asyncio.timeout(ARRIVAL_S):
                while job.id in self._sessions():
                    await asyncio.sleep(ARRIVAL_CHECK_S)
                    seen = (await api.room.list_participants(request)).participants
                    alive = [each for each in seen if not self._own.is_dead(each.identity)]
                    if isinstance(presence(alive, self._candidate.agent_name), Served):
                        return

    def _fails(self) -> bool:
        return self._sweep_failures > 0 or any(record.failures for _, record in self._rooms.all())

    def _sweep_failed(self, error: BaseException) -> float:
        self._tell(error)
        self._sweep_failures += 1
        return _pause_s(self._sweep_failures)

    def _failed(self, record: RoomRecord, error: BaseException) -> float:
        self._tell(error)
        record.failures += 1
        return _pause_s(record.failures)

    def _tell(self, error: BaseException) -> None:
        FAILING.set(1)
        if not self._fails():
            logger.warning(
                "waiting rooms cannot be looked for, trying again; "
                "look at the LiveKit server if this lasts",
                # The traceback tells whose fault it is where it is none of the usual ones.
                exc_info=None if isinstance(error, API_ERRORS) else error,
                extra={"error": str(error) or type(error).__name__},
            )

    def _tell_if_mended(self, failed: bool) -> None:
        if failed and not self._fails():
            FAILING.set(0)
            logger.info("waiting rooms are looked for again")


class _Alarm:
    """Warns of rooms that go on waiting: of new ones at once, of all of them from time to time."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._next_s = 0.0

    def check(self, rooms: Rooms, busy: joining.Busy | None) -> None:
        """Warn if there is reason to; to be called again and again."""
        waiting = {name: record.waits_for for name, record in rooms.all() if record.waits_for}
        for_cpu = {name for name, record in rooms.all() if busy and record.waits_for_cpu}
        WAITING.set(len(waiting))
        BUSY.set(len(for_cpu))
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._told.clear()
            self._next_s = now_s + WARNING_S
        if new := waiting.keys() - self._told:
            shown = sorted(new)[:_SHOWN_ROOMS]
            logger.warning(
                "rooms wait for another build than this; start it, or correct their target",
                extra={
                    "count": len(waiting),
                    "rooms": {room: ascii(" or ".join(waiting[room]))[:80] for room in shown},
                },
            )
        if busy and (new_for_cpu := for_cpu - self._told):
            logger.warning(
                "rooms wait although this build may serve them: LiveKit counts this worker as full "
                "by the CPU of its machine. Add CPUs or workers, or set AGENT_MAX_SESSIONS",
                extra={
                    "count": len(for_cpu),
                    "rooms": sorted(new_for_cpu)[:_SHOWN_ROOMS],
                    "load": round(busy.load, 2),
                    "threshold": busy.threshold,
                },
            )
        self._told |= waiting.keys() | for_cpu


@contextlib.asynccontextmanager
async def client(credentials: tuple[str, str, str]) -> AsyncIterator[LiveKitAPI]:
    """A client of the server's API. Proxies are those of the environment.

    Args:
        credentials: URL, API key and API secret.
    """
    url, api_key, api_secret = credentials
    async with aiohttp.ClientSession(trust_env=True, trace_configs=[ages.dates()]) as http:
        yield LiveKitAPI(url, api_key, api_secret, session=http)


def _at_once() -> int:
    return max(MIN_AT_ONCE, int(hw.get_cpu_monitor().cpu_count()))


def _pause_s(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return float(min(SWEEP_S * 2 ** min(failures - 1, 5), MAX_PAUSE_S))


async def _remove(api: LiveKitAPI, room: str, identity: str) -> None:
    try:
        await api.room.remove_participant(RoomParticipantIdentity(room=room, identity=identity))
    except TwirpError as error:
        if not is_not_found(error):
            raise
