"""The yardstick: each thing that can go wrong is caught, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_aware.rehearsal.seen import Remark, Seen, SessionSeen, Visit, WorkerSeen
from build_aware.rehearsal.verdict import DEFAULT_LIMITS, KINDS, judge, percentile

OLD = WorkerSeen("build-1.1", "build-1", started_s=0, ready_s=2, stop_s=20, exited_s=20.5)
NEW = WorkerSeen("build-2.1", "build-2", started_s=10, ready_s=14)


def an_agent(
    worker: str = "build-1.1",
    *,
    from_s: float = 5.3,
    to_s: float | None = None,
    says: tuple[tuple[float, str | None], ...] = ((5.5, None), (6.0, "build-1"), (8.0, "build-1")),
    published: bool = False,
) -> Visit:
    heard = tuple(Remark(at_s, build) for at_s, build in says)
    return Visit(f"agent-{worker}-{from_s}", worker, from_s, to_s, heard, published)


GOOD = SessionSeen(
    number=0,
    target="build-1",
    asked_s=5,
    left_s=8.1,
    unanswered_s=None,
    visits=(an_agent(),),
)


def seen(*sessions: SessionSeen, workers: tuple[WorkerSeen, ...] = (OLD, NEW)) -> Seen:
    return Seen(
        contestant="ours",
        sessions=sessions,
        workers=workers,
        targets=((2, "build-1"), (15, "build-2")),
        stops=((20, "build-1"),),
        end_s=30,
    )


def troubles(*sessions: SessionSeen, workers: tuple[WorkerSeen, ...] = (OLD, NEW)) -> list[str]:
    return [trouble.kind for trouble in judge(seen(*sessions, workers=workers)).troubles]


def test_a_good_session_is_served_and_nothing_else() -> None:
    verdict = judge(seen(GOOD))
    assert (verdict.asked, verdict.served, verdict.troubles, verdict.clean) == (1, 1, (), True)
    assert verdict.delay is not None
    assert verdict.delay.max_s == pytest.approx(0.3)


# Outdated


OVERLAPPING: Final = replace(OLD, stop_s=40.0, exited_s=41.0)
REGISTERED: Final = replace(NEW, ready_s=10.0)


def asks_for_none(asked_s: float, build: str = "build-1") -> SessionSeen:
    visit = an_agent(from_s=asked_s + 0.3, says=((asked_s + 1, None), (asked_s + 1, build)))
    return replace(GOOD, target=None, asked_s=asked_s, left_s=asked_s + 3, visits=(visit,))


@pytest.mark.parametrize(("asked_s", "outdated"), [(24.9, False), (25.0, True), (39.0, True)])
def test_an_old_build_that_serves_beside_a_newer_one_is_outdated(
    asked_s: float, outdated: bool
) -> None:
    found = judge(
        replace(seen(asks_for_none(asked_s), workers=(OVERLAPPING, REGISTERED)), stops=())
    )
    assert [trouble.kind for trouble in found.troubles] == ["outdated"] * outdated


def test_the_newer_one_is_not() -> None:
    assert troubles(asks_for_none(30, "build-2"), workers=(OVERLAPPING, REGISTERED)) == []


@pytest.mark.parametrize(
    "newer",
    [
        replace(NEW, ready_s=None),
        replace(NEW, ready_s=10.0, stop_s=28.0),
        replace(NEW, ready_s=10.0, crashed_s=28.0),
        replace(NEW, ready_s=10.0, exited_s=28.0),
    ],
)
def test_nor_is_an_old_one_where_the_newer_one_is_not_there(newer: WorkerSeen) -> None:
    verdict = judge(replace(seen(asks_for_none(29), workers=(OVERLAPPING, newer)), stops=()))
    assert verdict.count("outdated") == 0


def test_nor_is_one_that_was_asked_for() -> None:
    session = replace(asks_for_none(30), target="build-1")
    assert "outdated" not in troubles(session, workers=(OVERLAPPING, REGISTERED))


# Misrouted


def test_a_worker_that_serves_a_wrong_build_is_caught() -> None:
    verdict = judge(seen(replace(GOOD, target="build-2")))
    (trouble,) = verdict.troubles
    assert (trouble.kind, trouble.at_s) == ("misrouted", 6.0)
    assert trouble.why == "asked for build-2, answered by build-1"
    assert not verdict.clean
    assert verdict.served == 1


def test_a_wrong_build_that_comes_second_is_caught() -> None:
    other = an_agent("build-2.1", from_s=7, says=((7.2, "build-2"),))
    first = an_agent(to_s=6.5, says=((6.0, "build-1"),))
    assert "misrouted" in troubles(replace(GOOD, visits=(first, other)))


def test_a_wrong_build_that_says_nothing_of_itself_did_not_serve() -> None:
    guest = an_agent("build-2.1", from_s=6, to_s=6.4, says=())
    assert troubles(replace(GOOD, visits=(an_agent(), guest))) == []


def untargeted(asked_s: float) -> SessionSeen:
    visit = an_agent(from_s=asked_s + 0.3, says=((asked_s + 1, "build-1"),))
    return replace(GOOD, target=None, asked_s=asked_s, left_s=asked_s + 2, visits=(visit,))


def test_an_untargeted_session_may_be_served_by_a_build_until_its_stop() -> None:
    assert troubles(untargeted(19.9)) == []
    verdict = judge(seen(untargeted(20.1)))
    (trouble,) = verdict.troubles
    assert trouble.kind == "misrouted"
    assert trouble.why == "answered by build-1, which was told to stop 0.1 s before"


# Lost


def test_a_session_without_an_agent_is_lost() -> None:
    verdict = judge(seen(replace(GOOD, visits=(), left_s=17, unanswered_s=5.1)))
    (trouble,) = verdict.troubles
    assert (trouble.kind, trouble.at_s) == ("lost", 15)
    assert (verdict.served, verdict.delay) == (0, None)


def test_a_session_whose_agent_comes_too_late_is_lost() -> None:
    late = an_agent(from_s=5 + DEFAULT_LIMITS.patience_s + 0.1, says=((16, "build-1"),))
    assert troubles(replace(GOOD, visits=(late,), left_s=18)) == ["lost"]
    in_time = an_agent(from_s=5 + DEFAULT_LIMITS.patience_s - 0.1, says=((16, "build-1"),))
    assert troubles(replace(GOOD, visits=(in_time,), left_s=18)) == []


def test_a_session_whose_agent_only_greets_is_lost() -> None:
    silent = an_agent(says=((5.5, None),))
    verdict = judge(seen(replace(GOOD, visits=(silent,), left_s=17, unanswered_s=5.1)))
    assert [(t.kind, t.why) for t in verdict.troubles] == [
        ("lost", "an agent came but never answered")
    ]


def test_a_session_whose_agent_is_killed_before_it_answers_has_ten_seconds_more() -> None:
    killed = an_agent(to_s=6.5, says=((5.5, None),))
    for from_s, kinds in ((16.4, []), (16.6, ["lost"])):
        second = an_agent("build-1.2", from_s=from_s, says=((17, "build-1"),))
        session = replace(GOOD, left_s=18, visits=(killed, second))
        assert troubles(session, workers=(CRASHED, NEW)) == kinds


# Cut


def test_an_agent_that_leaves_before_the_user_cuts_the_session() -> None:
    verdict = judge(seen(replace(GOOD, visits=(an_agent(to_s=7.0),))))
    assert [(t.kind, t.at_s) for t in verdict.troubles] == [("cut", 7.0)]
    assert verdict.served == 1


def test_an_agent_that_leaves_with_the_user_does_not() -> None:
    assert troubles(replace(GOOD, visits=(an_agent(to_s=8.2),))) == []


def test_an_agent_that_falls_silent_cuts_the_session() -> None:
    silent = replace(GOOD, left_s=20, unanswered_s=8.0)
    assert troubles(silent) == ["cut"]


def test_an_agent_that_left_and_was_replaced_cuts_the_session_all_the_same() -> None:
    first = an_agent(to_s=6.5, says=((6.0, "build-1"),))
    second = an_agent("build-1.2", from_s=6.6, says=((7.0, "build-1"),))
    assert troubles(replace(GOOD, visits=(first, second))) == ["cut"]


CRASHED = replace(OLD, stop_s=None, crashed_s=6.5, exited_s=6.5)


def a_crash(*, answered_s: float | None, to_s: float | None = 6.5) -> SessionSeen:
    visits = [an_agent(to_s=to_s, says=((6.0, "build-1"),))]
    if answered_s is not None:
        visits.append(
            an_agent("build-1.2", from_s=answered_s - 0.5, says=((answered_s, "build-1"),))
        )
    return replace(
        GOOD,
        left_s=19 if answered_s is None else answered_s + 1,
        unanswered_s=7.0 if answered_s is None else None,
        visits=tuple(visits),
    )


@pytest.mark.parametrize("to_s", [6.5, 30.0, None])
@pytest.mark.parametrize(
    ("answered_s", "kinds"), [(None, ["cut"]), (16.4, []), (16.6, ["cut"]), (7.5, [])]
)
def test_a_killed_agent_cuts_the_session_unless_another_one_serves_in_time(
    answered_s: float | None, kinds: list[str], to_s: float | None
) -> None:
    # A killed agent may look present for long; its connection's end says what it is.
    session = a_crash(answered_s=answered_s, to_s=to_s)
    found = [k for k in troubles(session, workers=(CRASHED, NEW)) if k != "doubled"]
    assert found == kinds


def test_the_ghost_of_a_killed_agent_is_no_second_agent() -> None:
    assert troubles(a_crash(answered_s=12, to_s=6.5), workers=(CRASHED, NEW)) == []


def test_a_session_whose_replacement_falls_silent_is_cut() -> None:
    session = replace(a_crash(answered_s=8), left_s=25, unanswered_s=10)
    assert troubles(session, workers=(CRASHED, NEW)) == ["cut"]


def test_a_user_who_leaves_at_the_moment_of_the_crash_has_lost_nothing() -> None:
    session = replace(a_crash(answered_s=None), left_s=6.6, unanswered_s=None)
    assert troubles(session, workers=(CRASHED, NEW)) == []


def test_an_agent_that_had_left_before_its_worker_crashed_cut_the_session_itself() -> None:
    session = a_crash(answered_s=8, to_s=6.2)
    assert troubles(session, workers=(CRASHED, NEW)) == ["cut"]


def test_a_crash_after_the_user_has_left_explains_nothing() -> None:
    silent = replace(GOOD, left_s=20, unanswered_s=8.0)
    late = replace(CRASHED, crashed_s=21, exited_s=21)
    (trouble,) = judge(seen(silent, workers=(late, NEW))).troubles
    assert trouble.why == "the agent no longer answered"


# Doubled


def with_guest(guest: Visit) -> SessionSeen:
    return replace(GOOD, left_s=15, visits=(an_agent(says=((6.0, "build-1"), (7, None))), guest))


def test_two_agents_that_both_speak_are_caught() -> None:
    guest = an_agent("build-1.2", from_s=6.5, to_s=7.5, says=((6.9, None),))
    assert troubles(with_guest(guest)) == ["doubled"]
    before = replace(guest, heard=(Remark(6.4, None),))
    assert troubles(with_guest(before)) == []


def test_two_agents_that_both_publish_are_caught() -> None:
    guest = replace(an_agent("build-1.2", from_s=6.5, to_s=6.9, says=()), published=True)
    host = replace(an_agent(), published=True)
    assert troubles(replace(GOOD, visits=(host, guest))) == ["doubled"]


def test_two_agents_that_stay_together_are_caught_though_one_is_silent() -> None:
    guest = an_agent("build-1.2", from_s=6.5, to_s=6.5 + DEFAULT_LIMITS.together_s + 0.1, says=())
    assert troubles(with_guest(guest)) == ["doubled"]


def test_an_agent_that_looks_in_and_leaves_without_a_word_is_no_second_one() -> None:
    guest = an_agent("build-1.2", from_s=6.5, to_s=6.5 + DEFAULT_LIMITS.together_s - 0.1, says=())
    assert troubles(with_guest(guest)) == []


def test_an_agent_that_comes_when_the_user_is_gone_is_no_second_one() -> None:
    guest = an_agent("build-1.2", from_s=8.2, to_s=20, says=((8.5, None),))
    assert troubles(replace(GOOD, visits=(an_agent(), guest))) == []


def test_agents_that_follow_each_other_are_not_two_at_once() -> None:
    first = replace(an_agent(to_s=6.5), published=True)
    second = replace(an_agent("build-1.2", from_s=7, says=()), published=True)
    assert "doubled" not in troubles(replace(GOOD, visits=(first, second)))


# Lingering


def lingering(*sessions: SessionSeen, worker: WorkerSeen = OLD) -> float | None:
    (found,) = judge(seen(*sessions, workers=(worker, NEW))).lingering
    assert found.worker == worker.name
    return found.seconds


def test_an_idle_worker_lingers_from_its_stop() -> None:
    assert lingering(GOOD) == pytest.approx(0.5)


def test_a_busy_worker_lingers_from_the_leave_of_its_last_user() -> None:
    last = replace(GOOD, number=1, left_s=24)
    assert lingering(GOOD, last, worker=replace(OLD, exited_s=25)) == pytest.approx(1)


def test_an_agent_that_stays_when_its_user_has_left_makes_its_worker_linger() -> None:
    stays = replace(GOOD, left_s=24, visits=(an_agent(to_s=44),))
    assert lingering(stays, worker=replace(OLD, exited_s=45)) == pytest.approx(21)


def test_users_of_other_workers_do_not_count() -> None:
    other = replace(GOOD, number=1, left_s=24, visits=(an_agent("build-1.2"),))
    assert lingering(GOOD, other, worker=replace(OLD, exited_s=25)) == pytest.approx(5)


def test_a_worker_that_leaves_before_its_users_does_not_linger() -> None:
    assert lingering(replace(GOOD, left_s=24)) == 0


@pytest.mark.parametrize(
    "worker",
    [replace(OLD, exited_s=50, gave_up_s=50), replace(OLD, exited_s=None)],
    ids=["killed", "still there"],
)
def test_a_worker_that_never_exits_is_caught(worker: WorkerSeen) -> None:
    assert lingering(GOOD, worker=worker) is None


def test_only_old_workers_linger() -> None:
    crashed = replace(OLD, name="crashed", crashed_s=10, exited_s=10)
    assert judge(seen(GOOD, workers=(NEW, crashed))).lingering == ()


# All of it


def test_a_session_counts_once_for_each_way_in_which_it_went_wrong() -> None:
    visits = tuple(an_agent(f"build-1.{n}", from_s=5.3, to_s=7) for n in range(3))
    verdict = judge(seen(replace(GOOD, target="build-2", visits=visits), replace(GOOD, number=1)))
    assert {kind: verdict.count(kind) for kind in KINDS} == {
        "misrouted": 1,
        "outdated": 0,
        "lost": 0,
        "cut": 1,
        "doubled": 1,
    }
    assert verdict.asked == verdict.served == 2


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 5.0), (95, 10.0), (90, 9.0), (1, 1.0), (100, 10.0)]
)
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    assert percentile([float(n) for n in range(10, 0, -1)], percent) == expected


times = st.floats(0, 40)
visits = st.builds(
    Visit,
    identity=st.sampled_from(["a", "b", "c"]),
    worker=st.sampled_from([None, "build-1.1", "build-2.1"]),
    from_s=times,
    to_s=st.none() | times,
    heard=st.lists(
        st.builds(Remark, times, st.sampled_from([None, "build-1", "build-2"])), max_size=3
    ).map(tuple),
    published=st.booleans(),
)
sessions = st.builds(
    SessionSeen,
    number=st.integers(0, 9),
    target=st.sampled_from([None, "build-1", "build-2"]),
    asked_s=times,
    left_s=times,
    unanswered_s=st.none() | times,
    visits=st.lists(visits, max_size=4).map(tuple),
)


@given(st.lists(sessions, max_size=5, unique_by=lambda session: session.number), st.booleans())
def test_there_is_a_verdict_on_whatever_was_seen(found: list[SessionSeen], crash: bool) -> None:
    workers = (CRASHED if crash else OLD, NEW)
    verdict = judge(seen(*found, workers=workers))
    assert verdict.asked == len(found) == verdict.served + verdict.count("lost")
    assert all(0 <= verdict.count(kind) <= len(found) for kind in KINDS)
