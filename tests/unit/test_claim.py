"""One agent for one dispatch: of those that join for it, exactly one stays."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Final

import pytest
from livekit import rtc
from livekit.api import TwirpError, TwirpErrorCode
from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo, Room

from build_aware.dispatch.attributes import AGENT_NAME, ASKED, DISPATCH, JOB, PUBLISHES_FOR, asked
from build_aware.job import claim as module
from build_aware.job.claim import Claim
from tests.support.jobs import CONNECTED, Participant, StubJob, StubRoom, settle, stub_job

LONG_S: Final = 10.0
NAME: Final = "support"
AGENT: Final = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
OTHER_KINDS: Final = sorted(set(rtc.ParticipantKind.values()) - {AGENT})

_numbers = itertools.count()


def agent(**attributes: str | None) -> Participant:
    """An agent, as others of this package tell of themselves; None for what it does not tell."""
    number = next(_numbers)
    told: dict[str, str | None] = {
        AGENT_NAME: NAME,
        JOB: f"AJ_{number}",
        DISPATCH: "AD_own",
        ASKED: asked("", ""),
    }
    known = {
        "name": AGENT_NAME,
        "job": JOB,
        "dispatch": DISPATCH,
        "asked": ASKED,
        "publishes_for": PUBLISHES_FOR,
    }
    told |= {known[key]: value for key, value in attributes.items()}
    return Participant(
        sid=f"PA_{number}",
        kind=AGENT,
        identity=f"agent-{number}",
        attributes={key: value for key, value in told.items() if value is not None},
    )


def stock(name: str | None = NAME) -> Participant:
    """An agent of a worker without this package."""
    return agent(name=name, job=None, dispatch=None, asked=None)


def dispatch(dispatch_id: str, metadata: str = "", *, created_at: int = 1) -> AgentDispatch:
    listed = AgentDispatch(id=dispatch_id, agent_name=NAME, metadata=metadata)
    listed.state.created_at = created_at
    return listed


OWN: Final = dispatch("AD_own")


class Server:
    """Stands for the server's API.

    Attributes:
        dispatches: what the room asked for.
        participants: who is there.
        ghosts: the identities of those who are listed although their node is gone.
        fails: whether it does not answer.
        calls: how often it was asked.
    """

    def __init__(self) -> None:
        self.dispatches: list[AgentDispatch] = [OWN]
        self.participants: list[ParticipantInfo] = []
        self.ghosts: set[str] = set()
        self.fails = False
        self.calls = 0
        self.agent_dispatch = SimpleNamespace(list_dispatch=self._list_dispatch)
        self.room = SimpleNamespace(
            list_participants=self._list_participants, update_participant=self._update_participant
        )

    def has(self, *others: Participant, joined_at_ms: int = 1) -> None:
        for other in others:
            info = ParticipantInfo(
                sid=other.sid, identity=other.identity, attributes=other.attributes
            )
            info.kind = other.kind  # type: ignore[assignment]
            info.joined_at_ms = joined_at_ms
            self.participants.append(info)

    async def _list_dispatch(self, room: str) -> list[AgentDispatch]:
        self._answer(room)
        return self.dispatches

    async def _list_participants(self, request: Any) -> Any:
        self._answer(request.room)
        return SimpleNamespace(participants=self.participants)

    async def _update_participant(self, request: Any) -> None:
        self._answer(request.room)
        if request.identity in self.ghosts:
            raise TwirpError(TwirpErrorCode.UNAVAILABLE, "no response from servers", status=503)

    def _answer(self, room: str) -> None:
        assert room == "a-room"
        self.calls += 1
        if self.fails:
            raise ConnectionError("no answer")


class Claiming:
    """A job that claims its dispatch."""

    def __init__(self, *, agent_name: str = NAME, metadata: str = "", hidden: bool = False) -> None:
        own = Job(
            id="AJ_own",
            dispatch_id="AD_own",
            agent_name=agent_name,
            metadata=metadata,
            room=Room(name="a-room"),
        )
        self.job: StubJob = stub_job(own, adopts=True)
        self.room: StubRoom = self.job.room
        self.server = Server()
        self.job.ctx.__dict__["api"] = self.server
        self.lost: list[str] = []
        self.claim = Claim(self.job.ctx, self.lost.append, hidden=hidden)
        self.connecting: asyncio.Task[None] | None = None

    async def connect(self) -> bool:
        """Connect; whether that returns, as it does for the agent that stays."""
        self.connecting = asyncio.create_task(self.room.connect("url", "token"))
        await settle()
        stays = self.connecting.done()
        if stays:
            self.connecting.result()
        else:
            self.connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.connecting
        assert stays is (self.lost == [])
        return stays


async def stays(
    *others: Participant, dispatches: Iterable[AgentDispatch] = (OWN,), **own: Any
) -> bool:
    """Whether an agent stays that finds others who were there first."""
    claiming = Claiming(**own)
    claiming.server.dispatches = list(dispatches)
    claiming.room.joins = list(others)
    return await claiming.connect()


# Who was first


async def test_who_is_alone_stays() -> None:
    assert await stays()


async def test_whoever_finds_another_agent_is_the_later_one() -> None:
    assert not await stays(agent())


async def test_the_later_one_says_why_and_leaves_at_once() -> None:
    """Before what the team does at the end of a session, which may take minutes."""
    claiming = Claiming()
    claiming.room.joins = [agent()]
    assert not await claiming.connect()
    assert claiming.lost == ["another agent was here first"]
    assert not claiming.room.isconnected()


async def test_an_agent_that_comes_later_is_no_hindrance() -> None:
    claiming = Claiming()
    claiming.room.joins = [later := agent()]
    # The event was handled before the answer to the join.
    claiming.room.emit("participant_connected", later)
    assert await claiming.connect()


@pytest.mark.parametrize("first", [True, False])
async def test_one_that_was_there_first_counts_whoever_comes_later(first: bool) -> None:
    claiming = Claiming()
    later, user = agent(), Participant("PA_user")
    others = [agent(), later, user]
    claiming.room.joins = others if first else others[::-1]
    for each in (later, user):
        claiming.room.emit("participant_connected", each)
    assert not await claiming.connect()


async def test_who_came_later_is_known_by_sid_since_identities_may_come_again() -> None:
    claiming = Claiming()
    before, after = agent(), agent()
    after.identity = before.identity
    claiming.room.emit("participant_connected", before)
    claiming.room.joins = [after]
    assert not await claiming.connect()


async def test_of_two_agents_exactly_one_stays() -> None:
    first, second = Claiming(), Claiming()
    second.room.joins = [agent()]
    assert await first.connect()
    first.room.tells_of(agent())
    await settle()
    assert (await second.connect(), first.lost) == (False, [])


async def test_an_agent_is_not_in_its_own_way() -> None:
    """A reload starts the job again, while LiveKit still shows the agent of before."""
    assert await stays(agent(job="AJ_own"))


@pytest.mark.parametrize("kind", OTHER_KINDS)
async def test_nobody_but_an_agent_hinders_whatever_they_say(kind: int) -> None:
    other = agent()
    other.kind = kind
    assert await stays(other)
    other.attributes = {}
    assert await stays(other)


@pytest.mark.parametrize("speaks_for", ["agent-1", ""])
async def test_an_avatar_speaks_for_an_agent_and_is_none(speaks_for: str) -> None:
    assert await stays(agent(publishes_for=speaks_for))
    avatar = stock()
    avatar.attributes[PUBLISHES_FOR] = speaks_for
    assert await stays(avatar)


async def test_what_fails_to_connect_ends_the_job(caplog: pytest.LogCaptureFixture) -> None:
    room = StubRoom

    async def refuse(self: StubRoom, *arguments: Any, **options: Any) -> None:
        raise rtc.ConnectError("no room")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "connect", refuse)
        claiming = Claiming()
        assert not await claiming.connect()
    assert claiming.lost == ["could not join the room"]
    (record,) = caplog.records
    assert (record.levelno, vars(record)["error"]) == (logging.ERROR, "no room")


# For what


GERMAN: Final = dispatch("AD_german", '{"language": "de"}')


async def test_two_dispatches_for_different_work_have_an_agent_each() -> None:
    german = agent(dispatch=GERMAN.id, asked=asked("", GERMAN.metadata))
    assert await stays(german, dispatches=[GERMAN, OWN])
    assert await stays(german, dispatches=[OWN, GERMAN])


async def test_two_dispatches_for_the_same_work_have_one_agent() -> None:
    """Who dispatches again, be it to another build, means the last one."""
    other_build = dispatch("AD_2", '{"agent_build": "000000000000"}', created_at=2)
    other = agent(dispatch=other_build.id, asked=asked("", other_build.metadata))
    assert not await stays(other, dispatches=[OWN, other_build])


async def test_an_agent_whose_dispatch_is_not_listed_stands_for_one_that_asks_the_same() -> None:
    """The server was restarted, and has forgotten that dispatch."""
    assert not await stays(agent(dispatch="AD_forgotten"))
    for_other_work = agent(dispatch="AD_forgotten", asked=asked("", GERMAN.metadata))
    assert await stays(for_other_work)
    assert await stays(for_other_work, dispatches=[GERMAN, OWN])


@pytest.mark.parametrize("name", [NAME, None])
async def test_an_agent_that_tells_nothing_counts_better_silent_than_two_voices(
    name: str | None,
) -> None:
    assert not await stays(stock(name))


async def test_an_agent_that_tells_nothing_stands_for_the_oldest_that_has_none() -> None:
    older, younger = (
        dispatch("AD_german", "de", created_at=0),
        dispatch("AD_german", "de", created_at=2),
    )
    assert await stays(stock(), dispatches=[older, OWN])
    assert not await stays(stock(), dispatches=[younger, OWN])
    german = agent(dispatch=older.id, asked=asked("", "de"))
    assert not await stays(stock(), german, dispatches=[older, OWN])


async def test_an_agent_of_another_name_does_other_work() -> None:
    assert await stays(stock("sales"))
    assert await stays(agent(name="sales", dispatch="AD_sales"))
    assert await stays(stock(""))
    assert await stays(stock(), agent_name="", dispatches=[AgentDispatch(id="AD_own")])


async def test_agents_without_a_name_are_of_the_same_name() -> None:
    unnamed = AgentDispatch(id="AD_own")
    assert not await stays(stock(""), agent_name="", dispatches=[unnamed])


async def test_a_dispatch_that_the_room_does_not_list_is_served_too() -> None:
    """As after a restart, where workers remember it."""
    assert await stays(dispatches=[])
    assert not await stays(stock(), dispatches=[])
    assert not await stays(agent(), dispatches=[])


async def test_the_server_is_asked_only_where_others_make_it_necessary() -> None:
    for others, calls in (
        ([], 0),
        ([Participant("PA_user")], 0),
        ([stock("sales")], 0),
        ([agent()], 0),  # It says that it serves this dispatch.
        ([stock()], 1),
    ):
        claiming = Claiming()
        claiming.room.joins = others
        await claiming.connect()
        assert claiming.server.calls == calls


async def test_where_the_server_does_not_answer_a_warning_says_what_may_happen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    claiming = Claiming()
    claiming.server.fails = True
    claiming.room.joins = [agent(dispatch=GERMAN.id, asked=asked("", GERMAN.metadata))]
    assert await claiming.connect()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert vars(record)["error"] == "no answer"


# Before it joins


async def test_who_finds_another_agent_by_the_api_need_not_join() -> None:
    claiming = Claiming()
    assert not await claiming.claim.is_taken()
    claiming.server.has(Participant("PA_user"), agent(job="AJ_own"), stock("sales"))
    assert not await claiming.claim.is_taken()
    claiming.server.has(agent())
    assert await claiming.claim.is_taken()


async def test_an_agent_whose_node_is_gone_is_nobody() -> None:
    claiming = Claiming()
    dead, living = agent(), agent()
    claiming.server.has(dead)
    claiming.server.ghosts = {dead.identity}
    assert not await claiming.claim.is_taken()
    claiming.server.has(living)
    assert await claiming.claim.is_taken()


async def test_where_nobody_can_be_asked_for_the_list_is_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(_: Any) -> None:
        raise TwirpError(TwirpErrorCode.INTERNAL, "a fault", status=500)

    claiming = Claiming()
    claiming.server.has(agent())
    monkeypatch.setattr(claiming.server.room, "update_participant", fail)
    assert await claiming.claim.is_taken()


async def test_where_the_server_does_not_answer_the_room_itself_decides() -> None:
    claiming = Claiming()
    claiming.server.has(agent())
    claiming.server.fails = True
    assert not await claiming.claim.is_taken()


async def test_a_server_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)

    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    claiming = Claiming()
    monkeypatch.setattr(claiming.server.room, "list_participants", hang)
    monkeypatch.setattr(claiming.server.agent_dispatch, "list_dispatch", hang)
    async with asyncio.timeout(LONG_S):
        assert not await claiming.claim.is_taken()
        claiming.room.joins = [agent(dispatch=GERMAN.id, asked=asked("", GERMAN.metadata))]
        await claiming.room.connect("url", "token")


# Agents that see each other by the API only


@pytest.mark.parametrize(
    ("theirs_ms", "own_ms", "first"), [(1, 2, False), (2, 1, True), (3, None, False)]
)
async def test_of_hidden_agents_the_server_says_who_joined_first(
    theirs_ms: int, own_ms: int | None, first: bool
) -> None:
    claiming = Claiming(hidden=True)
    claiming.server.has(agent(), joined_at_ms=theirs_ms)
    if own_ms is not None:
        own = agent(job="AJ_own")
        own.sid = "PA_own"
        claiming.server.has(own, joined_at_ms=own_ms)
    assert await claiming.connect() is first


@pytest.mark.parametrize("own_is_first", [True, False])
async def test_of_two_that_joined_in_the_same_moment_one_is_first(own_is_first: bool) -> None:
    claiming = Claiming(hidden=True)
    other, own = agent(), agent(job="AJ_own")
    other.sid = "PA_zzz" if own_is_first else "PA_aaa"
    own.sid = "PA_own"
    claiming.server.has(other, own)
    assert await claiming.connect() is own_is_first


async def test_an_older_server_tells_seconds_only() -> None:
    claiming = Claiming(hidden=True)
    own = agent(job="AJ_own")
    own.sid = "PA_own"
    claiming.server.has(own, agent(), joined_at_ms=0)
    for info, joined_at in zip(claiming.server.participants, (2, 1), strict=True):
        info.joined_at = joined_at
    assert not await claiming.connect()


async def test_agents_that_are_seen_need_no_api() -> None:
    claiming = Claiming(hidden=False)
    claiming.server.has(agent())
    assert await claiming.connect()
    assert claiming.server.calls == 0


# After an outage


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATER_LEAVES_S", 0.0)


def another_kind() -> Participant:
    return Participant("PA_user", OTHER_KINDS[0])


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize(
    ("other", "lost"),
    [
        pytest.param(agent(), True, id="same-dispatch"),
        pytest.param(stock(), True, id="stock-agent"),
        pytest.param(stock("sales"), False, id="another-agent"),
        pytest.param(agent(dispatch="AD_2", asked="other"), False, id="other-dispatch"),
        pytest.param(another_kind(), False, id="user"),
    ],
)
async def test_who_was_away_has_lost_the_room_to_an_agent_that_is_there(
    other: Participant, lost: bool
) -> None:
    claiming = Claiming()
    assert await claiming.connect()
    claiming.room.tells_of(other)
    await settle()
    assert claiming.lost == []  # never away

    claiming.room.emit("reconnected")
    await settle()
    assert claiming.lost == (["another agent has taken over"] if lost else [])
    assert claiming.room.isconnected() is not lost


@pytest.mark.usefixtures("no_wait")
async def test_who_was_away_keeps_the_room_if_the_other_leaves_at_once() -> None:
    claiming = Claiming()
    assert await claiming.connect()
    claiming.room.tells_of(other := agent())
    claiming.room.emit("reconnected")
    claiming.room.leaves(other)
    await settle()
    assert claiming.lost == []


async def test_another_one_has_time_to_leave() -> None:
    claiming = Claiming()
    assert await claiming.connect()
    claiming.room.tells_of(agent())
    claiming.room.emit("reconnected")
    await settle()
    assert claiming.lost == []
    claiming.claim._checking.cancel()


# What users write before the room is this agent's


def answers_to(claiming: Claiming) -> list[tuple[str, str]]:
    """What a handler of text gets to see: the text and who wrote it."""
    answered: list[tuple[str, str]] = []

    def answer(reader: Any, identity: str) -> None:
        if reader == "fail":
            raise LookupError("no reply")
        answered.append((reader, identity))

    claiming.job.ctx.room.register_text_stream_handler("lk.chat", answer)
    return answered


def writes(claiming: Claiming, *texts: str) -> None:
    for text in texts:
        claiming.room.text_handlers["lk.chat"](text, "user-1")


async def test_text_is_held_back_until_the_room_is_this_agents() -> None:
    claiming = Claiming()
    answered = answers_to(claiming)
    writes(claiming, "one", "two", "three")
    assert answered == []
    assert await claiming.connect()
    writes(claiming, "four")
    assert answered == [(text, "user-1") for text in ("one", "two", "three", "four")]


async def test_text_for_a_room_that_is_never_this_agents_is_never_answered() -> None:
    claiming = Claiming()
    answered = answers_to(claiming)
    claiming.room.joins = [agent()]
    writes(claiming, "hello")
    assert not await claiming.connect()
    writes(claiming, "is anybody there?")
    assert answered == []


async def test_a_handler_that_is_registered_later_gets_its_text_at_once() -> None:
    claiming = Claiming()
    assert await claiming.connect()
    answered = answers_to(claiming)
    writes(claiming, "hello")
    assert answered == [("hello", "user-1")]


async def test_a_handler_that_fails_stops_no_other_text(caplog: pytest.LogCaptureFixture) -> None:
    claiming = Claiming()
    answered = answers_to(claiming)
    writes(claiming, "fail", "hello")
    assert await claiming.connect()
    assert answered == [("hello", "user-1")]
    (record,) = caplog.records
    assert record.exc_info is not None


async def test_what_fails_later_is_livekits_to_see() -> None:
    claiming = Claiming()
    answers_to(claiming)
    assert await claiming.connect()
    with pytest.raises(LookupError):
        writes(claiming, "fail")


async def test_one_that_connects_again_is_not_held_back() -> None:
    claiming = Claiming()
    assert await claiming.connect()
    claiming.room.connection_state = CONNECTED
    answered = answers_to(claiming)
    assert await claiming.connect()
    writes(claiming, "hello")
    assert answered == [("hello", "user-1")]
