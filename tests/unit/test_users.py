"""When a job ends for want of users: the rule, and who tells it what."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, cast, get_args

import pytest
from livekit import rtc
from livekit.agents import JobContext

from build_aware.identity.build import Build
from build_aware.job import users
from build_aware.job.facts import JobFacts
from build_aware.job.shared import Shared
from build_aware.job.users import AFTER_OUTAGE_S, ALONE_S, RETURN_S, Alone, Users, reason_to_end
from build_aware.settings import EndWithLastUser

NOBODY_CAME: Final = "nobody joined in time"
LAST_LEFT: Final = "the last user left"

USER: Final = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
OTHER_KINDS: Final = sorted(set(rtc.ParticipantKind.values()) - set(users.USER_KINDS))


def facts(
    ends: EndWithLastUser = "drain", join_timeout_s: float | None = None, *, drains: bool = False
) -> JobFacts:
    shared = Shared()
    shared.drains = drains
    return JobFacts(
        build=Build("x"),
        counted=None,
        shared=shared,
        end_with_last_user=ends,
        join_timeout_s=join_timeout_s,
        callbacks_s=10,
        session_end_s=300,
        shutdown_s=25,
        hidden=False,
    )


# The rule


@pytest.mark.parametrize(
    ("for_s", "join_timeout_s", "drains", "reason"),
    [
        (1e6, None, False, None),
        (59.9, 60, False, None),
        (60, 60, False, NOBODY_CAME),
        (59.9, None, True, None),
        (ALONE_S, None, True, NOBODY_CAME),
        (ALONE_S, 600, True, NOBODY_CAME),
        (9.9, 10, True, None),
        (10, 10, True, NOBODY_CAME),
    ],
)
def test_a_job_to_which_nobody_comes(
    for_s: float, join_timeout_s: float | None, drains: bool, reason: str | None
) -> None:
    for ends in get_args(EndWithLastUser):
        said = facts(ends, join_timeout_s)
        assert reason_to_end(Alone(for_s, came=False), said, drains=drains) == reason


@pytest.mark.parametrize(
    ("ends", "drains", "left_in_drain", "ends_when_s"),
    [
        ("always", False, False, 5.0),
        ("always", True, False, 5.0),
        ("always", True, True, 5.0),
        ("drain", False, False, None),
        ("drain", True, True, 5.0),
        # Who was away already finds what they would with LiveKit alone, for a while.
        ("drain", True, False, ALONE_S),
        ("never", False, False, None),
        ("never", True, True, ALONE_S),
        ("never", True, False, ALONE_S),
    ],
)
def test_a_job_whose_last_user_has_left(
    ends: EndWithLastUser, drains: bool, left_in_drain: bool, ends_when_s: float | None
) -> None:
    def reason(for_s: float) -> str | None:
        alone = Alone(for_s, came=True, grace_s=5.0, left_in_drain=left_in_drain)
        return reason_to_end(alone, facts(ends), drains=drains)

    if ends_when_s is None:
        assert reason(1e6) is None
    else:
        assert reason(ends_when_s - 0.1) is None
        assert reason(ends_when_s) == LAST_LEFT


def test_who_has_left_for_good_is_not_waited_for() -> None:
    assert reason_to_end(Alone(0.0, came=True), facts("always"), drains=False) == LAST_LEFT


# Who tells it


class Clock:
    """Time that goes on when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def time(self) -> float:
        return self.now_s


@dataclass
class Participant:
    sid: str = "PA_1"
    kind: int = USER
    disconnect_reason: int = rtc.DisconnectReason.CLIENT_INITIATED


class StubRoom(rtc.EventEmitter[str]):
    """A room with LiveKit's own events."""

    def __init__(self) -> None:
        super().__init__()
        self.remote_participants: dict[str, Participant] = {}
        self.connection_state: int = rtc.ConnectionState.CONN_CONNECTED

    def joins(self, participant: Participant) -> None:
        self.remote_participants[participant.sid] = participant

    def leaves(self, participant: Participant) -> None:
        del self.remote_participants[participant.sid]
        self.emit("participant_disconnected", participant)


class Job:
    """A job whose users are followed, and the reasons for which it was ended."""

    def __init__(self, said: JobFacts) -> None:
        self.room = StubRoom()
        self.shared = said.shared
        self.ended: list[str] = []
        ctx = cast(JobContext, SimpleNamespace(room=self.room))
        self.users = Users(ctx, said, self.ended.append)
        self.clock = Clock()
        self.users._loop = cast(Any, self.clock)
        self.users._since_s = self.clock.now_s

    def after(self, seconds: float) -> list[str]:
        """Let time go by; what the job was ended for by then."""
        self.clock.now_s += seconds
        self.users.check()
        return self.ended


