"""Which rooms to look at, and when: what makes a sweep cost one call and not one for each room.

LiveKit's list of rooms says how many users a room has (agents are not counted) and how many
participants publish (agents are). A look at a room costs a call, so a room is looked at

- when it is new, or its numbers have changed, or this worker has reason to think it waits;
- not while more publish than there are users, because then an agent is there; that this is an
  agent of the right name is checked once, a minute or two later;
- not while nobody is there;
- once a minute where no agent was found, because a dispatch changes no number, and where the
  numbers cannot tell that one is there, because two changes may cancel out.

The numbers may be five seconds old (`roomUpdateInterval` of livekit-server).
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from livekit.protocol.models import Room

VERIFY_S: Final = 60.0
"""After how long it is checked that who publishes in a room is the right agent."""

RECHECK_S: Final = 60.0
"""After how long a room is looked at again, though no number changed."""

SUSPECT_S: Final = 10.0
"""How long a room under suspicion is looked at again and again: longer than numbers are old."""

RELOOK_S: Final = 2.0
"""How often it is looked at then."""


@dataclass(slots=True)
class _Entry:
    room: Room
    numbers: tuple[int, int]
    look_at_s: float
    woken_s: float = math.inf
    """When to look because of what has come up since the last look began; infinite for never."""
    suspect_until_s: float = 0.0

    @property
    def shows_an_agent(self) -> bool:
        users, publishers = self.numbers
        return publishers > users

    def wake(self, at_s: float) -> None:
        self.woken_s = min(self.woken_s, at_s)
        self.look_at_s = min(self.look_at_s, at_s)

    def expect(self, at_s: float, now_s: float) -> None:
        if at_s <= now_s:
            self.wake(at_s)
        self.look_at_s = min(self.look_at_s, at_s)

    def suspect(self, at_s: float) -> None:
        self.suspect_until_s = at_s + SUSPECT_S
        self.wake(at_s)


@dataclass(slots=True)
class Watchlist:
    """The rooms of a server, as far as they matter for adoption. Times are monotonic seconds."""

    dice: random.Random = field(default_factory=random.Random)
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _suspicions: dict[str, float] = field(default_factory=dict)

    def listed(self, rooms: Iterable[Room], now_s: float) -> None:
        """Take in a list of all rooms."""
        before, self._entries = self._entries, {}
        for room in rooms:
            numbers = (room.num_participants, room.num_publishers)
            entry = before.get(room.name)
            if entry is None or entry.room.sid != room.sid:
                old, entry = entry, _Entry(room, numbers, self._first_look_s(numbers, now_s))
                if old is not None:
                    entry.suspect_until_s = old.suspect_until_s
                    entry.wake(old.woken_s)
                    entry.expect(entry.look_at_s, now_s)
            elif entry.numbers != numbers:
                entry.numbers = numbers
                entry.expect(self._first_look_s(numbers, now_s), now_s)
            entry.room = room
            self._entries[room.name] = entry
        for name, at_s in list(self._suspicions.items()):
            if (entry := self._entries.get(name)) is not None:
                entry.suspect(at_s)
                del self._suspicions[name]
            elif now_s > at_s + SUSPECT_S:
                del self._suspicions[name]

    def suspect(self, name: str, at_s: float) -> None:
        """Look at a room at `at_s`, whatever its numbers say: there is reason to think it waits."""
        if (entry := self._entries.get(name)) is None:
            self._suspicions[name] = at_s
        else:
            entry.suspect(at_s)

    def due(self, now_s: float, *, without: Collection[str] = ()) -> list[Room]:
        """The rooms to look at now, those that most likely wait first, else in random order.

        A look begins with this, and ends with what it has found: `served`, `unserved` or
        `postpone`.

        Args:
            now_s: the time.
            without: names of rooms to leave out.
        """
        due = [
            entry
            for name, entry in self._entries.items()
            if entry.look_at_s <= now_s and name not in without
        ]
        for entry in due:
            if entry.woken_s <= now_s:
                entry.woken_s = math.inf
        self.dice.shuffle(due)
        due.sort(key=lambda entry: entry.numbers[1] - entry.numbers[0])
        return [entry.room for entry in due]

    def served(self, name: str, now_s: float) -> None:
        """A look found an agent."""
        entry = self._entries.get(name)
        sure = entry is None or entry.shows_an_agent or entry.numbers[0] == 0
        self._look_again(name, math.inf if sure else self._recheck_s(now_s))

    def unserved(self, name: str, now_s: float) -> None:
        """A look found no agent, and nothing to do about it now."""
        entry = self._entries.get(name)
        if entry is None:
            return
        if now_s < entry.suspect_until_s:
            self._look_again(name, now_s + RELOOK_S)
        elif entry.numbers[0] == 0:
            self._look_again(name, math.inf)
        else:
            self._look_again(name, self._recheck_s(now_s))

    def postpone(self, name: str, until_s: float) -> None:
        """Look at a room again at `until_s`."""
        self._look_again(name, until_s)

    def _look_again(self, name: str, at_s: float) -> None:
        if (entry := self._entries.get(name)) is not None:
            # What has come up during the look outlives its result.
            entry.look_at_s = min(at_s, entry.woken_s)

    def _recheck_s(self, now_s: float) -> float:
        return now_s + RECHECK_S * self.dice.uniform(1, 1.25)

    def _first_look_s(self, numbers: tuple[int, int], now_s: float) -> float:
        users, publishers = numbers
        if users == 0:
            return math.inf
        if publishers > users:
            return now_s + VERIFY_S * self.dice.uniform(1, 2)
        return now_s
