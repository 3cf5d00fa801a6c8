"""What stands in for a job: LiveKit's own context and room, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from livekit import rtc
from livekit.agents import JobContext, JobExecutorType
from livekit.agents.job import JobAcceptArguments, JobProcess, RunningJobInfo
from livekit.protocol.agent import Job
from livekit.protocol.models import Room

from build_aware.identity.build import Build
from build_aware.job.facts import JobFacts, Prepare
from build_aware.job.shared import Shared

CONNECTED = rtc.ConnectionState.CONN_CONNECTED
DISCONNECTED = rtc.ConnectionState.CONN_DISCONNECTED


@dataclass
class Participant:
    """What stands in for another participant."""

    sid: str = "PA_1"
    kind: int = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
    identity: str = "somebody"
    attributes: dict[str, str] = field(default_factory=dict)
    disconnect_reason: int = rtc.DisconnectReason.CLIENT_INITIATED


class StubRoom(rtc.EventEmitter[str]):
    """A room with LiveKit's own events.

    Attributes:
        joins: who is there in the answer to the join, before `connect`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.joins: list[Participant] = []
        self.remote_participants: dict[str, Participant] = {}
        self.connection_state: int = DISCONNECTED
        self.local_participant: Any = None
        self.text_handlers: dict[str, Any] = {}

    def isconnected(self) -> bool:
        return self.connection_state != DISCONNECTED

    async def connect(self, *arguments: Any, **options: Any) -> None:
        self.connection_state = CONNECTED
        self.local_participant = SimpleNamespace(
            sid="PA_own", identity="agent-own", attributes={}, set_attributes=self._set_attributes
        )
        self.has(*self.joins)

    async def disconnect(self) -> None:
        if self.isconnected():
            self.cut(rtc.DisconnectReason.CLIENT_INITIATED)

    def cut(self, reason: int) -> None:
        """The agent is out of the room."""
        self.connection_state = DISCONNECTED
        self.emit("disconnected", reason)

    def has(self, *others: Participant) -> None:
        """Others are there; no event tells of them."""
        self.remote_participants |= {other.sid: other for other in others}

    def tells_of(self, other: Participant) -> None:
        """Another one comes."""
        self.has(other)
        self.emit("participant_connected", other)

    def leaves(self, other: Participant) -> None:
        """Another one goes."""
        del self.remote_participants[other.sid]
        self.emit("participant_disconnected", other)

    def register_text_stream_handler(self, topic: str, handler: Any) -> None:
        self.text_handlers[topic] = handler

    async def _set_attributes(self, attributes: dict[str, str]) -> None:
        self.local_participant.attributes |= attributes


@dataclass
class StubJob:
    """A job in a process of its own, as its code sees it.

    Attributes:
        ctx: LiveKit's own context.
        room: its room.
        facts: what its worker tells it.
        shutdowns: the reasons for which LiveKit was asked to end it.
    """

    ctx: JobContext
    room: StubRoom
    facts: JobFacts
    shutdowns: list[str]

    @property
    def callbacks(self) -> list[Any]:
        """The shutdown callbacks that LiveKit would run, side by side."""
        return self.ctx._shutdown_callbacks

    async def run_callbacks(self, reason: str = "over") -> None:
        """Run them as LiveKit does."""
        await asyncio.gather(*[asyncio.create_task(each(reason)) for each in self.callbacks])


def stub_job(
    job: Job | None = None,
    *,
    executor: JobExecutorType = JobExecutorType.THREAD,
    adopts: bool = False,
    fake: bool = False,
    **facts: Any,
) -> StubJob:
    """Make a job.

    Args:
        job: LiveKit's own.
        executor: where it runs. In a thread, nothing ends the process.
        adopts: whether its worker adopts waiting rooms.
        fake: whether it has no room, as in the console.
        **facts: what else its worker tells it.
    """
    shared = Shared()
    shared.adopts = adopts
    said: dict[str, Any] = {
        "build": Build("7f3c9a1e52d0"),
        "counted": None,
        "end_with_last_user": "drain",
        "join_timeout_s": None,
        "callbacks_s": 10.0,
        "session_end_s": 300.0,
        "shutdown_s": 25.0,
        "hidden": False,
    }
    told = JobFacts(shared=shared, **(said | facts))
    process = JobProcess(executor_type=JobExecutorType.THREAD, user_arguments=None, http_proxy=None)
    Prepare(told, None)(process)
    process._executor_type = executor
    room = StubRoom()
    shutdowns: list[str] = []
    job = job or Job(id="AJ_own", dispatch_id="AD_own", room=Room(name="a-room", sid="RM_1"))
    ctx = JobContext(
        proc=process,
        info=RunningJobInfo(
            accept_arguments=JobAcceptArguments("", "agent-own", ""),
            job=job,
            url="ws://nowhere",
            token="",
            worker_id="AW_1",
            fake_job=fake,
        ),
        room=cast(rtc.Room, room),
        on_connect=lambda: None,
        on_shutdown=shutdowns.append,
        inference_executor=cast(Any, None),
    )
    return StubJob(ctx, room, told, shutdowns)


class Timers:
    """Stands for `timers.after`: what would be called, and when."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Any, tuple[Any, ...]]] = []

    def __call__(self, delay_s: float, function: Any, *arguments: Any) -> None:
        self.set.append((delay_s, function, arguments))

    def __iter__(self) -> Iterator[tuple[float, Any, tuple[Any, ...]]]:
        return iter(self.set)


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)
