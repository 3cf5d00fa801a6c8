"""A user in a room: a real rtc client that talks to the agent by text."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from livekit import rtc
from livekit.protocol.room import RoomConfiguration
from livekit.rtc.data_stream import StreamError
from livekit.rtc.participant import PublishDataTrackError

from build_aware.testbed import voice
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.waiting import DEADLINE_S, until

PATIENCE_S: Final = 1.5
"""How long a person waits for an answer before saying it again."""

LEAVE_S: Final = 15.0
"""How long each part of leaving may take: the end of a join on its way, and the goodbye.

As long as a join that livekit still believes in (its `ICE_CONNECT_TIMEOUT`).
"""

TOPIC_CHAT: Final = "lk.chat"
TOPIC_ANSWER: Final = "lk.transcription"


@dataclass(frozen=True, slots=True)
class Heard:
    """Something that an agent said, to the end.

    Attributes:
        at_s: when the user had heard it.
        text: what it was.
    """

    at_s: float
    text: str


@dataclass(slots=True)
class Sighting:
    """What a user saw of one agent.

    Attributes:
        from_s: when the user first saw it.
        to_s: when it left; None while it is there.
        heard: what it said, in order.
        published: whether it published audio.
    """

    from_s: float
    to_s: float | None = None
    heard: list[Heard] = field(default_factory=list)
    published: bool = False


class User:
    """Joins a room, sees who serves it, says something and hears the answer.

    Args:
        server: where the room is.
        room: the room's name.
        identity: the user's identity in it.
        url: where the user connects, if not to the server itself.
        clock: the time in seconds.

    Attributes:
        url: where the user connects.
        room: the rtc client.
        sightings: what was seen of each agent, by its identity; those that left too.
        spoke_together: agents that said something while another one was there that had, too.
    """

    def __init__(
        self,
        server: LiveKitServer,
        room: str,
        identity: str = "user",
        *,
        url: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = server
        self.url = url or server.url
        self.room_name = room
        self.identity = identity
        self.room = rtc.Room()
        self.sightings: dict[str, Sighting] = {}
        self.spoke_together: list[frozenset[str]] = []
        self._clock = clock
        self._heard: list[str] = []
        self._speakers: set[str] = set()
        self._readers: set[asyncio.Task[None]] = set()
        self._connecting: asyncio.Task[None] | None = None
        self.room.register_text_stream_handler(TOPIC_ANSWER, self._on_answer)
        self.room.on("participant_connected", self._on_came)
        self.room.on("participant_disconnected", self._on_left)
        self.room.on("track_published", self._on_track)

    async def join(self, config: RoomConfiguration | None = None) -> User:
        """Join the room; it is made with `config` if it does not exist.

        A cancelled join leaves again before it ends. `rtc.Room.connect` must not be cancelled:
        livekit goes on connecting, and kills this process when nobody takes the room that it has
        made.
        """
        token = self.server.token(self.room_name, self.identity, config)
        self._connecting = asyncio.create_task(self.room.connect(self.url, token))
        try:
            await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            await self.leave()
            raise
        for participant in self.room.remote_participants.values():
            self._on_came(participant)
        return self

    async def leave(self) -> None:
        """Leave the room, as someone does who closes the tab.

        A join on its way comes to its end first. Each is given `LEAVE_S`, then up.
        """
        for reader in self._readers:
            reader.cancel()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            await asyncio.wait({connecting}, timeout=LEAVE_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.room.disconnect(), LEAVE_S)
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def be_noticed(self) -> None:
        """Publish something that costs nothing.

        A server tells others of the coming and going of those who publish at once, and of
        those who only listen or write up to 3 seconds later (its `subscriberUpdateInterval`).
        """
        with contextlib.suppress(PublishDataTrackError):
            await self.room.local_participant.publish_data_track(name="presence")

    async def unmute(self) -> rtc.AudioSource:
        """Publish a microphone that the agent listens to, and return what to speak into."""
        microphone = rtc.AudioSource(voice.SAMPLE_RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", microphone)
        heard = asyncio.Event()
        self.room.on("local_track_subscribed", lambda _: heard.set())
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self.room.local_participant.publish_track(track, options)
        give_up = time.monotonic() + DEADLINE_S
        while not heard.is_set():
            if time.monotonic() > give_up:
                raise TimeoutError("nobody subscribed to the microphone")
            await _play(microphone, voice.silence(0.1))
        return microphone

    async def speak(self) -> None:
        """Say something that is a voice but no words, and pause."""
        microphone = await self.unmute()
        await _play(microphone, voice.silence(0.5) + voice.vowel(1.5) + voice.silence(3))

    @property
    def agents(self) -> list[rtc.RemoteParticipant]:
        """The agents that are in the room."""
        return list(filter(_is_agent, self.room.remote_participants.values()))

    @property
    def agents_seen(self) -> list[str]:
        """Identities of the agents that ever were in the room."""
        return list(self.sightings)

    @property
    def heard(self) -> list[str]:
        """All that agents have said, in order."""
        return self._heard

    async def agent(
        self, deadline_s: float = DEADLINE_S, *, besides: str = "", build: str = ""
    ) -> rtc.RemoteParticipant:
        """Wait for the agent to be there and to have told its build.

        Args:
            deadline_s: how long to wait.
            besides: the identity of an agent that does not count.
            build: the id of the build that it must be of; empty for any.
        """

        def fits(agent: rtc.RemoteParticipant) -> bool:
            told = agent.attributes.get("build.id", "")
            return bool(told) and agent.identity != besides and build in ("", told)

        def present() -> rtc.RemoteParticipant | None:
            return next(filter(fits, self.agents), None)

        return await until(present, f"an agent {build} in {self.room_name}", deadline_s)

    async def no_agent(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until no agent is left in the room."""
        await until(lambda: not self.agents, f"no agent in {self.room_name}", deadline_s)

    async def say(self, text: str) -> None:
        """Write to the agent."""
        await self.room.local_participant.send_text(text, topic=TOPIC_CHAT)

    async def ask(self, text: str, expect: str, deadline_s: float = DEADLINE_S) -> str:
        """Say something, and wait for an answer that contains `expect`."""
        before = len(self.heard)
        await self.say(text)
        try:
            return await self.answer(lambda heard: expect in heard, deadline_s, since=before)
        except TimeoutError as error:
            raise TimeoutError(f"{error} to {text!r}; heard {self.heard[before:]}") from None

    async def insist(self, text: str, expect: str, deadline_s: float = DEADLINE_S) -> str:
        """Say something until there is an answer.

        LiveKit drops what a user writes while the agent has not been told of that user yet, or
        still listens to another one; for users without a microphone that takes up to 3 seconds.
        """
        give_up = time.monotonic() + deadline_s
        while True:
            try:
                return await self.ask(text, expect, deadline_s=PATIENCE_S)
            except TimeoutError:
                if time.monotonic() > give_up:
                    raise

    async def hears(self, expect: str, deadline_s: float = DEADLINE_S) -> str:
        """Wait until an agent has said something that contains `expect`, now or before."""
        return await self.answer(lambda heard: expect in heard, deadline_s, since=0)

    async def answer(self, fits: Callable[[str], bool], deadline_s: float, *, since: int) -> str:
        """Wait until an agent has said something that fits, not counting the first `since`."""

        def answer() -> str | None:
            return next(filter(fits, self.heard[since:]), None)

        return await until(answer, f"an answer in {self.room_name}", deadline_s)

    def _sighting(self, identity: str) -> Sighting:
        return self.sightings.setdefault(identity, Sighting(self._clock()))

    def _on_came(self, participant: rtc.RemoteParticipant) -> None:
        if _is_agent(participant):
            self._sighting(participant.identity).to_s = None

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        if _is_agent(participant):
            self._sighting(participant.identity).to_s = self._clock()

    def _on_track(self, _: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        if _is_agent(participant):
            self._sighting(participant.identity).published = True

    def _on_answer(self, reader: rtc.TextStreamReader, identity: str) -> None:
        there = self._speakers & {agent.identity for agent in self.agents}
        if there - {identity}:
            self.spoke_together.append(frozenset(there | {identity}))
        self._speakers.add(identity)
        task = asyncio.create_task(self._hear(reader, identity))
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    async def _hear(self, reader: rtc.TextStreamReader, identity: str) -> None:
        with contextlib.suppress(StreamError):  # Cut off in the middle: not heard.
            text = await reader.read_all()
            self._heard.append(text)
            self._sighting(identity).heard.append(Heard(self._clock(), text))

    async def __aenter__(self) -> User:
        return self if self.room.isconnected() else await self.join()

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.leave()


async def _play(microphone: rtc.AudioSource, samples: bytes) -> None:
    frame_bytes = voice.SAMPLE_RATE // 100 * 2
    for start in range(0, len(samples), frame_bytes):
        frame = samples[start : start + frame_bytes]
        await microphone.capture_frame(rtc.AudioFrame(frame, voice.SAMPLE_RATE, 1, len(frame) // 2))


def _is_agent(participant: rtc.RemoteParticipant) -> bool:
    return bool(participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT)
