from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_aware.dispatch.capacity import SERVER_TARGET_LOAD, count, is_full, load


@pytest.mark.parametrize(
    ("sessions", "max_sessions", "full"),
    [
        (0, 1, False),
        (1, 1, True),
        (2, 1, True),
        (9, 10, False),
        (10, 10, True),
        (0, None, False),
        (1000, None, False),
    ],
)
def test_a_worker_is_full_when_all_its_sessions_are_taken(
    sessions: int, max_sessions: int | None, full: bool
) -> None:
    assert is_full(lambda: sessions, max_sessions) is full


@given(
    accepting=st.frozensets(st.sampled_from("abcdefgh")),
    running=st.frozensets(st.sampled_from("abcdefgh")),
    adopting=st.frozensets(st.sampled_from("abcdefgh")),
)
def test_each_session_is_counted_once(
    accepting: frozenset[str], running: frozenset[str], adopting: frozenset[str]
) -> None:
    assert count(accepting, running, adopting) == len(accepting | running | adopting)


def test_where_there_is_no_limit_nobody_counts() -> None:
    assert not is_full(lambda: pytest.fail("counted"), None)


@pytest.mark.parametrize("max_sessions", [1, 2, 3, 7, 10, 33, 100, 999, 1000])
def test_a_server_stops_offering_exactly_when_a_worker_is_full(max_sessions: int) -> None:
    for sessions in range(max_sessions + 3):
        offers_no_more = load(sessions, max_sessions) >= SERVER_TARGET_LOAD
        assert offers_no_more is is_full(partial(int, sessions), max_sessions), sessions


@pytest.mark.parametrize(
    ("sessions", "max_sessions", "expected"),
    [(0, 10, 0.0), (5, 10, 0.35), (10, 10, 0.7), (25, 10, 0.7)],
)
def test_the_load_grows_with_the_sessions_and_ends_at_the_servers_limit(
    sessions: int, max_sessions: int, expected: float
) -> None:
    assert load(sessions, max_sessions) == pytest.approx(expected)


def test_the_limit_is_that_of_livekit() -> None:
    assert SERVER_TARGET_LOAD == 0.7
