from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_aware.dispatch.rollout import (
    KNOWN_AT_MOST,
    Ramp,
    Rollout,
    RolloutError,
    Standing,
    digest,
    share,
    wanted,
)

NOW: Final = "2026-11-26T10:00:00Z"
LATER: Final = "2026-11-26T11:00:00Z"
BUILDS: Final = st.sampled_from(["a", "b", "c", "d"])
NAMES: Final = 100_000

Change = Callable[[Rollout], Rollout]


def appears(build: str, make_current: bool) -> Change:
    return lambda rollout: rollout.appeared(build, NOW, make_current=make_current)


def promote(build: str, force: bool) -> Change:
    return lambda rollout: rollout.promoted(build, NOW, force=force)


def ramp(build: str, percent: float) -> Change:
    return lambda rollout: rollout.ramped(build, percent, NOW)


def challenge(build: str) -> Change:
    return lambda rollout: rollout.challenged(build)


def roll_back() -> Change:
    return lambda rollout: rollout.rolled_back(NOW)


CHANGES: Final = st.one_of(
    st.builds(appears, BUILDS, st.booleans()),
    st.builds(promote, BUILDS, st.booleans()),
    st.builds(ramp, BUILDS, st.floats(0, 100)),
    st.builds(roll_back),
    st.builds(challenge, BUILDS),
)


def newest(*builds: str) -> Rollout:
    rollout = Rollout()
    for build in builds:
        rollout = rollout.appeared(build, NOW, make_current=True)
    return rollout


# Changes


def test_the_first_build_is_current() -> None:
    assert newest("a") == Rollout(1, current=Standing("a", NOW), known=(digest("a"),))


def test_a_new_build_is_current_from_then_on() -> None:
    rollout = newest("a").appeared("b", LATER, make_current=True)
    assert rollout == Rollout(
        2,
        current=Standing("b", LATER),
        previous=Standing("a", NOW),
        known=(digest("a"), digest("b")),
    )


def test_a_known_build_changes_nothing() -> None:
    rollout = newest("a", "b")
    assert rollout.appeared("a", LATER, make_current=True) is rollout


def test_where_commands_decide_a_new_build_is_only_known() -> None:
    rollout = newest("a").appeared("b", LATER, make_current=False)
    assert rollout.is_current("a")
    assert rollout.knows("b")


def test_promoting_ends_a_ramp_and_lifts_a_bar() -> None:
    rollout = newest("a", "b").rolled_back(NOW).ramped("b", 5, NOW)
    assert rollout.bars("b")
    promoted = rollout.promoted("b", LATER)
    assert promoted.is_current("b")
    assert promoted.ramp is None
    assert not promoted.bars("b")
    assert promoted.previous == rollout.current


def test_promoting_what_is_current_keeps_the_previous_build_and_ends_a_ramp() -> None:
    """All workers follow it again: its own are back, say."""
    rollout = newest("b", "a")
    again = rollout.ramped("b", 5, NOW).promoted("a", LATER)
    assert again.current == Standing("a", LATER)
    assert (again.previous, again.ramp) == (rollout.previous, None)


def test_a_build_that_was_never_seen_is_promoted_only_by_force() -> None:
    with pytest.raises(RolloutError, match=re.escape("no worker of build x has been seen")):
        newest("a").promoted("x", NOW)
    assert newest("a").promoted("x", NOW, force=True).is_current("x")


def test_rolling_back_makes_the_previous_build_current_and_bars_the_one_it_leaves() -> None:
    rollout = newest("a", "b").rolled_back(LATER)
    assert rollout.current == Standing("a", LATER)
    assert rollout.previous is None
    assert rollout.bars("b")
    assert not rollout.bars("a")


def test_rolling_back_a_ramp_leaves_the_current_build_alone() -> None:
    before = newest("b", "a")
    rollout = before.ramped("b", 5, NOW).rolled_back(LATER)
    assert (rollout.current, rollout.previous) == (before.current, before.previous)
    assert rollout.ramp is None
    assert rollout.bars("b")


def test_there_may_be_nothing_to_roll_back_to() -> None:
    for rollout in (Rollout(), newest("a"), newest("a", "b").rolled_back(NOW)):
        with pytest.raises(RolloutError, match="no previous build"):
            rollout.rolled_back(NOW)


def test_a_barred_build_never_makes_itself_current() -> None:
    rollout = newest("a", "b").rolled_back(NOW)
    forgotten = Rollout(rollout.revision, current=rollout.current, barred=rollout.barred)
    assert forgotten.appeared("b", LATER, make_current=True).is_current("a")


def test_a_ramp_begins_grows_and_ends() -> None:
    rollout = newest("b", "a").ramped("b", 10, NOW)
    assert rollout.ramp == Ramp("b", 10, NOW)
    assert rollout.ramped("b", 20, LATER).ramp == Ramp("b", 20, LATER)
    assert rollout.ramped("b", 0, LATER).ramp is None


