"""One stay of a user in a room: asks which build it talks to, again and again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from bench.soak.seen import Question, Span, Stay
from build_aware.rehearsal.relay import Passage
from build_aware.rehearsal.seen import Visit
from build_aware.rehearsal.stage import visit
from build_aware.rehearsal.users import BUILD, PAUSE_S, QUESTION, REPEAT_S, remark
from build_aware.testbed import User
from build_aware.testbed.livekit_server import LiveKitServer

GIVE_UP_S: Final = 60.0
"""How long a user waits for an answer: longer than it takes to be lost, whatever happens."""


class Guest(User):
    """One stay of a user in a room."""

    def __init__(
        self, server: LiveKitServer, room: str, *, url: str, clock: Callable[[], float]
    ) -> None:
        super().__init__(server, room, url=url, clock=clock)
        self.questions: list[Question] = []
        self.away: list[Span] = []
        self.from_s = 0.0
        self.to_s: float | None = None
        self.gone = asyncio.Event()
        self._away_since_s: float | None = None
        self.room.on("reconnecting", self._on_away)
        self.room.on("reconnected", self._on_back)
        self.room.on("disconnected", self._on_gone)

    @property
    def served_by(self) -> list[str]:
        """The agents that have answered and are still there, by identity."""
        return [
            identity
            for identity, seen in self.sightings.items()
            if seen.to_s is None and any(remark(heard).build for heard in seen.heard)
        ]

    async def talk(self, end_s: float) -> None:
        """Ask until `end_s` or until the connection is lost for good.

        The last question comes at the end, so that an agent that is gone by then is missed.
        """
        since_s = self.from_s
        while True:
            answered_s = await self._answered()
            self.questions.append(Question(since_s, answered_s))
            now_s = self._clock()
            if answered_s is None or now_s >= end_s:
                return
            await asyncio.sleep(min(PAUSE_S, end_s - now_s))
            since_s = self._clock()

    async def _answered(self) -> float | None:
        before = len(self.heard)
        give_up_s = self._clock() + GIVE_UP_S
        while self._clock() < give_up_s and not self.gone.is_set():
            # An error, or no end, means that the connection is lost, as the lack of an answer does.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(REPEAT_S):
                    await self.say(QUESTION)
            with contextlib.suppress(TimeoutError):
                await self.answer(lambda said: bool(BUILD.search(said)), REPEAT_S, since=before)
                return self._clock()
        return None

    def seen(self, passages: Sequence[Passage]) -> Stay:
        """What was seen in this stay."""
        to_s = self._clock() if self.to_s is None else self.to_s
        if self._away_since_s is not None:
            self.away.append(Span(self._away_since_s, to_s))
            self._away_since_s = None
        return Stay(
            from_s=self.from_s,
            to_s=to_s,
            away=tuple(self.away),
            questions=tuple(self.questions),
            visits=self._visits(passages, to_s),
        )

    def _visits(self, passages: Sequence[Passage], to_s: float) -> tuple[Visit, ...]:
        found: dict[str, list[Passage]] = {identity: [] for identity in self.sightings}
        for passage in passages:
            if passage.room != self.room_name:
                continue
            during = passage.from_s < to_s and (passage.to_s or to_s) > self.from_s
            if passage.identity in found or during:
                found.setdefault(passage.identity, []).append(passage)
        visits = [visit(name, self.sightings.get(name), of) for name, of in found.items()]
        return tuple(sorted(visits, key=lambda each: each.from_s))

    def _on_away(self) -> None:
        if self._away_since_s is None:
            self._away_since_s = self._clock()

    def _on_back(self) -> None:
        if self._away_since_s is not None:
            self.away.append(Span(self._away_since_s, self._clock()))
            self._away_since_s = None

    def _on_gone(self, *_: object) -> None:
        if self.to_s is None:
            self.to_s = self._clock()
        self.gone.set()
