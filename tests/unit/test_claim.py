from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast

import aiohttp
import pytest
from google.protobuf.message import DecodeError
from livekit import rtc
from livekit.agents import AgentSession, JobContext
from livekit.agents.voice.room_io import RoomOptions, TextInputEvent, TextInputOptions
from livekit.api import TwirpError, TwirpErrorCode
from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch, ListAgentDispatchResponse
from livekit.protocol.models import Room

from agent import claim, ending
from agent.api_errors import API_ERRORS
from agent.claim import Claim, TextInput, withdraw
from agent.waiting import AGENT_NAME, PUBLISHES_FOR

NAME: Final = "support"
HANGS_S: Final = 1.0
"""Where a test would hang, it fails after this."""

AGENT: Final = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
OTHER_KINDS: Final = sorted(set(rtc.ParticipantKind.values()) - {AGENT})


# The claim


@dataclass
class Other:
    """What stands in for another participant."""

    sid: str = "PA_1"
    kind: int = AGENT
    attributes: dict[str, str] = field(default_factory=lambda: {AGENT_NAME: NAME})


class StubRoom(rtc.EventEmitter[str]):
    """A room with LiveKit's own events."""

    def __init__(self) -> None:
        super().__init__()
        self.remote_participants: dict[str, Other] = {}

    def has(self, *others: Other) -> None:
        """Others are there in the answer to the join; no event tells of them."""
        self.remote_participants |= {f"identity of {other.sid}": other for other in others}

    def tells_of(self, other: Other) -> None:
        """Another one comes."""
        self.has(other)
        self.emit("participant_connected", other)


def claim_to(room: StubRoom, agent_name: str = NAME) -> Claim:
    return Claim(cast(JobContext, SimpleNamespace(room=room, job=Job(agent_name=agent_name))))


def fails_against(*others: Other, agent_name: str = NAME) -> bool:
    """Whether a claim fails against others who were there first."""
    room = StubRoom()
    room_claim = claim_to(room, agent_name)
    room.has(*others)
    return room_claim.fails()


def test_who_is_alone_has_the_room() -> None:
    assert not fails_against()


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "LATER_LEAVES_S", 0.0)


def another_kind() -> Other:
    return Other(kind=OTHER_KINDS[0])


@pytest.mark.usefixtures("no_wait")
@pytest.mark.parametrize(
    ("other", "lost"),
    [
        pytest.param(Other(), 1, id="same-agent"),
        pytest.param(Other(attributes={AGENT_NAME: "another"}), 0, id="another-agent"),
        pytest.param(another_kind(), 0, id="user"),
    ],
)
async def test_who_was_away_has_lost_the_room_to_an_agent_that_is_there(
    other: Other, lost: int
) -> None:
    room = StubRoom()
    called: list[None] = []
    claim_to(room).on_lost(lambda: called.append(None))
    room.tells_of(other)
    await asyncio.sleep(0)
    assert called == []  # never away

    room.emit("reconnected")
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(called) == lost


@pytest.mark.usefixtures("no_wait")
async def test_who_was_away_keeps_the_room_if_the_other_leaves_at_once() -> None:
    room = StubRoom()
    called: list[None] = []
    claim_to(room).on_lost(lambda: called.append(None))
    room.tells_of(Other())

    room.emit("reconnected")
    room.remote_participants.clear()
    for _ in range(3):
        await asyncio.sleep(0)
    assert called == []


def test_whoever_finds_another_agent_is_the_later_one() -> None:
    assert fails_against(Other())


def test_an_agent_that_comes_later_is_no_hindrance() -> None:
    room = StubRoom()
    room_claim = claim_to(room)
    room.tells_of(Other())
    assert not room_claim.fails()


@pytest.mark.parametrize("first", [True, False])
def test_one_that_was_there_first_counts_whoever_comes_later(first: bool) -> None:
    room = StubRoom()
    room_claim = claim_to(room)
    if first:
        room.has(Other("PA_first"))
    room.tells_of(Other("PA_later"))
    room.tells_of(Other("PA_user", OTHER_KINDS[0]))
    if not first:
        room.has(Other("PA_first"))
    assert room_claim.fails()


def test_who_came_later_is_known_by_sid_since_identities_may_come_again() -> None:
    room = StubRoom()
    room_claim = claim_to(room)
    room.tells_of(Other("PA_1"))
    room.remote_participants.clear()
    room.has(Other("PA_2"))
    assert room_claim.fails()