@pytest.mark.parametrize(
    ("build", "percent", "message"),
    [
        ("a", 10, "current already"),
        ("x", 10, "has been seen"),
        ("b", 0, "is not ramping"),
        ("b", -1, "expected 0 to 100"),
        ("b", 101, "expected 0 to 100"),
    ],
)
def test_a_ramp_that_cannot_be_is_refused(build: str, percent: float, message: str) -> None:
    with pytest.raises(RolloutError, match=message):
        newest("b", "a").ramped(build, percent, NOW)


def test_a_ramp_needs_a_current_build() -> None:
    known = Rollout().appeared("a", NOW, make_current=False)
    with pytest.raises(RolloutError, match="no build is current"):
        known.ramped("a", 10, NOW)


@given(st.lists(CHANGES, max_size=12))
def test_whatever_happens_the_rollout_makes_sense(changes: list[Change]) -> None:
    rollout = Rollout()
    for change in changes:
        try:
            after = change(rollout)
        except RolloutError:
            continue
        assert after is rollout or after.revision == rollout.revision + 1
        rollout = after
        named = [each.build for each in (rollout.current, rollout.previous, rollout.ramp) if each]
        assert all(map(rollout.knows, named))
        assert len(set(rollout.known)) == len(rollout.known)
        assert len(set(rollout.barred)) == len(rollout.barred)
        if rollout.current is not None:
            build = rollout.current.build
            assert not rollout.bars(build)
            assert rollout.previous is None or rollout.previous.build != build
            assert rollout.ramp is None or rollout.ramp.build != build


def test_of_many_builds_the_last_are_known() -> None:
    rollout = newest(*map(str, range(KNOWN_AT_MOST + 1)))
    assert len(rollout.known) == KNOWN_AT_MOST
    assert not rollout.knows("0")
    assert rollout.knows(str(KNOWN_AT_MOST))


def test_and_those_with_a_standing_however_many_come_after_them() -> None:
    rollout = newest("previous", "current").appeared("ramping", NOW, make_current=False)
    rollout = rollout.ramped("ramping", 5, NOW)
    for number in range(KNOWN_AT_MOST):
        rollout = rollout.appeared(str(number), NOW, make_current=False)
    assert len(rollout.known) == KNOWN_AT_MOST
    assert all(map(rollout.knows, ("previous", "current", "ramping", str(KNOWN_AT_MOST - 1))))
    assert not rollout.knows("0")


def test_a_challenge_ends_with_an_objection_and_with_any_other_change() -> None:
    rollout = newest("a", "b").challenged("a")
    assert rollout.challenger == "a"
    assert rollout.defended().challenger is None
    assert rollout.promoted("a", NOW).challenger is None
    assert rollout.promoted("b", NOW).challenger is None
    assert rollout.rolled_back(NOW).challenger is None
    assert rollout.appeared("c", NOW, make_current=True).challenger is None
    assert rollout.appeared("c", NOW, make_current=False).challenger == "a"


# Who is wanted


def test_without_a_rollout_anybody_is_wanted() -> None:
    assert wanted(None, "room") is None
    assert wanted(Rollout(), "room") is None


@given(st.text())
def test_the_current_build_is_wanted_everywhere(room: str) -> None:
    assert wanted(newest("a", "b"), room) == "b"


@given(st.text(), st.floats(0.001, 100), st.floats(0.001, 100))
def test_a_larger_share_has_all_rooms_of_a_smaller_one(room: str, one: float, two: float) -> None:
    small, large = (
        wanted(newest("b", "a").ramped("b", percent, NOW), room) == "b"
        for percent in sorted((one, two))
    )
    assert large or not small


@given(st.text(), st.floats(0.001, 100))
def test_each_room_is_for_the_current_or_the_ramping_build(room: str, percent: float) -> None:
    rollout = newest("c", "b", "a").ramped("b", percent, NOW)
    assert wanted(rollout, room) in ("a", "b")


@pytest.mark.parametrize("build", ["7f3c9a1e52d0", "1.4.2", "b"])
def test_a_share_is_what_it_says(build: str) -> None:
    # The same names each time: of 600 draws of so many, one would be further off by chance.
    dice = random.Random(build)
    names = (f"call-{dice.getrandbits(64):x}" for _ in range(NAMES))
    rollout = newest("old").ramped(build, 10, NOW, force=True)
    taken = sum(wanted(rollout, name) == build for name in names)
    assert 0.097 * NAMES <= taken <= 0.103 * NAMES


@given(st.text(), st.text())
def test_a_share_is_a_share(build: str, room: str) -> None:
    assert 0 <= share(build, room) < 1


def test_the_share_is_what_the_docs_tell_other_languages() -> None:
    told = hashlib.sha256(b"7f3c9a1e52d0\0call-1").hexdigest()[:8]
    assert share("7f3c9a1e52d0", "call-1") == int(told, 16) / 2**32


@pytest.mark.parametrize(
    ("build", "wants"), [("a", False), ("b", True), ("c", True), ("another", False)]
)
def test_whether_a_build_is_wanted_at_all(build: str, wants: bool) -> None:
    assert newest("a", "b", "c").ramped("b", 1, NOW).wants(build) is wants
