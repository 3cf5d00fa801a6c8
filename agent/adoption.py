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
agent (`claim.withdraw`), and a room without one never asked. A crashed session deletes nothing.
Nor does one whose users have left: if they come back to the room they get an agent again.

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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Set
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

from . import joining
from .api_errors import API_ERRORS, is_not_found
from .own_sessions import OwnSession, OwnSessions
from .waiting import Candidate, Finding, Fits, Served, Waiting, judge, presence
from .watchlist import Watchlist

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
"""The shortest time between two warnings about waiting rooms."""

REQUEST_S: Final = 5.0
"""How long a list of rooms, or a look at one room, may take. LiveKit's client sets no limit."""

_ALL_ROOMS: Final = ""
_FREE_ATTEMPTS: Final = 2
_SHOWN_ROOMS: Final = 10

ADOPTED: Final = Counter(
    "agent_rooms_adopted_total", "Rooms that this worker served without being asked.", ["reason"]
)
WAITING: Final = Gauge(
    "agent_rooms_waiting", "Rooms that wait for a build which this worker is not."
)
FAILING: Final = Gauge("agent_adoption_failing", "1 while waiting rooms cannot be looked for.")

Launch: TypeAlias = Callable[[Job], Awaitable[None]]


class Adoption:
    """Adopts waiting rooms while it runs.

    Args:
        candidate: what this worker may serve.
        api: opens a client of the server's API.
        sessions: the sessions that run here now, by job id.
        may_adopt: whether this worker takes rooms now: connected, not draining, not full.
        launch: runs a job here; returns when its process has it.
    """

    def __init__(
        self,
        candidate: Candidate,
        *,
        api: Callable[[], AbstractAsyncContextManager[LiveKitAPI]],
        sessions: Callable[[], Mapping[str, OwnSession]],
        may_adopt: Callable[[], bool],
        launch: Launch,
    ) -> None:
        self._candidate = candidate
        self._open_api = api
        self._sessions = sessions
        self._may_adopt = may_adopt
        self._launch = launch
        self._own = OwnSessions()
        self._watchlist = Watchlist()
        self._sweep_at_s = 0.0
        self._failures: dict[str, int] = {}
        self._served_s: dict[str, float] = {}
        self._attempts: dict[str, int] = {}
        self._not_before_s: dict[str, float] = {}
        self._waiting: dict[str, tuple[str, ...]] = {}
        self._warn_at_s = 0.0
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_at_once())
        self._starting: set[str] = set()

    @property
    def starting(self) -> Set[str]:
        """Ids of jobs that are about to start here."""
        return self._starting

    def refused(self, room: str) -> None:
        """Take note that this worker did not take a job: the room may be left waiting."""
        self._watchlist.suspect(room, time.monotonic() + REFUSED_S)

    def sweep_soon(self) -> None:
        """Sweep at once: this worker has just registered, whatever failed before."""
        self._sweep_at_s = time.monotonic() + random.uniform(0, FIRST_SWEEP_S)  # noqa: S311

    @property
    def state(self) -> Literal["on", "failing"]:
        """Whether waiting rooms are found, as far as is known."""
        return "failing" if self._failures else "on"

    async def run(self) -> None:
        """Sweep until cancelled. Errors, whoever makes them, are logged and waited out."""
        self.sweep_soon()
        async with self._open_api() as api:
            try:
                while True:
                    try:
                        await self._tick(api)
                    except Exception as error:
                        await asyncio.sleep(self._failed(_ALL_ROOMS, error))
                    await asyncio.sleep(TICK_S)
            finally:
                for task in self._looking.values():
                    task.cancel()
                await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def _tick(self, api: LiveKitAPI) -> None:
        now_s = time.monotonic()
        for room in self._own.follow(self._sessions(), now_s):
            self._watchlist.suspect(room, now_s)
        if self._may_adopt():
            if now_s >= self._sweep_at_s:
                await self._sweep(api)
            self._look_at_what_is_due(api)
            self._warn()

    async def _sweep(self, api: LiveKitAPI) -> None:
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_S):
                rooms = (await api.room.list_rooms(ListRoomsRequest())).rooms
        except Exception as error:
            self._sweep_at_s = time.monotonic() + self._failed(_ALL_ROOMS, error)
            return
        now_s = time.monotonic()
        pause_s = max(SWEEP_S, (now_s - began_s) / MAX_SHARE)
        self._sweep_at_s = now_s + pause_s * random.uniform(0.75, 1.25)  # noqa: S311
        self._succeeded(_ALL_ROOMS)
        self._watchlist.listed(rooms, now_s)
        names = {room.name for room in rooms}
        for memory in (self._served_s, self._attempts, self._not_before_s, self._waiting):
            for name in memory.keys() - names:
                del memory[name]
        for name in self._failures.keys() - names:
            self._succeeded(name)

    def _look_at_what_is_due(self, api: LiveKitAPI) -> None:
        self._looking = {name: task for name, task in self._looking.items() if not task.done()}
        busy = self._looking.keys() | self._own.rooms
        for room in self._watchlist.due(time.monotonic(), without=busy):
            self._looking[room.name] = asyncio.create_task(self._look_and_adopt(api, room))

    async def _look_and_adopt(self, api: LiveKitAPI, room: Room) -> None:
        async with self._slots:
            if not self._may_adopt():
                self._watchlist.postpone(room.name, time.monotonic() + FULL_S)
                return
            try:
                async with asyncio.timeout(REQUEST_S):
                    finding = await self._look(api, room)
            except Exception as error:
                if is_not_found(error):
                    self._watchlist.unserved(room.name, time.monotonic())  # It has just closed.
                else:
                    pause_s = self._failed(room.name, error)
                    self._watchlist.postpone(room.name, time.monotonic() + pause_s)
                return
            self._succeeded(room.name)
            self._waiting.pop(room.name, None)
            if isinstance(finding, Fits):
                await self._adopt(api, room, finding)
            elif isinstance(finding, Served):
                self._served_s[room.name] = time.time()
                self._attempts.pop(room.name, None)
                self._watchlist.served(room.name, time.monotonic())
            elif isinstance(finding, Waiting) and finding.until_s is not None:
                self._note_waiting(room, finding)
                delay_s = finding.until_s - time.time()
                self._watchlist.postpone(room.name, time.monotonic() + delay_s)
            else:
                if isinstance(finding, Waiting):
                    self._note_waiting(room, finding)
                self._watchlist.unserved(room.name, time.monotonic())

    async def _look(self, api: LiveKitAPI, room: Room) -> Finding:
        request = ListParticipantsRequest(room=room.name)
        participants: list[ParticipantInfo] = []
        for participant in (await api.room.list_participants(request)).participants:
            if self._own.is_dead(participant.identity):
                # LiveKit would show it for another twenty seconds.
                await _remove(api, room.name, participant.identity)
            else:
                participants.append(participant)
        if (seen := presence(participants, self._candidate.agent_name)) is not None:
            return seen
        return judge(
            self._candidate,
            participants=participants,
            dispatches=await api.agent_dispatch.list_dispatch(room.name),
            room_metadata=room.metadata,
            dead_jobs=self._own.dead_jobs,
            served_s=self._served_s.get(room.name, 0.0),
            now_s=time.time(),
        )

    async def _adopt(self, api: LiveKitAPI, room: Room, finding: Fits) -> None:
        if not self._may_adopt():
            self._watchlist.postpone(room.name, time.monotonic() + FULL_S)
            return
        if (not_before_s := self._not_before_s.get(room.name, 0.0)) > time.monotonic():
            self._watchlist.postpone(room.name, not_before_s)
            return
        attempts = self._attempts[room.name] = self._attempts.get(room.name, 0) + 1
        # The first attempts may follow at once: a crash is rarely the room's fault.
        pause_s = min(2.0 ** min(attempts, 6), MAX_PAUSE_S) if attempts > _FREE_ATTEMPTS else 0.0
        self._not_before_s[room.name] = time.monotonic() + pause_s
        self._watchlist.postpone(room.name, time.monotonic() + max(pause_s, FULL_S))
        logger.info(
            "adopting a waiting room",
            extra={
                "room": room.name,
                "room_id": room.sid,
                "dispatch_id": finding.dispatch.id,
                "reason": finding.reason,
                "attempt": attempts,
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
            return
        finally:
            self._starting.discard(job.id)
        await self._wait_for_an_agent(api, room, job)

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

    def _note_waiting(self, room: Room, finding: Waiting) -> None:
        if finding.names:
            self._waiting[room.name] = finding.names

    def _warn(self) -> None:
        WAITING.set(len(self._waiting))
        if not self._waiting or time.monotonic() < self._warn_at_s:
            return
        self._warn_at_s = time.monotonic() + WARNING_S
        shown = list(self._waiting.items())[:_SHOWN_ROOMS]
        logger.warning(
            "rooms wait for another build than this; start it, or correct their target",
            extra={
                "count": len(self._waiting),
                "rooms": {room: ascii(" or ".join(names))[:80] for room, names in shown},
            },
        )

    def _failed(self, what: str, error: BaseException) -> float:
        """Take note that a call failed, for a room or for `_ALL_ROOMS`.

        Returns:
            How long to pause, in seconds.
        """
        if not self._failures:
            logger.warning(
                "waiting rooms cannot be looked for, trying again; "
                "look at the LiveKit server if this lasts",
                # The traceback tells whose fault it is where it is none of the usual ones.
                exc_info=None if isinstance(error, API_ERRORS) else error,
                extra={"error": str(error) or type(error).__name__},
            )
        failures = self._failures[what] = self._failures.get(what, 0) + 1
        FAILING.set(1)
        return float(min(SWEEP_S * 2 ** min(failures - 1, 5), MAX_PAUSE_S))

    def _succeeded(self, what: str) -> None:
        if self._failures.pop(what, None) and not self._failures:
            FAILING.set(0)
            logger.info("waiting rooms are looked for again")


@contextlib.asynccontextmanager
async def client(credentials: tuple[str, str, str]) -> AsyncIterator[LiveKitAPI]:
    """A client of the server's API. Proxies are those of the environment.

    Args:
        credentials: URL, API key and API secret.
    """
    url, api_key, api_secret = credentials
    async with aiohttp.ClientSession(trust_env=True) as http:
        yield LiveKitAPI(url, api_key, api_secret, session=http)


def _at_once() -> int:
    return max(MIN_AT_ONCE, int(hw.get_cpu_monitor().cpu_count()))


async def _remove(api: LiveKitAPI, room: str, identity: str) -> None:
    try:
        await api.room.remove_participant(RoomParticipantIdentity(room=room, identity=identity))
    except TwirpError as error:
        if not is_not_found(error):
            raise
