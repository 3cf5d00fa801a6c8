"""The plan of a rehearsal."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_aware.rehearsal.scenario import CRASH_AFTER_S, DEPLOY_S, TAIL_S, Options, plan


def test_one_seed_gives_one_scenario() -> None:
    assert plan(Options(seed=7, kill_one=True)) == plan(Options(seed=7, kill_one=True))


def test_another_seed_gives_another_scenario() -> None:
    assert plan(Options(seed=7)).sessions != plan(Options(seed=8)).sessions


def test_the_scenario_of_a_seed_is_the_same_on_every_machine() -> None:
    scenario = plan(Options(seed=1))
    assert [s.length_s for s in scenario.sessions[:3]] == [3.791, 3.947, 3.002]
    assert [s.number for s in scenario.sessions if not s.targeted][:3] == [3, 4, 5]


@given(
    sessions=st.integers(1, 300),
    deploys=st.integers(1, 9),
    untargeted=st.floats(0, 1),
    seed=st.integers(),
)
def test_every_scenario_is_what_was_asked_for(
    sessions: int, deploys: int, untargeted: float, seed: int
) -> None:
    options = Options(sessions=sessions, deploys=deploys, untargeted=untargeted, seed=seed)
    scenario = plan(options)
    assert scenario.builds == tuple(f"build-{n}" for n in range(1, deploys + 2))
    assert [s.number for s in scenario.sessions] == list(range(sessions))
    assert sum(not s.targeted for s in scenario.sessions) == round(sessions * untargeted)
    shortest, longest = options.length_s
    assert all(shortest <= s.length_s <= longest for s in scenario.sessions)
    assert scenario.crash is None
    begins = [deploy.at_s for deploy in scenario.deploys]
    assert all(after - before >= DEPLOY_S - 0.01 for before, after in pairwise(begins))


def test_sessions_arrive_evenly_and_before_during_and_after_the_deploys() -> None:
    scenario = plan(Options())
    gaps = [after.at_s - before.at_s for before, after in pairwise(scenario.sessions)]
    assert max(gaps) - min(gaps) < 0.01
    assert scenario.sessions[0].at_s == 0
    assert scenario.sessions[-1].at_s > scenario.deploys[-1].at_s + DEPLOY_S


def test_a_long_rehearsal_spreads_its_deploys() -> None:
    scenario = plan(Options(sessions=200, deploys=5))
    last_s = scenario.sessions[-1].at_s
    assert last_s - scenario.deploys[-1].at_s >= TAIL_S
    assert scenario.deploys[1].at_s - scenario.deploys[0].at_s > DEPLOY_S


def test_a_crash_is_planned_only_if_asked_for() -> None:
    assert plan(Options()).crash is None
    crash = plan(Options(kill_one=True)).crash
    assert crash is not None
    assert CRASH_AFTER_S[0] <= crash.after_s <= CRASH_AFTER_S[1]


def test_a_crash_changes_nothing_else() -> None:
    calm, crashing = plan(Options()), plan(Options(kill_one=True))
    assert replace(crashing, crash=None) == calm


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"deploys": 0}, "--deploys 0"),
        ({"workers": 0}, "--workers 0"),
        ({"sessions": 0}, "--sessions 0"),
        ({"overlap_s": -1}, "--overlap -1"),
        ({"length_s": (3, 2)}, "--length 3 2"),
        ({"length_s": (0, 2)}, "--length 0 2"),
        ({"untargeted": 1.5}, "--untargeted 1.5"),
        ({"untargeted": float("nan")}, "--untargeted nan"),
    ],
)
def test_impossible_options_are_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Options(**wrong)
