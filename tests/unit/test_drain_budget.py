"""The arithmetic of a drain."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_aware.drain.budget import EXIT_S, MIN_TOTAL_S, SHUTDOWN_S, Budget, Drain
from build_aware.settings import Settings


@given(st.floats(MIN_TOTAL_S, 1e6))
def test_the_parts_of_a_budget_add_up_to_the_whole(total_s: float) -> None:
    budget = Budget.of(total_s)
    assert budget.total_s == pytest.approx(total_s)
    assert budget.exit_s == EXIT_S
    assert 0 < budget.shutdown_s <= SHUTDOWN_S
    assert budget.sessions_s >= budget.shutdown_s


@pytest.mark.parametrize(
    ("total_s", "sessions_s", "shutdown_s"),
    [(3300, 3272, 25), (120, 92, 25), (30, 13.5, 13.5), (10, 3.5, 3.5)],
)
def test_sessions_get_what_the_tail_does_not_need(
    total_s: float, sessions_s: float, shutdown_s: float
) -> None:
    assert Budget.of(total_s) == Budget(sessions_s, shutdown_s, EXIT_S)


@pytest.mark.parametrize("total_s", [-1, 0, 9.999])
def test_an_impossible_budget_is_refused(total_s: float) -> None:
    with pytest.raises(ValueError, match="at least 10 s"):
        Budget.of(total_s)


def test_the_settings_refuse_what_the_budget_refuses() -> None:
    field = Settings.model_fields["drain_timeout_s"]
    assert any(getattr(limit, "ge", None) == MIN_TOTAL_S for limit in field.metadata)


def test_the_clock_of_a_drain_starts_once_and_runs_for_all_parts() -> None:
    clock = itertools.chain([100.0], itertools.repeat(130.0))
    drain = Drain(Budget(50, 25, 2), clock=lambda: next(clock))
    assert drain.elapsed_s() == 0
    assert drain.left_s() == drain.sessions_left_s() == drain.shutdown_left_s() == math.inf

    drain.begin()
    drain.begin()
    assert drain.elapsed_s() == 30
    assert (drain.sessions_left_s(), drain.shutdown_left_s(), drain.left_s()) == (20, 45, 47)


def test_a_drain_that_is_over_time_has_nothing_left() -> None:
    clock = itertools.chain([0.0], itertools.repeat(1000.0))
    drain = Drain(Budget(50, 25, 2), clock=lambda: next(clock))
    drain.begin()
    assert (drain.sessions_left_s(), drain.shutdown_left_s(), drain.left_s()) == (0, 0, 0)