def test_an_agent_that_has_left_is_no_hindrance() -> None:
    room = StubRoom()
    room_claim = claim_to(room)
    room.has(Other())
    room.remote_participants.clear()
    assert not room_claim.fails()


def test_of_two_agents_exactly_one_stays() -> None:
    first_room, second_room = StubRoom(), StubRoom()
    first, second = claim_to(first_room), claim_to(second_room)
    first_room.tells_of(Other("PA_second"))
    second_room.has(Other("PA_first"))
    assert [first.fails(), second.fails()] == [False, True]


def test_an_agent_of_another_name_does_other_work() -> None:
    assert not fails_against(Other(attributes={AGENT_NAME: "sales"}))
    assert not fails_against(Other(attributes={AGENT_NAME: ""}))
    assert not fails_against(Other(), agent_name="")


def test_agents_without_a_name_are_of_the_same_name() -> None:
    assert fails_against(Other(attributes={AGENT_NAME: ""}), agent_name="")


@pytest.mark.parametrize("agent_name", [NAME, ""])
def test_an_agent_that_tells_no_name_counts_better_silent_than_two_voices(agent_name: str) -> None:
    assert fails_against(Other(attributes={}), agent_name=agent_name)


@pytest.mark.parametrize("speaks_for", ["agent-1", ""])
def test_an_avatar_speaks_for_an_agent_and_is_none(speaks_for: str) -> None:
    assert not fails_against(Other(attributes={PUBLISHES_FOR: speaks_for}))
    avatar = Other(attributes={PUBLISHES_FOR: speaks_for, AGENT_NAME: NAME})
    assert not fails_against(avatar)


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_nobody_but_an_agent_hinders_whatever_they_say(kind: int) -> None:
    assert not fails_against(Other(kind=kind))
    assert not fails_against(Other(kind=kind, attributes={}))


@pytest.mark.parametrize("agent_first", [True, False])
def test_an_agent_is_found_among_others(agent_first: bool) -> None:
    others = [Other("PA_0", OTHER_KINDS[0]), Other("PA_1", attributes={AGENT_NAME: "sales"})]
    agent = Other("PA_2")
    assert fails_against(*([agent, *others] if agent_first else [*others, agent]))


# Taking back what asked for this agent


def not_found() -> TwirpError:
    return TwirpError(TwirpErrorCode.NOT_FOUND, "no such dispatch", status=404)


def unavailable() -> TwirpError:
    return TwirpError(TwirpErrorCode.UNAVAILABLE, "try later", status=503)


@dataclass
class Dispatches:
    """What stands in for the server's dispatches of the room `a-room`.

    Attributes:
        there: the dispatches.
        errors: what goes wrong, call by call; None for nothing.
        hangs: whether no call is ever answered.
    """

    there: list[AgentDispatch] = field(default_factory=list)
    errors: list[Exception | None] = field(default_factory=list)
    hangs: bool = False
    calls: list[str] = field(default_factory=list)

    async def list_dispatch(self, room_name: str) -> list[AgentDispatch]:
        await self._answer("list")
        return list(self.there) if room_name == "a-room" else []

    async def delete_dispatch(self, dispatch_id: str, room_name: str) -> AgentDispatch:
        await self._answer(f"delete {dispatch_id}")
        (found,) = (each for each in self.there if (each.id, room_name) == (dispatch_id, "a-room"))
        self.there.remove(found)
        return found

    async def _answer(self, call: str) -> None:
        self.calls.append(call)
        if self.hangs:
            await asyncio.Event().wait()
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    @property
    def left(self) -> list[str]:
        return [dispatch.id for dispatch in self.there]


def dispatch(dispatch_id: str, agent_name: str = NAME, deployment: str = "") -> AgentDispatch:
    return AgentDispatch(id=dispatch_id, agent_name=agent_name, deployment=deployment)


async def withdraw_from(dispatches: Dispatches, *, deployment: str = "") -> None:
    job = Job(room=Room(name="a-room"), agent_name=NAME, deployment=deployment)
    ctx = SimpleNamespace(job=job, api=SimpleNamespace(agent_dispatch=dispatches))
    async with asyncio.timeout(HANGS_S):
        await withdraw(cast(JobContext, ctx))


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which no test waits for."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def pause(delay_s: float) -> None:
        pauses.append(delay_s)
        await sleep(0)

    monkeypatch.setattr("asyncio.sleep", pause)
    return pauses


