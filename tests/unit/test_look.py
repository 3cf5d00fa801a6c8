"""What a look at a room asks the server, and what it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import pytest
from livekit.api import TwirpError, TwirpErrorCode
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import Room
from livekit.protocol.room import RoomParticipantIdentity

from build_aware.adoption import look as looks
from build_aware.adoption.api_errors import is_gone
from build_aware.adoption.judgement import Empty, Finding, Fits, Served, Waiting
from build_aware.adoption.look import LONG_S, Lookout
from build_aware.adoption.notes import note
from build_aware.adoption.own_jobs import COMES_S, OwnJobs
from build_aware.dispatch.attributes import AGENT_NAME
from build_aware.dispatch.room_record import RoomRecord
from build_aware.dispatch.rooms import Rooms
from tests.support.stub_api import (
    NAME,
    ROOM,
    StubServer,
    a_user,
    an_agent,
    asks,
    candidate,
    job_of,
)

FRENCH: Final = asks("fr", "fr")
GERMAN: Final = asks("de", "de", created_s=2)


@pytest.fixture
def server() -> StubServer:
    return StubServer()


def known(server: StubServer) -> RoomRecord:
    """What is known of the one room of a server."""
    rooms = Rooms()
    rooms.listed(server.rooms, time.monotonic())
    record = rooms.get(ROOM)
    assert record is not None
    return record


def came_back_without(*dispatches: AgentDispatch) -> RoomRecord:
    """What is known of a room that a restart took, with these dispatches, and that is back."""
    rooms, now_s = Rooms(), time.monotonic()
    rooms.listed([Room(name=ROOM, sid="RM_1", num_participants=1)], now_s - 30)
    before = rooms.get(ROOM)
    assert before is not None
    before.take_in(dispatches)
    rooms.connected_again(now_s - 20)
    rooms.listed([Room(name=ROOM, sid="RM_2", num_participants=1)], now_s)
    record = rooms.get(ROOM)
    assert record is not None
    return record


def own_jobs(running: Iterable[AgentDispatch] = (), ended: Iterable[str] = ()) -> OwnJobs:
    own, now_s = OwnJobs(), time.monotonic()
    jobs = {job.id: job for job in map(job_of, running)}
    own.update(jobs | {job_id: job_of(FRENCH, job_id, "elsewhere") for job_id in ended}, now_s)
    own.update(jobs, now_s)
    return own


async def look(
    server: StubServer,
    record: RoomRecord | None = None,
    *,
    own: OwnJobs | None = None,
    also_empty: bool = False,
    adoptable_in_s: Callable[[Fits], float] = lambda _: 0.0,
) -> Finding:
    return await Lookout(candidate(), own or OwnJobs()).look(
        server.api,
        record or known(server),
        adoptable_in_s=adoptable_in_s,
        also_empty=also_empty,
    )


async def adopted_for(server: StubServer, record: RoomRecord | None = None) -> str | None:
    """The dispatch for which a look would have a room adopted."""
    finding = await look(server, record)
    return finding.dispatch.id if isinstance(finding, Fits) else None


# Whose node is gone


async def test_an_agent_whose_node_is_gone_is_nobody(server: StubServer) -> None:
    ghost = an_agent("fr")
    server.has(FRENCH, there=[a_user(), ghost])
    server.ghosts = {ghost.identity}
    record = known(server)
    assert await adopted_for(server, record) == "fr"
    assert record.agents == frozenset()
    # And it stays so: the agent is not asked for again, and whose place it has is free.
    lookout = Lookout(candidate(), OwnJobs())
    assert not await lookout.has_come(server.api, record, FRENCH)
    assert await lookout.is_free(server.api, record, FRENCH, ghost.identity)
    assert await adopted_for(server, record) == "fr"
    assert server.asked_for == {ghost.identity: 1, "user": 1}


async def test_an_agent_that_did_not_answer_is_asked_for_again(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = an_agent("fr")
    server.has(FRENCH, there=[a_user(), busy])
    server.ghosts = {busy.identity}
    record = known(server)
    assert await adopted_for(server, record) == "fr"
    server.ghosts.clear()
    assert await adopted_for(server, record) == "fr"
    monkeypatch.setattr(looks, "GHOST_S", 0.0)
    assert await look(server, record) == Served()


async def test_the_user_who_came_last_tells_whether_the_room_lives(server: StubServer) -> None:
    ghosts = [a_user("before"), an_agent("fr")]
    back = a_user("after")
    back.joined_at += 1
    server.has(FRENCH, there=[*ghosts, back, a_user("second")])
    server.ghosts = {each.identity for each in ghosts}
    assert await adopted_for(server) == "fr"
    assert server.asked_for == {"after": 1, "agent-AJ_fr": 1}

    server.ghosts.add("after")
    with pytest.raises(TwirpError) as gone:
        await look(server)
    assert is_gone(gone.value)
    assert server.asked_for == {"after": 2, "agent-AJ_fr": 1}


async def test_a_dispatch_that_was_lost_with_its_node_is_remembered(server: StubServer) -> None:
    server.has(FRENCH, GERMAN, there=[a_user(), an_agent("fr"), an_agent("de")])
    record = known(server)
    assert await look(server, record) == Served()
    server.has(there=[a_user(), an_agent("fr")])
    server.ghosts = {"agent-AJ_fr"}
    assert await adopted_for(server, record) == "fr"
    # What the other one served had ended before.
    assert [each.dispatch.id for each in record.asks()] == ["fr"]


async def test_agents_that_the_numbers_show_are_not_asked_for(server: StubServer) -> None:
    server.has(FRENCH, there=[a_user(), an_agent("fr")], publishers=2)
    assert await look(server) == Served()
    assert server.calls["UpdateParticipant"] == 0


async def test_a_dead_agent_of_this_worker_needs_no_removal_where_its_node_is_gone(
    server: StubServer,
) -> None:
    dead = an_agent("fr", job_id="AJ_dead")
    server.has(FRENCH, there=[a_user(), dead])
    server.ghosts = {dead.identity}
    finding = await look(server, own=own_jobs(ended=["AJ_dead"]))
    assert isinstance(finding, Fits)


# What it costs


async def test_a_room_with_a_user_costs_two_calls(server: StubServer) -> None:
    server.has(FRENCH)
    assert await adopted_for(server) == "fr"
    assert server.calls == {"ListParticipants": 1, "ListDispatch": 1}


async def test_a_room_without_one_costs_one(server: StubServer) -> None:
    server.has(FRENCH, there=[])
    assert await look(server) == Empty()
    server.has(FRENCH, there=[an_agent("fr")])
    assert await look(server) == Served()
    assert server.calls == {"ListParticipants": 2}


async def test_where_no_user_is_a_last_look_still_sees_an_offer(server: StubServer) -> None:
    server.has(asks("fr", build="ours", created_s=time.time()), there=[])
    finding = await look(server, also_empty=True)
    assert isinstance(finding, Waiting)
    assert (finding.offered, finding.only_ours) == (True, True)


# Who serves what


async def test_a_room_is_adopted_for_the_dispatch_without_an_agent(server: StubServer) -> None:
    server.has(FRENCH, GERMAN, there=[a_user(), an_agent("fr")])
    assert await adopted_for(server) == "de"
    server.has(FRENCH, GERMAN, there=[a_user(), an_agent("fr"), an_agent("de")])
    assert await look(server) == Served()


async def test_a_job_that_runs_here_is_an_agent_that_has_not_come_yet(server: StubServer) -> None:
    server.has(FRENCH, GERMAN)
    finding = await look(server, own=own_jobs([FRENCH]))
    assert isinstance(finding, Fits)
    assert finding.dispatch.id == "de"
    assert await look(server, own=own_jobs([FRENCH, GERMAN])) == Served()


async def test_what_a_look_found_is_known(server: StubServer) -> None:
    sales = an_agent("other", name="sales")
    server.has(FRENCH, asks("other", name="sales"), there=[a_user(), sales])
    record = known(server)
    await look(server, record)
    assert (record.agents, record.has_agent) == (frozenset({sales.sid}), False)
    assert record.dispatches.keys() == {"fr"}

    server.has(GERMAN, there=[a_user(), an_agent("de")])
    await look(server, record)
    assert (record.agents, record.has_agent) == (frozenset({an_agent("de").sid}), True)
    assert record.dispatches.keys() == {"de"}


async def test_a_dispatch_has_waited_since_its_agent_was_last_seen(server: StubServer) -> None:
    server.has(FRENCH, GERMAN, there=[a_user(), an_agent("fr"), an_agent("de")])
    record = known(server)
    await look(server, record)
    server.participants[ROOM] = [a_user(), an_agent("fr")]
    finding = await look(server, record)
    assert isinstance(finding, Fits)
    assert finding.waited_s < 30


async def test_failures_are_forgotten_once_an_agent_was_there_for_long(
    server: StubServer,
) -> None:
    server.has(FRENCH, there=[a_user(), an_agent("fr")])
    record = known(server)
    await look(server, record)
    crashes = record.dispatches["fr"]
    crashes.attempts, crashes.adopted_s = 3, time.monotonic() - LONG_S + 5
    await look(server, record)
    assert crashes.attempts == 3
    crashes.adopted_s -= 10
    await look(server, record)
    assert crashes.attempts == 0


# The dead


async def test_a_dead_agent_of_this_worker_is_removed_and_serves_nobody(
    server: StubServer,
) -> None:
    server.has(FRENCH, there=[a_user(), an_agent("fr", identity="fixed")])
    finding = await look(server, own=own_jobs(ended=["AJ_fr"]))
    assert isinstance(finding, Fits)
    assert server.removed == ["fixed"]


async def test_a_healthy_agent_of_the_same_identity_is_left_alone(server: StubServer) -> None:
    server.has(FRENCH, there=[a_user(), an_agent("fr", identity="fixed")])
    own = own_jobs(ended=["AJ_of_another_room"])
    assert await look(server, own=own) == Served()
    assert server.removed == []


async def test_a_user_is_never_removed_whatever_attributes_it_has(server: StubServer) -> None:
    user = a_user()
    user.attributes["build.job"] = "AJ_dead"
    server.has(FRENCH, there=[user])
    await look(server, own=own_jobs(ended=["AJ_dead"]))
    assert server.removed == []


async def test_who_has_left_just_before_its_removal_is_no_error(server: StubServer) -> None:
    server.has(FRENCH, there=[a_user(), an_agent("fr")])
    api = server.api

    async def gone(_: RoomParticipantIdentity) -> None:
        raise TwirpError(TwirpErrorCode.NOT_FOUND, "no such participant", status=404)

    api.room.remove_participant = gone  # type: ignore[method-assign,assignment]
    lookout = Lookout(candidate(), own_jobs(ended=["AJ_fr"]))
    finding = await lookout.look(api, known(server), adoptable_in_s=lambda _: 0.0)
    assert isinstance(finding, Fits)


async def test_a_job_that_was_accepted_here_and_does_not_run_yet_is_on_its_way(
    server: StubServer,
) -> None:
    """An overloaded worker takes longer for that than an agent is waited for."""
    server.has(FRENCH, GERMAN)
    elsewhere = job_of(GERMAN, "AJ_elsewhere", "elsewhere")
    accepting = [job_of(FRENCH), elsewhere]
    lookout = Lookout(candidate(), OwnJobs(), lambda: accepting)
    finding = await lookout.look(server.api, known(server), adoptable_in_s=lambda _: 0.0)
    assert isinstance(finding, Fits)
    assert finding.dispatch.id == "de"


@pytest.mark.parametrize("joins", [True, False])
async def test_a_job_that_runs_here_and_never_joins_is_not_waited_for_for_ever(
    joins: bool, server: StubServer
) -> None:
    own, now_s = OwnJobs(), time.monotonic()
    own.update({"AJ_fr": job_of(FRENCH, "AJ_fr")}, now_s - COMES_S)
    server.has(FRENCH, there=[a_user(), *([an_agent("fr")] if joins else [])])
    await look(server, own=own)
    # Cut off, it is expected back.
    server.has(FRENCH)
    assert isinstance(await look(server, own=own), Served if joins else Fits)


# After a restart of the server


async def test_what_a_restart_took_is_adopted_from_memory(server: StubServer) -> None:
    record = came_back_without(FRENCH, GERMAN)
    server.has()
    assert await adopted_for(server, record) == "fr"
    server.has(there=[a_user(), an_agent("fr")])
    assert await adopted_for(server, record) == "de"


async def test_what_came_back_stands_for_what_it_was(server: StubServer) -> None:
    record = came_back_without(FRENCH, GERMAN)
    again = asks("fr-again", "fr")
    server.has(again, there=[a_user(), an_agent("de")])
    assert await adopted_for(server, record) == "fr-again"


async def test_a_note_takes_one_role_from_memory_for_good(server: StubServer) -> None:
    record = came_back_without(FRENCH, GERMAN)
    left = note(ROOM, GERMAN)
    noted = AgentDispatch(id="note", agent_name=left.agent_name, metadata=left.metadata)
    server.has(noted)
    assert await adopted_for(server, record) == "fr"
    assert record.stand_ins().keys() == {"fr"}
    server.has()
    assert await adopted_for(server, record) == "fr"


async def test_a_look_that_an_outage_overtook_forgets_nothing(server: StubServer) -> None:
    """By its name the server may have answered for the room that came back without anything."""
    server.has(FRENCH)
    rooms = Rooms()
    rooms.listed(server.rooms, time.monotonic())
    record = rooms.get(ROOM)
    assert record is not None
    record.take_in([FRENCH])
    rooms.connected_again(time.monotonic())
    server.has()
    await look(server, record)
    assert record.dispatches.keys() == {"fr"}
    rooms.listed(server.rooms, time.monotonic())
    await look(server, record)
    assert record.dispatches.keys() == set()


# Checks


async def test_a_check_costs_one_call_and_sees_whether_the_agents_are_still_there(
    server: StubServer,
) -> None:
    server.has(FRENCH, GERMAN, there=[a_user(), an_agent("fr"), an_agent("de")])
    record, lookout = known(server), Lookout(candidate(), OwnJobs())
    await look(server, record)
    server.calls.clear()
    assert await lookout.check(server.api, record)
    server.participants[ROOM] = [an_agent("de"), an_agent("fr")]
    assert await lookout.check(server.api, record)
    server.participants[ROOM] = [a_user(), an_agent("fr"), an_agent("de", job_id="another")]
    assert not await lookout.check(server.api, record)
    server.participants[ROOM] = [a_user()]
    assert not await lookout.check(server.api, record)
    assert server.calls == {"ListParticipants": 4}


async def test_a_check_counts_no_dead_agent(server: StubServer) -> None:
    server.has(FRENCH, there=[a_user(), an_agent("fr")])
    record = known(server)
    await look(server, record)
    assert not await Lookout(candidate(), own_jobs(ended=["AJ_fr"])).check(server.api, record)


# Around an adoption


async def test_an_agent_has_come_if_the_dispatch_has_one(server: StubServer) -> None:
    server.has(FRENCH, GERMAN)
    record = known(server)
    await look(server, record)
    lookout = Lookout(candidate(), own_jobs(ended=["AJ_dead"]))
    for there, come in [
        ([a_user()], False),
        ([a_user(), an_agent("fr")], False),
        ([a_user(), an_agent("de")], True),
        ([a_user(), an_agent("de", job_id="AJ_dead")], False),
        ([a_user(), an_agent("de", job_id="AJ_of_another_worker")], True),
    ]:
        server.participants[ROOM] = there
        assert await lookout.has_come(server.api, record, GERMAN) is come


async def test_an_identity_is_free_if_nobody_has_it_and_the_dispatch_still_waits(
    server: StubServer,
) -> None:
    server.has(FRENCH, GERMAN)
    record = known(server)
    await look(server, record)
    lookout = Lookout(candidate(), own_jobs(ended=["AJ_dead"]))
    stock = an_agent("", identity="stock")
    stock.attributes.clear()
    stock.attributes[AGENT_NAME] = NAME
    for there, free in [
        ([a_user()], True),
        ([a_user("fixed")], False),
        ([a_user(), an_agent("fr")], True),
        ([a_user(), an_agent("fr", identity="fixed")], False),
        ([a_user(), an_agent("de")], False),
        ([a_user(), an_agent("de", job_id="AJ_dead", identity="fixed")], True),
        ([a_user(), stock], True),
        ([a_user(), stock, an_agent("fr")], False),
    ]:
        server.participants[ROOM] = there
        assert await lookout.is_free(server.api, record, GERMAN, "fixed") is free
