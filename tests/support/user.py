"""A user in a room: a real rtc client that talks to the agent by text."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeAlias

from livekit import rtc
from livekit.protocol.room import RoomConfiguration
from livekit.rtc.data_stream import StreamError

from . import voice
from .livekit_server import LiveKitServer
from .waiting import DEADLINE_S, until

JoinRoom: TypeAlias = "Callable[..., Awaitable[User]]"
"""The fixture that lets users join."""

PATIENCE_S = 1.5
"""How long a person waits for an answer before saying it again."""

TOPIC_CHAT = "lk.chat"
TOPIC_ANSWER = "lk.transcription"


class User:
    """Joins a room, sees who serves it, says something and hears the answer."""

    def __init__(self, server: LiveKitServer, room: str, identity: str = "user") -> None:
        self.server = server
        self.room_name = room
        self.identity = identity
        self.room = rtc.Room()
        self.heard: list[str] = []
        self.agents_seen: list[str] = []
        """Identities of the agents that ever were in the room, as this user saw it."""
        self.speakers: set[str] = set()
        """Identities of those who ever said something."""
        self.spoke_together: list[frozenset[str]] = []
        """Those who said something while another one was there who had said something before."""
        self._readers: set[asyncio.Task[None]] = set()
        self.room.register_text_stream_handler(TOPIC_ANSWER, self._on_answer)
        self.room.on("participant_connected", self._on_participant)

    async def join(self, config: RoomConfiguration | None = None) -> User:
        token = self.server.token(self.room_name, self.identity, config)
        await self.room.connect(self.server.url, token)
        for participant in self.room.remote_participants.values():
            self._on_participant(participant)
        return self

    async def unmute(self) -> rtc.AudioSource:
        """Publish a microphone, and return what to speak into.

        A server tells others of the coming and going of those who publish at once, and of
        those who only listen or write up to 3 seconds later (its `subscriberUpdateInterval`).
        """
        microphone = rtc.AudioSource(voice.SAMPLE_RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", microphone)
        heard = asyncio.Event()
        self.room.on("local_track_subscribed", lambda _: heard.set())
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self.room.local_participant.publish_track(track, options)
        give_up = time.monotonic() + DEADLINE_S
        while not heard.is_set():
            assert time.monotonic() < give_up, "nobody subscribed to the microphone"
            await _play(microphone, voice.silence(0.1))
        return microphone

    async def speak(self) -> None:
        """Say something that is a voice but no words, and pause."""
        microphone = await self.unmute()
        await _play(microphone, voice.silence(0.5) + voice.vowel(1.5) + voice.silence(3))

    async def leave(self) -> None:
        await self.room.disconnect()

    @property
    def agents(self) -> list[rtc.RemoteParticipant]:
        return [p for p in self.room.remote_participants.values() if _is_agent(p)]

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

    async def ask(self, text: str, expect: str, deadline_s: float = DEADLINE_S) -> str:
        """Say something, and wait for an answer that contains `expect`."""
        before = len(self.heard)
        await self.room.local_participant.send_text(text, topic=TOPIC_CHAT)

        def answer() -> str | None:
            return next((heard for heard in self.heard[before:] if expect in heard), None)

        try:
            return await until(answer, f"an answer with {expect!r} to {text!r}", deadline_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; heard {self.heard[before:]}") from None

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

    async def hears(self, expect: str, deadline_s: float = DEADLINE_S) -> None:
        await until(lambda: any(expect in h for h in self.heard), f"to hear {expect!r}", deadline_s)

    def _on_participant(self, participant: rtc.RemoteParticipant) -> None:
        if _is_agent(participant):
            self.agents_seen.append(participant.identity)

    def _on_answer(self, reader: rtc.TextStreamReader, identity: str) -> None:
        there = self.speakers & {agent.identity for agent in self.agents}
        if there - {identity}:
            self.spoke_together.append(frozenset(there | {identity}))
        self.speakers.add(identity)

        async def read() -> None:
            with contextlib.suppress(StreamError):  # cut off in the middle
                self.heard.append(await reader.read_all())

        task = asyncio.create_task(read())
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    async def __aenter__(self) -> User:
        return await self.join() if not self.room.isconnected() else self

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