@pytest.mark.parametrize(
    ("deployment", "left"),
    [("", ["2", "3", "6"]), ("staging", ["1", "2", "4", "5", "6"]), ("eu", list("123456"))],
)
async def test_the_dispatches_of_this_agent_and_deployment_are_deleted_and_no_others(
    deployment: str, left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    dispatches = Dispatches(
        [
            dispatch("1"),
            dispatch("2", "sales"),
            dispatch("3", NAME, "staging"),
            dispatch("4"),
            dispatch("5", NAME, ""),
            dispatch("6", "", "staging"),
        ]
    )
    await withdraw_from(dispatches, deployment=deployment)
    assert dispatches.left == left
    assert dispatches.calls.count("list") == 1
    assert caplog.records == []


async def test_where_nothing_asked_there_is_nothing_to_take_back() -> None:
    dispatches = Dispatches([dispatch("1", "sales")])
    await withdraw_from(dispatches)
    assert dispatches.calls == ["list"]


def no_route() -> TwirpError:
    return TwirpError(TwirpErrorCode.UNKNOWN, "", status=404)


def error_page() -> Exception:
    """What LiveKit's client makes of a proxy's error page with status 200."""
    with pytest.raises(DecodeError) as raised:
        ListAgentDispatchResponse.FromString(b"<html>try later</html>")
    return raised.value


LASTING: Final[list[Callable[[], Exception]]] = [
    unavailable,
    no_route,
    error_page,
    lambda: aiohttp.ClientConnectionError("refused"),
    aiohttp.ServerDisconnectedError,
    TimeoutError,
    lambda: OSError("no file descriptor left"),
]
ERRORS: Final = [*LASTING, not_found]


def test_all_that_the_api_may_raise_is_tried_here() -> None:
    assert {base for error in ERRORS for base in type(error()).mro()} >= set(API_ERRORS)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("failing", [[1], [0, 1], [1, 1], [0, 0, 1], [0, 1, 0, 1]])
async def test_what_fails_is_tried_again(
    error: Callable[[], Exception], failing: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    errors = [error() if fails else None for fails in failing]
    dispatches = Dispatches([dispatch("1"), dispatch("2")], errors)
    await withdraw_from(dispatches)
    assert dispatches.left == []
    assert caplog.records == []


async def test_a_dispatch_that_somebody_else_deletes_meanwhile_is_gone_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dispatches = Dispatches([dispatch("1"), dispatch("2")])

    async def overtaken(dispatch_id: str, room_name: str) -> AgentDispatch:
        dispatches.there = [dispatch("2")]
        del dispatches.delete_dispatch
        raise not_found()

    dispatches.delete_dispatch = overtaken  # type: ignore[method-assign]
    await withdraw_from(dispatches)
    assert dispatches.left == []
    assert caplog.records == []


@pytest.mark.parametrize("error", LASTING)
async def test_a_failure_that_lasts_is_one_warning_and_no_exception(
    error: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    dispatches = Dispatches([dispatch("1")], [error() for _ in range(10)])
    await withdraw_from(dispatches)
    assert dispatches.calls == ["list"] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "could not be deleted" in record.getMessage()
    assert vars(record)["room"] == "a-room"
    assert vars(record)["error"] == (str(error()) or type(error()).__name__)


@pytest.mark.parametrize("before", ERRORS)
async def test_where_the_room_has_closed_there_is_nothing_to_warn_of(
    before: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    dispatches = Dispatches([dispatch("1")], [before(), before(), not_found()])
    await withdraw_from(dispatches)
    assert dispatches.calls == ["list"] * 3
    assert caplog.records == []


async def test_a_room_may_close_between_list_and_deletion(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dispatches = Dispatches([dispatch("1")], [None, not_found()] * 3)
    await withdraw_from(dispatches)
    assert dispatches.calls == ["list", "delete 1"] * 3
    assert caplog.records == []


@pytest.mark.parametrize("last", LASTING)
async def test_the_last_error_tells_whether_the_room_has_closed(
    last: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    await withdraw_from(Dispatches([dispatch("1")], [not_found(), not_found(), last()]))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


async def test_between_attempts_the_server_gets_more_and_more_time(pauses: list[float]) -> None:
    await withdraw_from(Dispatches(errors=[unavailable() for _ in range(10)]))
    assert pauses == sorted(set(pauses))
    assert len(pauses) == 2
    assert min(pauses) > 0
    assert sum(pauses) < claim.WITHDRAWAL_S / 2


async def test_a_server_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(claim, "WITHDRAWAL_S", 0.01)
    dispatches = Dispatches(hangs=True)
    await withdraw_from(dispatches)
    assert dispatches.calls == ["list"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert vars(record)["error"] == "TimeoutError"


def test_withdrawing_fits_into_the_end_of_a_session() -> None:
    assert claim.WITHDRAWAL_S < ending.SESSION_END_S


async def test_who_is_cancelled_stops_withdrawing(caplog: pytest.LogCaptureFixture) -> None:
    withdrawing = asyncio.create_task(withdraw_from(Dispatches(hangs=True)))
    asyncio.get_running_loop().call_soon(withdrawing.cancel)
    with pytest.raises(asyncio.CancelledError):
        await withdrawing
    assert caplog.records == []


# What users write before the room is this agent's


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """What LiveKit's own handling of text input got to see: the session and the text."""
    answered: list[tuple[Any, str]] = []

    async def answer(session: Any, event: TextInputEvent) -> None:
        answered.append((session, event.text))

    monkeypatch.setattr(TextInputOptions.__init__, "__defaults__", (answer,))
    return answered


SESSION: Final = cast(AgentSession[None], object())


def writes(text_input: TextInput, text: str) -> asyncio.Task[None]:
    """A user writes: LiveKit handles each text in a task of its own."""
    handling = text_input.text_input_cb(SESSION, TextInputEvent(text))
    assert handling is not None
    return asyncio.create_task(handling)


async def settle() -> None:
    """Let every task run until it waits for something."""
    loop = asyncio.get_running_loop()
    for _ in range(10):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


async def test_text_is_held_back_until_the_room_is_this_agents(
    answered: list[tuple[Any, str]],
) -> None:
    text_input = TextInput()
    handling = writes(text_input, "hello")
    await settle()
    assert answered == []
    assert not handling.done()
    text_input.open()
    async with asyncio.timeout(HANGS_S):
        await handling
    assert answered == [(SESSION, "hello")]


async def test_what_was_held_back_is_answered_in_the_order_in_which_it_was_written(
    answered: list[tuple[Any, str]],
) -> None:
    text_input = TextInput()
    held = [writes(text_input, text) for text in ("one", "two", "three")]
    await settle()
    text_input.open()
    async with asyncio.timeout(HANGS_S):
        await asyncio.gather(*held)
    assert [text for _, text in answered] == ["one", "two", "three"]


async def test_once_open_text_goes_straight_through(answered: list[tuple[Any, str]]) -> None:
    text_input = TextInput()
    text_input.open()
    text_input.open()
    for text in ("one", "two"):
        async with asyncio.timeout(HANGS_S):
            await writes(text_input, text)
    assert [text for _, text in answered] == ["one", "two"]


async def test_text_for_a_room_that_is_never_this_agents_is_never_answered(
    answered: list[tuple[Any, str]],
) -> None:
    handling = writes(TextInput(), "hello")
    await settle()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert answered == []


async def test_one_open_input_opens_no_other(answered: list[tuple[Any, str]]) -> None:
    one, other = TextInput(), TextInput()
    one.open()
    handling = writes(other, "hello")
    await settle()
    assert answered == []
    handling.cancel()


async def test_an_answer_that_needs_no_waiting_is_none_to_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered: list[str] = []

    def answer(_: Any, event: TextInputEvent) -> None:
        answered.append(event.text)

    monkeypatch.setattr(TextInputOptions.__init__, "__defaults__", (answer,))
    text_input = TextInput()
    text_input.open()
    await writes(text_input, "hello")
    assert answered == ["hello"]


async def test_what_fails_while_answering_is_livekits_to_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(_session: Any, _event: TextInputEvent) -> None:
        raise LookupError("no reply")

    monkeypatch.setattr(TextInputOptions.__init__, "__defaults__", (answer,))
    text_input = TextInput()
    text_input.open()
    with pytest.raises(LookupError):
        await writes(text_input, "hello")


async def test_livekit_takes_it_for_text_input() -> None:
    text_input = TextInput()
    assert RoomOptions(text_input=text_input).get_text_input_options() is text_input
