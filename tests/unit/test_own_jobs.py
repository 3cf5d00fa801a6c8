from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol.agent import Job
from livekit.protocol.models import Room

from build_aware.adoption.own_jobs import BRIEF_S, COMES_S, REMEMBERED_S, OwnJobs
from build_aware.dispatch.agents import AgentSeen, Role

NOW: Final = 1_000.0
LIVEKIT_SHOWS_THE_DEAD_S: Final = 20.0


def job(job_id: str, room: str = "a-room", metadata: str = "") -> Job:
    return Job(
        id=job_id,
        dispatch_id=f"AD_{job_id}",
        agent_name="support",
        metadata=metadata,
        room=Room(name=room),
    )


def running(*job_ids: str, room: str = "a-room") -> dict[str, Job]:
    return {job_id: job(job_id, room) for job_id in job_ids}


def updated(*stages: dict[str, Job], at_s: float = NOW) -> OwnJobs:
    own = OwnJobs()
    for stage in stages:
        own.update(stage, at_s)
    return own


def dead(own: OwnJobs, *jobs: str) -> set[str]:
    """Which of these jobs have ended, as both ways to ask tell in agreement."""
    by_id = set(own.dead_jobs) & set(jobs)
    assert by_id == {each for each in jobs if own.is_dead(AgentSeen(job_id=each))}
    return by_id


def test_at_first_nothing_runs_and_nothing_has_ended() -> None:
    own = OwnJobs()
    assert own.rooms == set()
    assert list(own.dead_jobs) == []
    assert not own.is_dead(AgentSeen(job_id="1"))
    assert own.update({}, NOW) == set()


def test_the_rooms_of_what_runs_are_served_here() -> None:
    own = updated(running("1", room="a") | running("2", room="b") | running("3", room="b"))
    assert own.rooms == {"a", "b"}
    assert dead(own, "1", "2", "3") == set()


def test_a_job_that_runs_and_never_joins_serves_nobody_after_a_while() -> None:
    """Its process may hang."""
    own = updated(running("hangs") | running("talks") | running("new", room="b"))
    own.joined([AgentSeen(job_id="talks"), AgentSeen(job_id="elsewhere"), AgentSeen()])
    for at_s, serving in ((NOW + COMES_S - 1, ["hangs", "talks"]), (NOW + COMES_S, ["talks"])):
        assert [agent.job_id for agent in own.agents_in("a-room", at_s)] == serving
    assert own.roles(NOW + COMES_S - 1).keys() == {"a-room", "b"}
    assert own.roles(NOW + COMES_S).keys() == {"a-room"}
    # It goes on, and may still end.
    assert own.rooms == {"a-room", "b"}
    own.update(running("hangs", "talks"), NOW + 1)
    assert [agent.job_id for agent in own.agents_in("a-room", NOW + COMES_S)] == ["talks"]


def test_a_job_that_has_ended_before_it_was_listed_has_ended() -> None:
    """It may crash within a quarter of a second."""
    own = OwnJobs()
    own.begins(job("1"), NOW)
    assert own.rooms == {"a-room"}
    assert own.update({}, NOW + 0.25) == {"a-room"}
    assert dead(own, "1") == {"1"}
    assert own.crashed_for("AD_1", since_s=NOW) == 1
    assert own.crashed_for("AD_2", since_s=NOW) == 0
    own.begins(job("2"), NOW)
    own.update(running("2"), NOW + 0.25)
    own.begins(job("2"), NOW + 1)
    assert own.update({}, NOW + 2) == {"a-room"}


@pytest.mark.parametrize(
    ("lasted_s", "user_came_s", "crashed"),
    [
        (600, -60, 1),  # before the user's eyes
        (600, +1, 0),  # with the visit of another one, or an earlier one of this one
        (BRIEF_S - 1, +1, 1),  # before anybody could come
    ],
)
def test_which_jobs_have_crashed(lasted_s: float, user_came_s: float, crashed: int) -> None:
    own = OwnJobs()
    own.update(running("1"), NOW - lasted_s)
    own.update({}, NOW)
    assert own.crashed_for("AD_1", since_s=NOW + user_came_s) == crashed


def test_what_begins_has_not_ended() -> None:
    own = updated(running("1"))
    assert own.update(running("1", "2"), NOW) == set()
    assert dead(own, "1", "2") == set()


def test_the_room_of_a_session_that_ended_is_told_once() -> None:
    own = updated(running("1", room="a") | running("2", room="b"))
    assert own.update(running("2", room="b"), NOW) == {"a"}
    assert own.rooms == {"b"}
    assert own.update(running("2", room="b"), NOW) == set()
    assert own.update({}, NOW) == {"b"}
    assert own.rooms == set()


