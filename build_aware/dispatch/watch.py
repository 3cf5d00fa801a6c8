"""When to look at one room next: what is known for that, and how news change it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

SUSPECT_S: Final = 10.0
"""How long a room under suspicion is looked at again and again: longer than numbers are old."""


@dataclass(slots=True)
class Watch:
    """When to look at one room. Times are monotonic seconds, infinite for never.

    Attributes:
        numbers: how many users it has, and how many participants publish; None while a list of all
            rooms does not have it.
        agents: how many agents the last look has found, of whatever name.
        look_at_s: when to look.
        check_at_s: when to check that these agents are still there.
        woken_s: when to look because of what has come up since the last look began.
        suspect_until_s: until when it is under suspicion.
    """

    numbers: tuple[int, int] | None = None
    agents: int = 0
    look_at_s: float = math.inf
    check_at_s: float = math.inf
    woken_s: float = math.inf
    suspect_until_s: float = -math.inf

    @property
    def users(self) -> int:
        """How many users it has, as far as is known."""
        return 0 if self.numbers is None else self.numbers[0]

    @property
    def loneliness(self) -> int:
        """How many users more than publishers it has: the more, the more likely it waits."""
        return 0 if self.numbers is None else self.numbers[0] - self.numbers[1]

    @property
    def shows_agents(self) -> bool:
        """Whether so many publish that all agents are there, those of the last look or one."""
        return -self.loneliness >= max(1, self.agents)

    def wake(self, at_s: float) -> None:
        """Look at `at_s` because of something that has come up."""
        self.woken_s = min(self.woken_s, at_s)
        self.look_at_s = min(self.look_at_s, at_s)

    def expect(self, at_s: float, now_s: float, *, is_news: bool) -> None:
        """Look at `at_s` because of its numbers.

        Args:
            at_s: when to look.
            now_s: the time.
            is_news: whether a look that is under way may have missed them.
        """
        if is_news and at_s <= now_s:
            self.wake(at_s)
        self.look_at_s = min(self.look_at_s, at_s)

    def suspect(self, at_s: float) -> None:
        """Look at `at_s`, and again while the room is under suspicion."""
        self.suspect_until_s = at_s + SUSPECT_S
        self.wake(at_s)

    def relax(self) -> None:
        """What it was under suspicion for has been found out."""
        self.woken_s = math.inf
        self.suspect_until_s = -math.inf

    def begin_look(self, now_s: float) -> None:
        """A look begins: it answers all that has come up until now."""
        self.check_at_s = math.inf
        if self.woken_s <= now_s:
            self.woken_s = math.inf

    def look_again(self, at_s: float) -> None:
        """A look has ended: the next is at `at_s`, if nothing has come up meanwhile."""
        self.look_at_s = min(at_s, self.woken_s)

    def of_next_room(self) -> Watch:
        """The watch of a room that takes the place of this one: suspicions outlive a room."""
        return Watch(
            look_at_s=self.woken_s, woken_s=self.woken_s, suspect_until_s=self.suspect_until_s
        )
