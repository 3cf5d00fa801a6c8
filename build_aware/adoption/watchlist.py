"""Which rooms to look at, and when: what makes a sweep cost one call and not one for each room.

LiveKit's list of rooms says how many users a room has (agents are not counted) and how many
participants publish (agents are). A look at a room costs two calls, so a room is looked at

- when it is new, or its numbers have changed, or this worker has reason to think it waits;
- not while so many more publish than there are users that all its agents are there, those of the
  last look or one; that these are the right ones is looked at once, a minute or two later;
- not while nobody is there;
- once a minute where no agent was found, because a dispatch changes no number, and where the
  numbers cannot tell that the agents are there, because two changes may cancel out.

An agent that publishes nothing changes no number when it dies. So where the numbers cannot tell,
this worker also checks that the agents of the last look are still there. A check costs one call;
each such room has one every six seconds, and all of them together no more than ten a second, or
they get rarer, up to once a minute. Rooms that only this worker serves have none: it knows.

The numbers may be five seconds old (`roomUpdateInterval` of livekit-server).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Final

from livekit.protocol.models import Room

from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.rooms import Rooms
from build_aware.dispatch.watch import Watch

VERIFY_S: Final = 60.0
"""After how long it is looked whether who publishes in a room is the right agent."""

RECHECK_S: Final = 60.0
"""After how long a room is looked at again, though no number changed."""

RELOOK_S: Final = 2.0
"""How often a room under suspicion is looked at."""

CHECK_S: Final = 6.0
"""The longest from one check to the next, while few rooms need them: with the second or two that
it takes to join, a user is not alone for ten."""

CHECKS_PER_S: Final = 10.0
"""How many checks a worker makes in a second at the most, over all rooms."""

OWN_ROOM_S: Final = 60.0
"""How much later than others a room is looked at that this worker serves itself. What it can miss
there is a dispatch for one more agent that was never offered to it."""


class Watchlist:
    """The rooms of a server, as far as they matter for adoption. Times are monotonic seconds.

    Args:
        rooms: what is known of the rooms.
        dice: what spreads the looks of several workers.
    """

    def __init__(self, rooms: Rooms, dice: random.Random | None = None) -> None:
        self._rooms = rooms
        self._dice = dice or random.Random()  # noqa: S311
        self._checks = 0.0
        self._checked_s = -math.inf

    def listed(self, rooms: Iterable[Room], now_s: float) -> list[str]:
        """Take in a list of all rooms, and return the names of those that are new in it."""
        new = self._rooms.listed(rooms, now_s)
        for record in self._rooms.all():
            watch = record.watch
            if not record.listed:
                lapsed = now_s > watch.suspect_until_s
                record.watch = Watch() if lapsed else watch.of_next_room()
                continue
            if watch.numbers == record.numbers:
                continue
            is_news = watch.numbers is not None or record.is_looked_at
            watch.numbers = record.numbers
            if watch.shows_agents:
                watch.check_at_s = math.inf
            watch.expect(self._first_look_s(watch, now_s), now_s, is_news=is_news)
        return new

    def suspect(self, name: str, at_s: float) -> None:
        """Look at a room at `at_s`, whatever its numbers say: there is reason to think it waits.

        If it is not listed yet, it is looked at once it is.
        """
        if (record := self._rooms.get(name)) is not None:
            record.watch.suspect(at_s)

    def due(
        self, now_s: float, *, served_here: Callable[[RoomRecord], bool] = lambda _: False
    ) -> list[RoomRecord]:
        """The rooms to look at now, those that most likely wait first, else in random order.

        A look begins with this, and ends with what it has found: `seen`, and one of `served`,
        `unserved` and `postpone`. Rooms at which somebody looks already are left out.

        Args:
            now_s: the time.
            served_here: whether this worker itself serves all that a room asks for, as far as it
                knows.
        """
        due = [
            record
            for record in self._rooms.all()
            if record.watch.look_at_s <= now_s
            and _is_free(record)
            and (record.watch.look_at_s <= now_s - OWN_ROOM_S or not served_here(record))
        ]
        for record in due:
            record.watch.begin_look(now_s)
        self._dice.shuffle(due)
        due.sort(key=lambda record: -record.watch.loneliness)
        return due

    def due_checks(
        self, now_s: float, *, served_here: Callable[[RoomRecord], bool] = lambda _: False
    ) -> list[RoomRecord]:
        """The rooms in which to check now that their agents are there, the longest due first.

        A check ends with `seen`, or with `suspect` where an agent is gone. To be asked for after
        `due`, with the same arguments.
        """
        passed_s = min(now_s - self._checked_s, 1.0)
        self._checks = min(self._checks + passed_s * CHECKS_PER_S, CHECKS_PER_S)
        self._checked_s = now_s
        due = sorted(
            (
                record
                for record in self._rooms.all()
                if record.watch.check_at_s <= now_s and _is_free(record)
            ),
            key=lambda record: record.watch.check_at_s,
        )
        due = [record for record in due if not served_here(record)][: int(self._checks)]
        self._checks -= len(due)
        for record in due:
            record.watch.check_at_s = math.inf
        return due

    def seen(self, name: str, agents: int, now_s: float) -> None:
        """A look or a check has found so many agents, of whatever name."""
        if (watch := self._watch(name)) is not None:
            watch.agents = agents
            unsure = agents > 0 and watch.users > 0 and not watch.shows_agents
            spread = self._dice.uniform(0.75, 1)
            watch.check_at_s = now_s + CHECK_S * spread if unsure else math.inf

    def served(self, name: str, now_s: float, *, verify: bool = False) -> None:
        """A look found that all who should be there are.

        Args:
            name: the room.
            now_s: the time.
            verify: whether it left out what the room asks for by now: then one more look is due.
        """
        if (watch := self._watch(name)) is not None:
            sure = watch.users == 0 or (watch.shows_agents and not verify)
            watch.look_again(math.inf if sure else self._recheck_s(now_s))

    def unserved(self, name: str, now_s: float) -> None:
        """A look found an agent missing, or nobody, and nothing to do about it now."""
        if (watch := self._watch(name)) is None:
            return
        if now_s < watch.suspect_until_s:
            watch.look_again(now_s + RELOOK_S)
        else:
            watch.look_again(math.inf if watch.users == 0 else self._recheck_s(now_s))

    def postpone(self, name: str, until_s: float) -> None:
        """Look at a room again at `until_s`."""
        if (watch := self._watch(name)) is not None:
            watch.look_again(until_s)

    def _watch(self, name: str) -> Watch | None:
        record = self._rooms.get(name)
        return record.watch if record is not None and record.listed else None

    def _recheck_s(self, now_s: float) -> float:
        return now_s + RECHECK_S * self._dice.uniform(1, 1.25)

    def _first_look_s(self, watch: Watch, now_s: float) -> float:
        if watch.users == 0:
            return math.inf
        if watch.shows_agents:
            return now_s + VERIFY_S * self._dice.uniform(1, 2)
        return now_s


def _is_free(record: RoomRecord) -> bool:
    return record.listed and not record.is_looked_at