def test_the_rooms_of_all_that_ended_are_told() -> None:
    own = updated(running("1", room="a") | running("2", room="b") | running("3", room="b"))
    assert own.update({}, NOW) == {"a", "b"}
    assert dead(own, "1", "2", "3") == {"1", "2", "3"}


def test_a_room_that_has_another_session_is_both_served_and_told() -> None:
    own = updated(running("1", "2"))
    assert own.update(running("2"), NOW) == {"a-room"}
    assert own.rooms == {"a-room"}
    assert dead(own, "1", "2") == {"1"}


def test_a_session_that_follows_another_in_the_same_room_does_not_hide_its_end() -> None:
    own = updated(running("1"))
    assert own.update(running("2"), NOW) == {"a-room"}
    assert dead(own, "1", "2") == {"1"}


def test_a_dead_agent_is_known_by_its_job_and_by_nothing_else() -> None:
    own = updated({"1": job("1")}, {})
    assert own.is_dead(AgentSeen(job_id="1", identity="ada"))
    assert not own.is_dead(AgentSeen(job_id="2", identity="agent-1", dispatch_id="AD_1"))
    assert not own.is_dead(AgentSeen(identity="agent-1", dispatch_id="AD_1"))


def test_the_agents_of_a_room_are_those_of_its_jobs() -> None:
    own = updated(running("1", "2", room="a") | running("3", room="b"))
    assert own.agents_in("a", NOW) == [AgentSeen.of_job(job(each, "a")) for each in ("1", "2")]
    assert own.agents_in("c", NOW) == []
    own.update({}, NOW)
    assert own.agents_in("a", NOW) == []


def test_the_roles_of_what_runs_are_told_by_room() -> None:
    french = '{"language": "fr"}'
    jobs = {"1": job("1", "a", french), "2": job("2", "a"), "3": job("3", "b")}
    own = updated(jobs)
    role, french_role = Role("support", "", ""), Role("support", "", french)
    assert own.roles(NOW) == {"a": {role, french_role}, "b": {role}}
    own.update({"3": jobs["3"]}, NOW)
    assert own.roles(NOW) == {"b": {role}}


@pytest.mark.parametrize(("after_s", "remembered"), [(0, True), (119.9, True), (120, False)])
def test_the_dead_are_remembered_for_two_minutes(after_s: float, remembered: bool) -> None:
    own = updated(running("1", "2"), running("2"))
    own.update(running("2"), NOW + after_s)
    assert dead(own, "1", "2") == ({"1"} if remembered else set())


def test_the_dead_are_remembered_for_longer_than_livekit_shows_them() -> None:
    assert REMEMBERED_S > LIVEKIT_SHOWS_THE_DEAD_S


def test_what_ends_later_is_remembered_for_longer() -> None:
    own = updated(running("1", "2"), running("2"))
    own.update({}, NOW + 60)
    for _ in range(3):
        own.update({}, NOW + REMEMBERED_S)
        assert dead(own, "1", "2") == {"2"}
    own.update({}, NOW + 60 + REMEMBERED_S)
    assert dead(own, "1", "2") == set()


def test_a_table_that_changes_later_is_not_what_was_told() -> None:
    table = running("1")
    own = updated(table)
    table.clear()
    assert own.rooms == {"a-room"}
    assert own.update(table, NOW) == {"a-room"}


JOBS: Final = tuple("12345")
ROOMS: Final = ("a", "b", "c", "d", "d")
STEPS: Final = st.lists(
    st.tuples(st.sampled_from([0.25, 60.0]) | st.floats(0, 150), st.sets(st.sampled_from(JOBS)))
)


@given(steps=STEPS)
def test_whatever_ran_runs_or_is_dead_until_it_is_forgotten(
    steps: list[tuple[float, set[str]]],
) -> None:
    own, now_s = OwnJobs(), NOW
    over: dict[str, float] = {}
    before: set[str] = set()
    rooms = dict(zip(JOBS, ROOMS, strict=True))
    for pause_s, chosen in steps:
        now_s += pause_s
        now = chosen - over.keys()  # No job runs twice.
        over |= dict.fromkeys(before - now, now_s)
        ended = own.update({each: job(each, rooms[each]) for each in now}, now_s)
        assert ended == {rooms[each] for each in before - now}
        assert own.rooms == {rooms[each] for each in now}
        recent = {each for each, at_s in over.items() if at_s > now_s - REMEMBERED_S}
        assert dead(own, *JOBS) == recent
        before = now
