"""A worker stops following the rollout where nobody takes what it leaves, and starts again."""

from __future__ import annotations

import itertools
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_aware.dispatch.following import (
    FOLLOWED_S,
    LONGEST_PAUSE_S,
    PAUSE_S,
    PRESENT_S,
    PROBE_S,
    Following,
)
from build_aware.dispatch.rollout import Rollout, share

NOW: Final = "2026-11-26T10:00:00Z"
NEW_IS_CURRENT: Final = (
    Rollout().appeared("old", NOW, make_current=True).appeared("new", NOW, make_current=True)
)


def learns(
    following: Following, rollout: Rollout, at_s: float = 0.0, *, becomes_known: bool = True
) -> None:
    following.learn(rollout, at_s, becomes_known=becomes_known)


@pytest.fixture
def old() -> Following:
    """A worker of a build that was replaced by a new one."""
    following = Following("old")
    learns(following, NEW_IS_CURRENT)
    return following


def paused(following: Following, at_s: float = 0.0) -> Following:
    assert not following.takes("first", at_s)
    return finds_nobody(following, "first", at_s)


def finds_nobody(following: Following, room: str, at_s: float, **options: float) -> Following:
    following.doubt(room, room, at_s, **options)
    assert following.not_taken(room, room, at_s + 2) == PAUSE_S
    return following


def test_without_a_rollout_everything_is_taken() -> None:
    following = Following("any")
    assert following.takes("room", 0)
    assert following.may_adopt("room", 0)
    assert following.facts(0) == {
        "revision": None,
        "current": None,
        "ramp": None,
        "wanted": True,
        "paused": False,
    }


def test_the_current_build_takes_everything_and_the_one_before_nothing(old: Following) -> None:
    new = Following("new")
    learns(new, NEW_IS_CURRENT)
    assert (new.takes("room", 0), new.may_adopt("room", 0)) == (True, True)
    assert (old.takes("room", 0), old.may_adopt("room", 0)) == (False, False)
    assert old.facts(0) == {
        "revision": 2,
        "current": "new",
        "ramp": None,
        "wanted": False,
        "paused": False,
    }


def test_a_build_that_is_not_known_yet_takes_what_it_is_offered() -> None:
    unknown = Following("newer")
    learns(unknown, NEW_IS_CURRENT)
    assert (unknown.takes("room", 0), unknown.may_adopt("room", 0)) == (True, True)
    assert unknown.facts(0)["wanted"]


@given(st.text(), st.floats(0.001, 100))
def test_each_room_is_taken_by_exactly_one_of_the_builds_that_are_known(
    room: str, percent: float
) -> None:
    rollout = NEW_IS_CURRENT.ramped("old", percent, NOW)
    taking = []
    for build in ("old", "new"):
        following = Following(build)
        learns(following, rollout)
        taking.append(following.takes(room, 0))
    assert sorted(taking) == [False, True]


def test_what_another_worker_takes_changes_nothing(old: Following) -> None:
    assert not old.takes("room", 0)
    assert not old.taken("room", "new")
    assert not old.takes("next", 1)


def test_where_nobody_takes_a_job_it_takes_all_for_a_while(old: Following) -> None:
    paused(old)
    assert old.takes("room", 0)
    assert old.takes("room", PAUSE_S - 1)
    assert old.may_adopt("room", 0)
    assert old.facts(1)["paused"]


def test_what_was_left_before_that_begins_no_second_pause(old: Following) -> None:
    assert not old.takes("second", 0)
    paused(old)
    assert old.not_taken("second", "second", 5) == 0
    assert not old.takes("probe", PAUSE_S)


def test_after_the_pause_it_leaves_one_job_as_a_probe(old: Following) -> None:
    paused(old)
    assert not old.takes("probe", PAUSE_S)
    assert old.takes("meanwhile", PAUSE_S + 1)


def test_after_the_pause_waiting_rooms_are_left_for_a_moment_again(old: Following) -> None:
    paused(old)
    assert old.may_adopt("room", PAUSE_S - 1)
    assert not old.may_adopt("room", PAUSE_S)
    assert not old.facts(PAUSE_S)["paused"]


def test_the_same_room_that_is_offered_again_stays_the_probe(old: Following) -> None:
    paused(old)
    assert not old.takes("probe", PAUSE_S)
    assert not old.takes("probe", PAUSE_S + 1)


def test_it_follows_again_when_the_probe_is_taken(old: Following) -> None:
    paused(old)
    assert not old.takes("probe", PAUSE_S)
    assert not old.taken("another room", "new")
    assert old.taken("probe", "new")
    assert not old.takes("next", PAUSE_S + 5)
    assert not old.facts(1)["paused"]


