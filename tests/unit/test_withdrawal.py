from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Final, cast

import aiohttp
import pytest
from google.protobuf.message import DecodeError
from livekit.agents import JobContext
from livekit.api import TwirpError, TwirpErrorCode
from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import (
    AgentDispatch,
    AgentDispatchState,
    CreateAgentDispatchRequest,
    ListAgentDispatchResponse,
)
from livekit.protocol.models import Room

from build_aware.adoption.api_errors import API_ERRORS
from build_aware.adoption.notes import is_noted
from build_aware.job import withdrawal
from build_aware.job.withdrawal import withdraw

NAME: Final = "support"
HANGS_S: Final = 1.0
"""Where a test would hang, it fails after this."""


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
        noted: the dispatches that were made, as notes.
    """

    there: list[AgentDispatch] = field(default_factory=list)
    errors: list[Exception | None] = field(default_factory=list)
    hangs: bool = False
    noted: list[AgentDispatch] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    async def list_dispatch(self, room_name: str) -> list[AgentDispatch]:
        await self._answer("list")
        return list(self.there) if room_name == "a-room" else []

    async def delete_dispatch(self, dispatch_id: str, room_name: str) -> AgentDispatch:
        await self._answer(f"delete {dispatch_id}")
        (found,) = (each for each in self.there if (each.id, room_name) == (dispatch_id, "a-room"))
        self.there.remove(found)
        return found

    async def create_dispatch(self, request: CreateAgentDispatchRequest) -> AgentDispatch:
        assert request.room == "a-room"
        self.noted.append(
            AgentDispatch(id="note", agent_name=request.agent_name, metadata=request.metadata)
        )
        return self.noted[-1]

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


def dispatch(
    dispatch_id: str,
    agent_name: str = NAME,
    deployment: str = "",
    metadata: str = "",
    *,
    created_at: int = 1,
) -> AgentDispatch:
    return AgentDispatch(
        id=dispatch_id,
        agent_name=agent_name,
        deployment=deployment,
        metadata=metadata,
        state=AgentDispatchState(created_at=created_at),
    )


async def withdraw_from(
    dispatches: Dispatches, *, deployment: str = "", dispatch_id: str = "1", metadata: str = ""
) -> None:
    job = Job(
        room=Room(name="a-room"),
        agent_name=NAME,
        deployment=deployment,
        metadata=metadata,
        dispatch_id=dispatch_id,
    )
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
    assert sum(pauses) < withdrawal.WITHDRAWAL_S / 2


async def test_a_server_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(withdrawal, "WITHDRAWAL_S", 0.01)
    dispatches = Dispatches(hangs=True)
    await withdraw_from(dispatches)
    assert dispatches.calls == ["list"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert vars(record)["error"] == "TimeoutError"


async def test_who_is_cancelled_stops_withdrawing(caplog: pytest.LogCaptureFixture) -> None:
    withdrawing = asyncio.create_task(withdraw_from(Dispatches(hangs=True)))
    asyncio.get_running_loop().call_soon(withdrawing.cancel)
    with pytest.raises(asyncio.CancelledError):
        await withdrawing
    assert caplog.records == []


# A note where the server has forgotten the dispatch


async def test_no_note_is_left_where_the_jobs_own_dispatch_is_found() -> None:
    dispatches = Dispatches([dispatch("1"), dispatch("2")])
    await withdraw_from(dispatches)
    assert dispatches.noted == []


@pytest.mark.parametrize("there", [[], ["2"]])
async def test_a_note_is_left_where_a_restart_took_the_jobs_own_dispatch(there: list[str]) -> None:
    dispatches = Dispatches([dispatch(each) for each in there])
    await withdraw_from(dispatches)
    assert dispatches.left == []
    assert is_noted(dispatch("1"), dispatches.noted)
    assert not is_noted(dispatch("1", "sales"), dispatches.noted)
    assert not is_noted(dispatch("1", ""), dispatches.noted)
    assert not is_noted(dispatch("1"), [dispatch("2")])


# Several dispatches for one agent

FRENCH: Final = '{"language": "fr"}'
GERMAN: Final = '{"language": "de"}'
GERMAN_OF_B: Final = '{"agent_build": "build-B", "language": "de"}'


async def test_the_dispatches_of_other_roles_stay() -> None:
    dispatches = Dispatches([dispatch("fr", metadata=FRENCH), dispatch("de", metadata=GERMAN)])
    await withdraw_from(dispatches, dispatch_id="de", metadata=GERMAN)
    assert dispatches.left == ["fr"]
    assert dispatches.noted == []


async def test_a_dispatch_that_asked_another_build_for_the_same_goes_too() -> None:
    dispatches = Dispatches([dispatch("de", metadata=GERMAN), dispatch("B", metadata=GERMAN_OF_B)])
    await withdraw_from(dispatches, dispatch_id="de", metadata=GERMAN)
    assert dispatches.left == []


async def test_a_later_dispatch_for_another_build_stays_and_hands_the_session_over() -> None:
    served = dispatch("de", metadata=GERMAN, created_at=5)
    before = dispatch("A", metadata=GERMAN_OF_B, created_at=4)
    again = dispatch("de-2", metadata=GERMAN, created_at=6)
    later = dispatch("B", metadata=GERMAN_OF_B, created_at=7)
    dispatches = Dispatches([before, served, again, later])
    await withdraw_from(dispatches, dispatch_id="de", metadata=GERMAN)
    assert dispatches.left == ["B"]


async def test_it_stays_where_a_call_fails_and_is_tried_again() -> None:
    there = [
        dispatch("de", metadata=GERMAN, created_at=5),
        dispatch("de-2", metadata=GERMAN, created_at=6),
        dispatch("B", metadata=GERMAN_OF_B, created_at=7),
    ]
    dispatches = Dispatches(there, errors=[None, None, unavailable()])
    await withdraw_from(dispatches, dispatch_id="de", metadata=GERMAN)
    assert (dispatches.left, dispatches.noted) == (["B"], [])


async def test_a_later_dispatch_that_says_the_same_in_another_way_goes() -> None:
    served = dispatch("B", metadata=GERMAN_OF_B, created_at=5)
    again = dispatch("B-2", metadata=GERMAN_OF_B.replace(":", " :"), created_at=6)
    dispatches = Dispatches([served, again])
    await withdraw_from(dispatches, dispatch_id="B", metadata=GERMAN_OF_B)
    assert dispatches.left == []


async def test_after_a_restart_the_dispatch_goes_that_the_agent_stands_for() -> None:
    there = [dispatch("fr-2", metadata=FRENCH), dispatch("de-2", metadata=GERMAN)]
    dispatches = Dispatches(there)
    await withdraw_from(dispatches, dispatch_id="de", metadata=GERMAN)
    assert dispatches.left == ["fr-2"]
    assert is_noted(dispatch("de", metadata=GERMAN), dispatches.noted)
    assert is_noted(dispatch("B", metadata=GERMAN_OF_B), dispatches.noted)
    assert not is_noted(dispatch("fr", metadata=FRENCH), dispatches.noted)
    assert not is_noted(dispatch("de", NAME, "eu", GERMAN), dispatches.noted)


def test_a_note_of_a_build_from_before_means_all_roles_of_its_agent() -> None:
    noted = [dispatch("note", f"_ended.{NAME}")]
    assert is_noted(dispatch("fr", metadata=FRENCH), noted)
    assert not is_noted(dispatch("sales", "sales"), noted)
