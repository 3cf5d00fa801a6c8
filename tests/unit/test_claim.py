from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from livekit import rtc
from livekit.agents import AgentSession, JobContext
from livekit.agents.voice.room_io import RoomOptions, TextInputEvent, TextInputOptions
from livekit.protocol.agent import Job

from build_aware.dispatch.attributes import AGENT_NAME, PUBLISHES_FOR
from build_aware.job import claim
from build_aware.job.claim import Claim, TextInput

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
