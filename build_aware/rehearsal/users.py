"""What users do in a rehearsal: see which build serves them, again and again, and leave."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Final

from build_aware.rehearsal.seen import Remark
from build_aware.testbed import User
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.user import Heard

QUESTION: Final = "Which build are you?"

BUILD: Final = re.compile(r"\bbuild-\d+\b")
"""A build's name in an answer."""

BUILD_ID: Final = "build.id"
"""The attribute of an agent that tells its build."""

REPEAT_S: Final = 1.2
"""How long a user waits for an answer before saying it again.

LiveKit drops what a user says while the agent has not been told of that user yet.
"""

PAUSE_S: Final = 2.0
"""From an answer to the next question."""

_MARGIN_S: Final = 2.0
"""How much longer a user waits than the verdict does: what is late is seen, too."""


def remark(heard: Heard) -> Remark:
    """What an agent said, and the build that it named."""
    named = BUILD.search(heard.text)
    return Remark(heard.at_s, named[0] if named else None)


class Guest(User):
    """One user in one room.

    Args:
        server: where the room is.
        room: the room's name.
        clock: the time in seconds.
        patience_s: how long an answer may take.
        answers: whether agents name their build when they are asked; else it is enough that one is
            there, and its attributes tell.
    """

    def __init__(
        self,
        server: LiveKitServer,
        room: str,
        *,
        clock: Callable[[], float],
        patience_s: float,
        answers: bool = True,
    ) -> None:
        super().__init__(server, room, clock=clock)
        self.unanswered_s: float | None = None
        self.left_s: float | None = None
        self._patience_s = patience_s + _MARGIN_S
        self._answers = answers

    @property
    def served_by(self) -> list[str]:
        """The agents that have answered and are still there, by identity."""
        return [
            identity
            for identity, seen in self.sightings.items()
            if seen.to_s is None and any(remark(heard).build for heard in seen.heard)
        ]

    async def live(self, length_s: float) -> None:
        """Join, ask, be answered, ask again from time to time, and leave after `length_s`.

        The last question comes at the end, so that an agent that is gone by then is missed.
        """
        try:
            await self.join()
            await self.be_noticed()
            end_s: float | None = None
            is_served = self._is_answered if self._answers else self._is_attended
            while await is_served():
                now_s = self._clock()
                end_s = now_s + length_s if end_s is None else end_s
                if now_s >= end_s:
                    break
                await asyncio.sleep(min(PAUSE_S, end_s - now_s))
        finally:
            self.left_s = self._clock()
            await self.leave()

    async def _is_attended(self) -> bool:
        asked_s = self._clock()
        try:
            agent = await self.agent(self._patience_s)
        except TimeoutError:
            self.unanswered_s = asked_s
            return False
        told = Heard(self._clock(), agent.attributes[BUILD_ID])
        self._sighting(agent.identity).heard.append(told)
        return True

    async def _is_answered(self) -> bool:
        asked_s = self._clock()
        before = len(self.heard)
        while (left_s := asked_s + self._patience_s - self._clock()) > 0:
            # An error means that the room is gone, which the lack of an answer tells too.
            with contextlib.suppress(Exception):
                await self.say(QUESTION)
            with contextlib.suppress(TimeoutError):
                wait_s = min(REPEAT_S, left_s)
                await self.answer(lambda said: bool(BUILD.search(said)), wait_s, since=before)
                return True
        self.unanswered_s = asked_s
        return False
