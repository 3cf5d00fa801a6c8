from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from build_aware.adoption.own_jobs import REMEMBERED_S, OwnSession, OwnSessions

NOW: Final = 1_000.0
LIVEKIT_SHOWS_THE_DEAD_S: Final = 20.0


def session(job: str, room: str = "a-room") -> OwnSession:
    return OwnSession(room, identity=f"agent-{job}")


def running(*jobs: str, room: str = "a-room") -> dict[str, OwnSession]:
    return {job: session(job, room) for job in jobs}


def followed(*stages: dict[str, OwnSession], at_s: float = NOW) -> OwnSessions:
    own = OwnSessions()
    for stage in stages:
        own.follow(stage, at_s)
    return own


def dead(own: OwnSessions, *jobs: str) -> set[str]:
    """Which of these jobs have ended, as both ways to ask tell in agreement."""
    by_id = set(own.dead_jobs) & set(jobs)
    assert by_id == {job for job in jobs if own.is_dead(f"agent-{job}")}
    return by_id


def test_at_first_nothing_runs_and_nothing_has_ended() -> None:
    own = OwnSessions()
    assert own.rooms == set()
    assert list(own.dead_jobs) == []
    assert not own.is_dead("agent-1")
    assert own.follow({}, NOW) == set()


def test_the_rooms_of_what_runs_are_served_here() -> None:
    own = followed(running("1", room="a") | running("2", room="b") | running("3", room="b"))
    assert own.rooms == {"a", "b"}
    assert dead(own, "1", "2", "3") == set()


def test_what_begins_has_not_ended() -> None:
    own = followed(running("1"))
    assert own.follow(running("1", "2"), NOW) == set()
    assert dead(own, "1", "2") == set()


def test_the_room_of_a_session_that_ended_is_told_once() -> None:
    own = followed(running("1", room="a") | running("2", room="b"))
    assert own.follow(running("2", room="b"), NOW) == {"a"}
    assert own.rooms == {"b"}
    assert own.follow(running("2", room="b"), NOW) == set()
    assert own.follow({}, NOW) == {"b"}
    assert own.rooms == set()


def test_the_rooms_of_all_that_ended_are_told() -> None:
    own = followed(running("1", room="a") | running("2", room="b") | running("3", room="b"))
    assert own.follow({}, NOW) == {"a", "b"}
    assert dead(own, "1", "2", "3") == {"1", "2", "3"}


def test_a_room_that_has_another_session_is_both_served_and_told() -> None:
    own = followed(running("1", "2"))
    assert own.follow(running("2"), NOW) == {"a-room"}
    assert own.rooms == {"a-room"}
    assert dead(own, "1", "2") == {"1"}


def test_a_session_that_follows_another_in_the_same_room_does_not_hide_its_end() -> None:
    own = followed(running("1"))
    assert own.follow(running("2"), NOW) == {"a-room"}
    assert dead(own, "1", "2") == {"1"}


def test_an_agent_is_known_by_its_identity_and_not_by_its_job() -> None:
    own = followed({"1": OwnSession("a-room", "Ada")}, {})
    assert own.is_dead("Ada")
    assert not own.is_dead("1")
    assert not own.is_dead("agent-1")
    assert not own.is_dead("a-room")
    assert list(own.dead_jobs) == ["1"]


@pytest.mark.parametrize(("after_s", "remembered"), [(0, True), (119.9, True), (120, False)])
def test_the_dead_are_remembered_for_two_minutes(after_s: float, remembered: bool) -> None:
    own = followed(running("1", "2"), running("2"))
    own.follow(running("2"), NOW + after_s)
    assert dead(own, "1", "2") == ({"1"} if remembered else set())


def test_the_dead_are_remembered_for_longer_than_livekit_shows_them() -> None:
    assert REMEMBERED_S > LIVEKIT_SHOWS_THE_DEAD_S


def test_what_ends_later_is_remembered_for_longer() -> None:
    own = followed(running("1", "2"), running("2"))
    own.follow({}, NOW + 60)
    for _ in range(3):
        own.follow({}, NOW + REMEMBERED_S)
        assert dead(own, "1", "2") == {"2"}
    own.follow({}, NOW + 60 + REMEMBERED_S)
    assert dead(own, "1", "2") == set()


def test_a_table_that_changes_later_is_not_what_was_told() -> None:
    table = running("1")
    own = followed(table)
    table.clear()
    assert own.rooms == {"a-room"}
    assert own.follow(table, NOW) == {"a-room"}


JOBS: Final = tuple("12345")
ROOMS: Final = ("a", "b", "c", "d", "d")
STEPS: Final = st.lists(
    st.tuples(st.sampled_from([0.25, 60.0]) | st.floats(0, 150), st.sets(st.sampled_from(JOBS)))
)


@settings(deadline=None)
@given(steps=STEPS)
def test_whatever_ran_runs_or_is_dead_until_it_is_forgotten(
    steps: list[tuple[float, set[str]]],
) -> None:
    own, now_s = OwnSessions(), NOW
    over: dict[str, float] = {}
    before: set[str] = set()
    rooms = dict(zip(JOBS, ROOMS, strict=True))
    for pause_s, chosen in steps:
        now_s += pause_s
        now = chosen - over.keys()  # No job runs twice.
        over |= dict.fromkeys(before - now, now_s)
        ended = own.follow({job: session(job, rooms[job]) for job in now}, now_s)
        assert ended == {rooms[job] for job in before - now}
        assert own.rooms == {rooms[job] for job in now}
        recent = {job for job, at_s in over.items() if at_s > now_s - REMEMBERED_S}
        assert dead(own, *JOBS) == recent
        before = now