async def test_the_time_to_join_begins_when_the_agent_is_in_the_room() -> None:
    job = Job(facts(join_timeout_s=10))
    job.room.connection_state = rtc.ConnectionState.CONN_DISCONNECTED
    assert job.after(100) == []
    job.room.connection_state = rtc.ConnectionState.CONN_CONNECTED
    assert job.after(9.9) == []
    assert job.after(0.1) == [NOBODY_CAME]


async def test_a_user_who_comes_in_time_may_stay_as_long_as_they_like() -> None:
    job = Job(facts("always", join_timeout_s=10, drains=True))
    alone = job.users.present
    job.room.joins(Participant())
    assert (alone, job.users.present) == (False, True)
    assert job.after(9) == job.after(1000) == []


@pytest.mark.parametrize("kind", OTHER_KINDS)
async def test_others_are_no_users(kind: int) -> None:
    job = Job(facts("always", join_timeout_s=10))
    other = Participant("PA_2", kind)
    job.room.joins(other)
    assert not job.users.present
    job.room.leaves(other)
    assert job.after(9.9) == []
    assert job.after(0.1) == [NOBODY_CAME]


async def test_the_job_ends_when_its_last_user_leaves() -> None:
    job = Job(facts("always"))
    first, second = Participant("PA_1"), Participant("PA_2")
    job.room.joins(first)
    job.room.joins(second)
    job.room.leaves(first)
    assert job.ended == []
    job.room.leaves(second)
    assert job.ended == [LAST_LEFT]


@pytest.mark.parametrize("reason", sorted(rtc.DisconnectReason.values()))
async def test_who_may_come_back_is_waited_for(reason: int) -> None:
    for_good = reason in users._LEFT_FOR_GOOD
    job = Job(facts("always"))
    user = Participant(disconnect_reason=reason)
    job.room.joins(user)
    job.room.leaves(user)
    assert job.ended == ([LAST_LEFT] if for_good else [])
    if not for_good:
        assert job.after(RETURN_S - 0.1) == []
        assert job.after(0.1) == [LAST_LEFT]


async def test_who_comes_back_in_time_goes_on() -> None:
    job = Job(facts("always"))
    user = Participant(disconnect_reason=rtc.DisconnectReason.DUPLICATE_IDENTITY)
    job.room.joins(user)
    job.room.leaves(user)
    job.after(RETURN_S - 0.1)
    job.room.joins(Participant("PA_2"))
    assert job.after(1) == job.after(1000) == []
    job.room.leaves(job.room.remote_participants["PA_2"])
    assert job.ended == [LAST_LEFT]


async def test_without_a_drain_a_job_waits_for_a_user_who_has_left() -> None:
    job = Job(facts("drain"))
    user = Participant()
    job.room.joins(user)
    job.room.leaves(user)
    assert job.after(4) == []
    job.room.joins(user)
    assert job.after(1000) == []

    job.shared.drains = True
    assert job.after(1000) == []
    job.room.leaves(user)
    assert job.ended == [LAST_LEFT]


async def test_a_drain_ends_a_job_whose_user_has_been_away_for_long() -> None:
    job = Job(facts("drain"))
    user = Participant()
    job.room.joins(user)
    job.room.leaves(user)
    assert job.after(ALONE_S - 5) == []
    job.shared.drains = True
    assert job.after(4.9) == []
    assert job.after(0.1) == [LAST_LEFT]


async def test_an_agent_that_is_cut_off_knows_nothing_about_its_users() -> None:
    job = Job(facts("always"))
    user = Participant(disconnect_reason=rtc.DisconnectReason.CLIENT_INITIATED)
    job.room.joins(user)
    job.after(1)
    job.room.connection_state = rtc.ConnectionState.CONN_RECONNECTING
    job.room.leaves(user)
    assert job.after(1000) == []

    job.room.connection_state = rtc.ConnectionState.CONN_CONNECTED
    job.room.emit("reconnected")
    assert job.after(AFTER_OUTAGE_S - 0.1) == []
    job.room.joins(user)
    assert job.after(1000) == []


async def test_who_does_not_come_back_after_an_outage_has_left() -> None:
    job = Job(facts("always"))
    user = Participant()
    job.room.joins(user)
    job.after(1)
    job.room.connection_state = rtc.ConnectionState.CONN_RECONNECTING
    job.room.leaves(user)
    job.room.connection_state = rtc.ConnectionState.CONN_CONNECTED
    job.room.emit("reconnected")
    assert job.after(AFTER_OUTAGE_S - 0.1) == []
    assert job.after(0.1) == [LAST_LEFT]


async def test_the_worker_is_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its drain is no event of the room."""
    monkeypatch.setattr(users, "CHECK_S", 0.0)
    job = Job(facts("drain"))
    ended = asyncio.Event()
    job.users._end = lambda _: ended.set()
    job.users._since_s -= ALONE_S
    watching = asyncio.create_task(job.users.watch())
    await asyncio.sleep(0)
    assert not ended.is_set()
    job.shared.drains = True
    async with asyncio.timeout(10):
        await ended.wait()
    watching.cancel()
