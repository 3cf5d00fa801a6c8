"""The judgement of a soak: each thing that can go wrong is caught, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.soak.judge import NO_FAULT, Row, Verdict, judge, of_its_time
from bench.soak.plan import KINDS, WAYS, Kind
from bench.soak.seen import FaultSeen, Leftover, Question, Seen, Span, Stay, UserSeen
from build_aware.rehearsal.seen import Remark, Visit, WorkerSeen

ONE = WorkerSeen("build-1.1", "build-1", started_s=0, ready_s=5)
"""A worker of the build that rooms ask for, up the whole time."""

OTHER = WorkerSeen("build-2.1", "build-2", started_s=0, ready_s=5)


def an_agent(  # A greeting, and two answers.
    worker: str = "build-1.1",
    from_s: float = 100.5,
    to_s: float | None = None,
    says: tuple[float, ...] = (101.0, 104.0, 107.0),
) -> Visit:
    build = worker.partition(".")[0]
    heard = (Remark(from_s + 0.1, None), *(Remark(at_s, build) for at_s in says))
    return Visit(f"agent-{worker}-{from_s}", worker, from_s, to_s, heard)


def a_stay(
    *visits: Visit,
    from_s: float = 100,
    to_s: float = 108,
    away: tuple[Span, ...] = (),
    questions: tuple[Question, ...] | None = None,
) -> Stay:
    if questions is None:
        answers = sorted(r.at_s for v in visits for r in v.heard if r.build)
        asked = [from_s, *(at_s + 2.5 for at_s in answers)]
        questions = tuple(map(Question, asked, answers))
    return Stay(from_s, to_s, away, questions, visits)


def a_user(*stays: Stay, **facts: Any) -> UserSeen:
    known: dict[str, Any] = {
        "number": 0,
        "way": "stay",
        "target": "build-1",
        "wait_s": None,
        "asked_s": stays[0].from_s - 0.2 if stays else 99.8,
        "made_s": stays[0].from_s - 0.1 if stays else 99.9,
        "stays": stays,
    }
    return UserSeen(**(known | facts))


def a_fault(
    kind: Kind, from_s: float, to_s: float | None = None, hit: str | None = None
) -> FaultSeen:
    return FaultSeen(0, kind, from_s, from_s if to_s is None else to_s, hit)


def verdict(
    *users: UserSeen,
    faults: tuple[FaultSeen, ...] = (),
    outages: tuple[Span, ...] = (),
    workers: tuple[WorkerSeen, ...] = (ONE, OTHER),
    leftovers: tuple[Leftover, ...] = (),
) -> Verdict:
    return judge(Seen(users, faults, workers, outages, leftovers, end_s=300))


def rows_of(found: Verdict) -> dict[str, Row]:
    return {row.name: row for row in found.by_fault}


def wrongs(*users: UserSeen, **seen: Any) -> list[str]:
    return [trouble.kind for trouble in verdict(*users, **seen).troubles]


GOOD = a_user(a_stay(an_agent()))


def test_a_good_user_is_no_trouble() -> None:
    found = verdict(GOOD)
    assert (found.troubles, found.clean) == ((), True)
    row = found.by_fault[0]
    assert (row.name, row.count, row.wrong["lost"]) == (NO_FAULT, 1, 0)
    assert row.delay is not None
    assert row.delay.max_s == pytest.approx(1.0)


def test_every_kind_and_way_has_a_row() -> None:
    found = verdict(GOOD)
    assert [row.name for row in found.by_fault] == [NO_FAULT, *KINDS]
    assert [row.name for row in found.by_way] == list(WAYS)


# Lost


def silent(since_s: float = 100, answered_s: float | None = None, to_s: float = 130) -> Stay:
    return a_stay(to_s=to_s, questions=(Question(since_s, answered_s),))


@pytest.mark.parametrize(
    ("stay", "outages", "lost_s"),
    [
        (silent(), (), 120),
        (silent(answered_s=119.9), (), None),
        (silent(answered_s=121), (), 120),
        (silent(to_s=119), (), None),
        # The server comes back in time, or too late to blame anybody.
        (silent(), (Span(99, 104),), 120),
        (silent(), (Span(101, 107),), 122),
        (silent(), (Span(101, 116),), None),
        (silent(to_s=160), (Span(125, 130),), 120),
        (silent(to_s=130), (Span(110, 116),), None),
        (silent(to_s=132), (Span(110, 116),), 131),
        # The user was away.
        (replace(silent(), away=(Span(101, 116),)), (), None),
        (replace(silent(to_s=140), away=(Span(108, 116),)), (Span(108, 109),), 131),
        # Later in the stay.
        (silent(since_s=105, to_s=130), (), 125),
    ],
)
def test_lost_is_twenty_seconds_without_an_answer_the_last_fifteen_undisturbed(
    stay: Stay, outages: tuple[Span, ...], lost_s: float | None
) -> None:
    # Its room has been there long enough for workers to know of it.
    troubles = verdict(a_user(stay, made_s=90.0), outages=outages).troubles
    assert [(t.kind, t.at_s) for t in troubles] == ([("lost", lost_s)] if lost_s else [])


def test_lost_says_whether_an_agent_was_there() -> None:
    mute = replace(silent(), visits=(an_agent(says=()),))
    for stay, why in ((silent(), "no agent is there"), (mute, "does not answer")):
        (trouble,) = verdict(a_user(stay)).troubles
        assert why in trouble.why


# Cut


def left_at(to_s: float) -> UserSeen:
    return a_user(a_stay(an_agent(to_s=to_s, says=(101.0, 104.0))))


def test_an_agent_that_leaves_first_has_cut_its_user() -> None:
    (trouble,) = verdict(left_at(105.0)).troubles
    assert (trouble.kind, trouble.at_s) == ("cut", 105.0)
    assert trouble.why == "the agent left 3.0 s before the user"


@pytest.mark.parametrize("to_s", [None, 107.9, 108.0, 120.0])
def test_an_agent_that_leaves_with_its_user_has_not(to_s: float | None) -> None:
    assert wrongs(a_user(a_stay(an_agent(to_s=to_s)))) == []


def test_an_agent_that_never_answered_cuts_nobody() -> None:
    assert wrongs(a_user(a_stay(an_agent(to_s=101, says=()), an_agent(from_s=101)))) == []


@pytest.mark.parametrize(
    ("fault", "cut"),
    [
        (a_fault("kill-worker", 104.9, hit="build-1.1"), False),
        (a_fault("kill-worker", 104.9, hit="build-1.2"), True),
        (a_fault("kill-job", 104.9, hit="room-0"), False),
        (a_fault("kill-job", 104.9, hit="room-1"), True),
        (a_fault("kill-server", 104.9, 107), False),
        (a_fault("answer-401", 104.9, 105.9, hit="build-1.1"), False),
        (a_fault("answer-503", 80, 81, hit="build-1.1"), False),
        (a_fault("answer-503", 70, 71, hit="build-1.1"), True),
        (a_fault("kill-server", 105.1, 107), True),
        (a_fault("deploy", 90, 104), True),
        (a_fault("deploy-group", 90, 104), True),
        (a_fault("deploy-twice", 90, 104), True),
        (a_fault("stop-worker", 100, 104.9, hit="build-1.1"), True),
        (a_fault("stop-job", 100, 104.9, hit="room-0"), True),
        (a_fault("hog", 100, 104.9), True),
        (replace(a_fault("kill-server", 104.9, 107), skipped="nobody was served"), True),
    ],
)
def test_only_a_fault_that_ends_sessions_excuses_the_end(fault: FaultSeen, cut: bool) -> None:
    assert wrongs(left_at(105.0), faults=(fault,)) == (["cut"] if cut else [])


def test_an_agent_that_leaves_because_its_user_had_left_cuts_nobody() -> None:
    before = a_stay(an_agent(), to_s=108)
    after = a_stay(
        an_agent(to_s=110, says=(101.0, 108.9)),
        an_agent(from_s=111, says=(112.0,)),
        from_s=108.2,
        to_s=130,
        questions=(Question(108.2, 108.9), Question(111.4, 112.0)),
    )
    assert wrongs(a_user(before, after)) == []
    later = replace(after, visits=(replace(after.visits[0], to_s=125), after.visits[1]))
    assert wrongs(a_user(before, replace(later, visits=later.visits[:1]))) == ["cut"]


def test_of_two_agents_one_may_leave() -> None:
    first = an_agent(to_s=105, says=(101.0,))
    second = an_agent("build-1.2", from_s=104.5, says=(106.0,))
    assert wrongs(a_user(a_stay(first, second))) == []
    assert wrongs(a_user(a_stay(first, replace(second, from_s=105.5)))) == ["cut"]


# Doubled


def test_two_agents_that_both_speak_are_doubled() -> None:
    first, second = an_agent(), an_agent("build-1.2", from_s=103, says=(104.5,))
    (trouble,) = verdict(a_user(a_stay(first, second))).troubles
    assert (trouble.kind, trouble.at_s) == ("doubled", 104.0)
    assert trouble.why == "two agents for 5.0 s, and both spoke"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # One was silent while both were there.
        (an_agent(), Visit("b", "build-1.2", 103, 105)),
        (an_agent(says=(101.0,)), an_agent("build-1.2", from_s=103, says=(104.5,))),
        # One after the other: the connection of a killed agent ends with it.
        (an_agent(to_s=103, says=(101.0,)), an_agent("build-1.2", from_s=103.1, says=(104.5,))),
    ],
)
def test_two_agents_of_which_one_is_silent_are_not(first: Visit, second: Visit) -> None:
    crash = a_fault("kill-worker", 102.9, hit="build-1.1")
    assert wrongs(a_user(a_stay(first, second)), faults=(crash,)) == []


# Misrouted and forgotten


def test_a_build_that_was_not_asked_for_is_misrouted() -> None:
    (trouble,) = verdict(replace(GOOD, target="build-2")).troubles
    assert (trouble.kind, trouble.at_s) == ("misrouted", 101.0)
    assert trouble.why == "asked for build-2, answered by build-1"


@pytest.mark.parametrize(("came_s", "wrong"), [(102.0, True), (103.0, False)])
def test_a_fallback_may_serve_after_its_wait(came_s: float, wrong: bool) -> None:
    stay = a_stay(an_agent(from_s=came_s, says=(104.0,)))
    user = a_user(stay, target="build-2", wait_s=3, asked_s=99.5)
    assert wrongs(user) == (["misrouted"] if wrong else [])


@pytest.mark.parametrize(
    ("stop_s", "wrong"), [(None, False), (110, False), (99.5, False), (90, True)]
)
def test_a_room_that_asks_for_nothing_goes_to_no_build_that_was_told_to_stop(
    stop_s: float | None, wrong: bool
) -> None:
    worker = replace(ONE, stop_s=stop_s)
    user = replace(GOOD, target=None)
    assert wrongs(user, workers=(worker,)) == (["misrouted"] if wrong else [])


@pytest.mark.parametrize(
    ("workers", "outages", "kind"),
    [
        ((ONE, OTHER), (), "misrouted"),
        # The server forgets; somebody had the time to learn, or nobody had.
        ((ONE, OTHER), (Span(110, 112),), "misrouted"),
        ((ONE, OTHER), (Span(101, 103),), "forgotten"),
        # Who had learnt it is gone.
        ((replace(ONE, exited_s=115.0),), (Span(110, 112),), "forgotten"),
        # Who is there came later.
        ((replace(ONE, ready_s=111.0),), (Span(110, 112),), "forgotten"),
        # It forgot before the room was made, or after the agent came.
        ((ONE,), (Span(80, 90),), "misrouted"),
        ((ONE,), (Span(140, 141),), "misrouted"),
    ],
)
def test_forgotten_is_misrouted_where_nobody_could_know(
    workers: tuple[WorkerSeen, ...], outages: tuple[Span, ...], kind: str
) -> None:
    stay = a_stay(an_agent("build-1.1", from_s=120, says=(121.0,)), to_s=130)
    user = a_user(stay, target="build-2", asked_s=99.8, made_s=99.9)
    found = verdict(user, workers=workers, outages=outages)
    assert [t.kind for t in found.troubles if t.kind != "lost"] == [kind]


@pytest.mark.parametrize(
    ("outages", "kind"),
    [
        ((), "lost"),
        ((Span(110, 112),), "lost"),
        ((Span(101, 103),), "forgotten"),
    ],
)
def test_who_waits_in_a_room_that_was_forgotten_at_once_is_forgotten_too(
    outages: tuple[Span, ...], kind: str
) -> None:
    stay = a_stay(from_s=115.0, to_s=150.0, questions=(Question(115.0, None),))
    user = a_user(stay, target="build-2", asked_s=99.8, made_s=99.9)
    assert [t.kind for t in verdict(user, outages=outages).troubles] == [kind]


def test_who_has_an_agent_that_does_not_answer_is_lost_whatever_the_server_forgot() -> None:
    mute = an_agent(from_s=116.0, says=())
    stay = a_stay(mute, from_s=115.0, to_s=150.0, questions=(Question(115.0, None),))
    user = a_user(stay, asked_s=99.8, made_s=99.9)
    assert [t.kind for t in verdict(user, outages=(Span(101, 103),)).troubles] == ["lost"]


def test_what_nobody_could_know_is_forgiven() -> None:
    stay = a_stay(an_agent(from_s=108, says=(109.0,)), to_s=112)
    found = verdict(a_user(stay, target="build-2"), outages=(Span(101, 103),))
    assert [t.kind for t in found.troubles] == ["forgotten"]
    assert found.clean


def test_users_who_could_not_get_in_are_not_forgiven() -> None:
    assert not judge(Seen((GOOD,), (), (ONE,), absent=(7,))).clean


def test_what_is_left_over_is_not_forgiven() -> None:
    assert not verdict(GOOD, leftovers=(Leftover("process", "build-1.1", "python"),)).clean


# Which fault


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ([], []),
        ([(80, 85)], []),
        ([(80, 91)], [0]),  # Just before the user came.
        ([(102, 103), (85, 91)], [1, 0]),
        ([(109, 110)], []),
    ],
)
def test_a_user_counts_with_every_fault_of_its_time(
    times: list[tuple[float, float]], found: list[int]
) -> None:
    faults = [FaultSeen(n, "hog", *when) for n, when in enumerate(times)]
    assert [fault.number for fault in of_its_time(GOOD, faults)] == found
    rows = rows_of(verdict(GOOD, faults=tuple(faults)))
    assert rows["hog"].count == len(found)


@pytest.mark.parametrize(
    ("times", "after"),
    [
        ([], NO_FAULT),
        ([(102, "hog"), (106, "deploy")], "hog"),
        ([(101, "deploy"), (102, "hog")], "hog"),
        ([(106, "hog")], NO_FAULT),
    ],
)
def test_trouble_counts_with_the_latest_fault_before_it(
    times: list[tuple[float, Kind]], after: str
) -> None:
    faults = tuple(a_fault(kind, at_s) for at_s, kind in times)
    found = verdict(left_at(105.0), faults=faults)
    assert [trouble.after for trouble in found.troubles] == [after]
    assert {row.name for row in found.by_fault if row.wrong["cut"]} == {after}
    assert [row.name for row in found.by_way if row.wrong["cut"]] == ["stay"]


def test_a_fault_that_was_skipped_has_no_users() -> None:
    fault = replace(a_fault("kill-job", 102), skipped="nobody was served")
    assert of_its_time(GOOD, (fault,)) == []


def test_a_wait_counts_with_the_latest_fault_before_it() -> None:
    questions = (Question(100, 103), Question(105, 106.5), Question(107, 107.2))
    user = a_user(a_stay(an_agent(), questions=questions))
    found = verdict(user, faults=(a_fault("hog", 104), a_fault("kill-job", 106.8)))
    longest = {row.name: row.delay.max_s for row in found.by_fault if row.delay}
    assert longest == pytest.approx({NO_FAULT: 3, "hog": 1.5, "kill-job": 0.2})
    assert [row.delay.max_s for row in found.by_way if row.delay] == [3]


def test_a_long_silence_counts_with_the_fault_in_which_it_began() -> None:
    faults = (a_fault("kill-job", 101), a_fault("hog", 112))
    found = verdict(a_user(silent(answered_s=124)), faults=faults)
    assert {row.name for row in found.by_fault if row.delay} == {"kill-job"}
    assert [(t.at_s, t.after) for t in found.troubles] == [(120, "kill-job")]


@pytest.mark.parametrize(
    ("visits", "kept"),
    [
        ((an_agent(),), (1, 1)),
        ((an_agent(to_s=103, says=(101.0,)), an_agent(from_s=105, says=(107.0,))), (1, 0)),
        ((an_agent(says=(101.0,)),), (0, 0)),  # Nobody answered after it.
        ((an_agent(from_s=104, says=(107.0,)),), (0, 0)),  # Nor before it.
    ],
)
def test_a_conversation_is_kept_if_the_same_agent_goes_on(
    visits: tuple[Visit, ...], kept: tuple[int, int]
) -> None:
    fault = a_fault("kill-server", 102, 103.5)
    row = rows_of(verdict(a_user(a_stay(*visits)), faults=(fault,)))["kill-server"]
    assert (row.talked, row.kept) == kept