def test_pauses_double_up_to_a_quarter_of_an_hour(old: Following) -> None:
    paused(old)
    now_s, pauses_s = PAUSE_S, []
    for _ in range(6):
        assert not old.takes("probe", now_s)
        pauses_s.append(old.not_taken("probe", "probe", now_s))
        assert old.takes("room", now_s + pauses_s[-1] - 1)
        now_s += pauses_s[-1]
    assert pauses_s == [120, 240, 480, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_a_probe_without_an_answer_is_followed_by_another(old: Following) -> None:
    paused(old)
    assert not old.takes("left at once", PAUSE_S)
    assert old.takes("room", PAUSE_S + PROBE_S - 1)
    assert not old.takes("next probe", PAUSE_S + PROBE_S)
    assert old.not_taken("left at once", "left at once", PAUSE_S + PROBE_S) == 0
    assert old.taken("next probe", "new")


def test_two_probes_in_a_row_that_find_nobody_tell_that_the_current_build_is_gone(
    old: Following,
) -> None:
    paused(old)
    gone = [old.current_is_gone(5000)]
    for now_s in (PAUSE_S, 3 * PAUSE_S):
        assert not old.takes("probe", now_s)
        old.not_taken("probe", "probe", now_s)
        gone.append(old.current_is_gone(5000))
    assert gone == [False, False, True]


def test_a_probe_that_is_taken_in_between_starts_the_count_anew(old: Following) -> None:
    paused(old)
    assert not old.takes("probe", PAUSE_S)
    old.not_taken("probe", "probe", PAUSE_S)
    assert not old.takes("probe", 3 * PAUSE_S)
    assert old.taken("probe", "new")
    paused(old, 1000)
    assert not old.takes("probe", 1000 + PAUSE_S)
    old.not_taken("probe", "probe", 1000 + PAUSE_S)
    assert not old.current_is_gone(5000)


def test_a_ramping_build_that_is_gone_says_nothing_of_the_current_one() -> None:
    third = Following("third")
    rollout = (
        Rollout()
        .appeared("third", NOW, make_current=True)
        .appeared("ramping", NOW, make_current=False)
        .appeared("current", NOW, make_current=True)
        .ramped("ramping", 50, NOW)
    )
    learns(third, rollout)
    room = next(name for name in map(str, range(100)) if share("ramping", name) < 0.5)
    finds_nobody(third, room, 0)
    for now_s in (PAUSE_S, 3 * PAUSE_S, 7 * PAUSE_S):
        assert not third.takes(room, now_s)
        assert third.not_taken(room, room, now_s) > 0
    assert not third.current_is_gone(5000)


def test_a_probe_that_another_paused_worker_takes_says_little(old: Following) -> None:
    """It neither ends the pause nor makes it longer, and the next job is the next probe."""
    paused(old)
    for other in ("old", None):
        assert not old.takes("probe", PAUSE_S)
        assert not old.taken("probe", other)
    assert not old.takes("next", PAUSE_S)
    assert old.current_is_gone(PAUSE_S)
    assert old.taken("next", "new")
    assert not old.current_is_gone(PAUSE_S)


def test_one_build_that_is_gone_says_nothing_of_another() -> None:
    third = Following("third")
    rollout = (
        NEW_IS_CURRENT.appeared("third", NOW, make_current=False)
        .appeared("ramping", NOW, make_current=False)
        .ramped("ramping", 50, NOW)
    )
    learns(third, rollout)
    names = {share("ramping", name) < 0.5: name for name in map(str, range(100))}
    assert not third.takes(names[True], 0)
    finds_nobody(third, names[True], 0)
    assert third.takes(names[True], 1)
    assert not third.takes(names[False], 1)


def test_a_pause_ends_when_others_are_wanted(old: Following) -> None:
    paused(old)
    learns(old, NEW_IS_CURRENT)
    assert old.takes("room", 1)
    learns(old, NEW_IS_CURRENT.appeared("x", NOW, make_current=False))
    assert old.takes("room", 1)
    learns(old, NEW_IS_CURRENT.promoted("newer", NOW, force=True))
    assert not old.takes("room", 1)
    learns(old, NEW_IS_CURRENT)
    assert not old.takes("room", 1)


def test_where_somebody_objects_the_current_build_is_not_gone_for_a_while(old: Following) -> None:
    paused(old)
    for now_s in (PAUSE_S, 3 * PAUSE_S):
        assert not old.takes("probe", now_s)
        old.not_taken("probe", "probe", now_s)
    assert old.current_is_gone(200)
    challenged = NEW_IS_CURRENT.challenged("old")
    learns(old, challenged, 200)
    assert old.current_is_gone(205)
    learns(old, challenged.defended(), 210)
    # The pauses begin anew as well: it may go away at any time.
    gone, now_s = [], 210 + PAUSE_S
    for _ in range(2):
        assert not old.takes("probe", now_s)
        now_s += old.not_taken("probe", "probe", now_s)
        gone.append(old.current_is_gone(210 + PRESENT_S))
    assert gone == [False, True]
    assert now_s == 210 + PAUSE_S + 2 * PAUSE_S + 4 * PAUSE_S
    assert not old.current_is_gone(209 + PRESENT_S)


def test_one_that_never_becomes_known_follows_from_the_start() -> None:
    laptop = Following("laptop")
    learns(laptop, NEW_IS_CURRENT, becomes_known=False)
    assert not laptop.takes("room", 0)
    assert not laptop.facts(0)["wanted"]


@given(st.lists(st.integers(0, 100)))
def test_at_most_one_job_in_each_pause_is_left_to_a_build_that_is_gone(
    gaps_s: list[int],
) -> None:
    old = Following("old")
    learns(old, NEW_IS_CURRENT)
    paused(old)
    now_s, probes = 0.0, []
    for number, later_s in enumerate(gaps_s):
        now_s += later_s
        if not old.takes(f"room-{number}", now_s):
            probes.append(now_s)
            old.not_taken(f"room-{number}", f"room-{number}", now_s + 3.5)
    gaps = [after - before for before, after in itertools.pairwise(probes)]
    assert all(gap >= 2 * PAUSE_S for gap in gaps)


@pytest.mark.parametrize("within_s", [FOLLOWED_S, 3 * FOLLOWED_S])
def test_jobs_that_all_refuse_while_they_learn_of_a_change_open_nothing(within_s: float) -> None:
    new = Following("new")
    new.within_s = within_s
    new.learn(NEW_IS_CURRENT, 0, becomes_known=True)
    new.learn(NEW_IS_CURRENT.rolled_back("later"), 100, becomes_known=True)
    new.within_s = FOLLOWED_S  # What lists take later is another matter.
    new.doubt("room", "room", 120, left_s=100 + within_s - 0.1)
    assert new.not_taken("room", "room", 122) == 0
    finds_nobody(new, "room", 120, left_s=100 + within_s)


def test_what_a_worker_learns_first_is_no_change() -> None:
    old = Following("old")
    old.learn(NEW_IS_CURRENT, 100, becomes_known=True)
    finds_nobody(old, "room", 103.5, left_s=100)


def test_nobody_waits_while_it_finds_out_whether_a_job_was_taken(old: Following) -> None:
    assert not old.takes("first", 0)
    old.doubt("first", "first", 3.5)
    assert old.takes("second", 3.5)
    assert old.may_adopt("second", 3.5)
    assert old.dispel("first")
    assert not old.takes("third", 5.5)


def test_a_doubt_that_is_dispelled_leaves_those_that_are_not(old: Following) -> None:
    for room in ("first", "second"):
        assert not old.takes(room, 0)
    for room in ("first", "second"):
        old.doubt(room, room, 3.5)
    assert not old.dispel("first")
    assert old.takes("third", 4)
    assert old.not_taken("second", "second", 5.5) == PAUSE_S
    assert not old.dispel("second")
    assert old.takes("third", 6)


def test_of_two_jobs_of_a_room_one_may_have_been_taken(old: Following) -> None:
    assert not old.takes("room", 0)
    for dispatch_id in ("fr", "de"):
        old.doubt("room", dispatch_id, 3.5)
    assert not old.dispel("fr")
    assert old.not_taken("room", "de", 5.5) == PAUSE_S


def test_a_doubt_that_nobody_answered_is_not_that_of_a_probe(old: Following) -> None:
    assert not old.takes("first", 0)
    old.doubt("first", "first", 0)
    assert not old.takes("probe", PAUSE_S)
    old.doubt("probe", "probe", PAUSE_S + 3.5)
    assert old.not_taken("probe", "probe", PAUSE_S + 5.5) == 2 * PAUSE_S


def test_what_was_never_doubted_is_no_reason_for_a_pause(old: Following) -> None:
    assert not old.takes("room", 0)
    assert old.not_taken("room", "room", 5.5) == 0
    assert not old.dispel("room")
    assert not old.takes("room", 6)
