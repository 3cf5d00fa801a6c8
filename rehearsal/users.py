"""Users: real rtc clients that ask which build they talk to, and note who was there."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from livekit import rtc
from livekit.rtc.data_stream import StreamError
from livekit.rtc.participant import PublishDataTrackError

from .seen import Remark

QUESTION: Final = "Which build are you?"

BUILD: Final = re.compile(r"\bbuild-\d+\b")
"""A build's name in an answer."""

REPEAT_S: Final = 1.2
"""How long a user waits for an answer before saying it again.

LiveKit drops what a user says while the agent has not been told of that user yet.
"""

PATIENCE_S: Final = 12.0
"""How long a user waits for an answer before leaving; beyond what the verdict calls lost."""

PAUSE_S: Final = 2.0
"""From an answer to the next question."""

_TOPIC_CHAT: Final = "lk.chat"
_TOPIC_ANSWER: Final = "lk.transcription"


@dataclass(slots=True)
class Sighting:
    """What a user saw of one agent. Times as in `seen.Visit`."""

    from_s: float
    to_s: float | None = None
    heard: list[Remark] = field(default_factory=list)
    published: bool = False


class User:
    """One user in one room.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.agents: dict[str, Sighting] = {}
        """What was seen of each agent, by its identity."""
        self.unanswered_s: float | None = None
        self.left_s: float | None = None
        self._clock = clock
        self._room = rtc.Room()
        self._answers = 0
        self._answered = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._room.register_text_stream_handler(_TOPIC_ANSWER, self._on_text)
        self._room.on("participant_connected", self._on_came)
        self._room.on("participant_disconnected", self._on_left)
        self._room.on("track_published", self._on_track)

    @property
    def served_by(self) -> list[str]:
        """The agents that have answered and are still there, by identity."""
        return [
            identity
            for identity, seen in self.agents.items()
            if seen.to_s is None and any(remark.build for remark in seen.heard)
        ]

    async def live(self, url: str, token: str, length_s: float) -> None:
        """Join, ask, be answered, ask again from time to time, and leave after `length_s`.

        The last question comes at the end, so that an agent that is gone by then is missed.
        """
        try:
            await self._room.connect(url, token)
            for participant in self._room.remote_participants.values():
                self._on_came(participant)
            # A server tells others at once of the coming and going of those who publish
            # something, and up to 3 seconds late of those who do not. This costs least.
            with contextlib.suppress(PublishDataTrackError):
                await self._room.local_participant.publish_data_track(name="presence")
            end_s: float | None = None
            while await self._ask():
                now_s = self._clock()
                end_s = now_s + length_s if end_s is None else end_s
                if now_s >= end_s:
                    break
                await asyncio.sleep(min(PAUSE_S, end_s - now_s))
        finally:
            self.left_s = self._clock()
            for task in self._tasks:
                task.cancel()
            await self._room.disconnect()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self) -> bool:
        asked_s = self._clock()
        self._answered.clear()
        while (left_s := asked_s + PATIENCE_S - self._clock()) > 0:
            # An error means that the room is gone, which the lack of an answer tells too.
            with contextlib.suppress(Exception):
                await self._room.local_participant.send_text(QUESTION, topic=_TOPIC_CHAT)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), min(REPEAT_S, left_s))
                return True
        self.unanswered_s = asked_s
        return False

    def _sighting(self, identity: str) -> Sighting:
        return self.agents.setdefault(identity, Sighting(self._clock()))

    def _on_came(self, participant: rtc.RemoteParticipant) -> None:
        if _is_agent(participant):
            self._sighting(participant.identity)

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        if _is_agent(participant):
            self._sighting(participant.identity).to_s = self._clock()

    def _on_track(self, _: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        if _is_agent(participant):
            self._sighting(participant.identity).published = True

    def _on_text(self, reader: rtc.TextStreamReader, identity: str) -> None:
        task = asyncio.create_task(self._hear(reader, identity))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hear(self, reader: rtc.TextStreamReader, identity: str) -> None:
        try:
            text = await reader.read_all()
        except StreamError:
            return  # Cut off in the middle: not heard.
        named = BUILD.search(text)
        build = named[0] if named else None
        self._sighting(identity).heard.append(Remark(self._clock(), build))
        if build is not None:
            self._answered.set()


def _is_agent(participant: rtc.RemoteParticipant) -> bool:
    return bool(participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT)
