from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from livekit.protocol.agent import Job, JobState, JobStatus
from livekit.protocol.agent_dispatch import AgentDispatch, AgentDispatchState
from livekit.protocol.models import ParticipantInfo

from build_aware.adoption.judgement import (
    JOIN_S,
    OFFER_S,
    USER_KINDS,
    Candidate,
    Empty,
    Finding,
    Fits,
    NotAsked,
    Served,
    Waiting,
    has_user,
    judge,
    was_ended,
)
from build_aware.dispatch.agents import AgentSeen, served
from build_aware.dispatch.ages import Ages
from build_aware.dispatch.attributes import AGENT_NAME, DISPATCH, PUBLISHES_FOR
from build_aware.dispatch.target import asked_by

Policy = Literal["accept", "reject"]

NOW: Final = 1_700_000_000.0
LONG_AGO: Final = NOW - 1_000
NAME: Final = "support"

KINDS: Final = ParticipantInfo.Kind
OTHER_KINDS: Final = (KINDS.INGRESS, KINDS.EGRESS, KINDS.BRIDGE)

OURS: Final = json.dumps({"agent_build": "ours"})
THEIRS: Final = json.dumps({"agent_build": ["theirs", "1.4.2"]})
BROKEN: Final = json.dumps({"agent_build": 5})
FALLBACK_S: Final = 30.0
THEIRS_FIRST: Final = json.dumps(
    {"agent_build": {"id": "theirs", "fallback": "any", "wait": FALLBACK_S}}
)


def participant(
    kind: ParticipantInfo.Kind = KINDS.STANDARD,
    *,
    name: str | None = None,
    speaks_for: str | None = None,
    serves: str | None = None,
    joined_s: float = LONG_AGO,
) -> ParticipantInfo:
    attributes = {AGENT_NAME: name, PUBLISHES_FOR: speaks_for, DISPATCH: serves}
    return ParticipantInfo(
        kind=kind,
        joined_at=int(joined_s),
        joined_at_ms=int(joined_s * 1e3),
        attributes={key: value for key, value in attributes.items() if value is not None},
    )


def job(
    job_id: str = "J",
    *,
    started_s: float,
    status: JobStatus = JobStatus.JS_RUNNING,
    identity: str = "agent-J",
) -> Job:
    state = JobState(status=status, started_at=int(started_s * 1e9), participant_identity=identity)
    return Job(id=job_id, state=state)


def dispatch(
    metadata: str = "",
    created_s: float = LONG_AGO,
    jobs: Iterable[Job] = (),
    dispatch_id: str = "AD",
    *,
    agent_name: str = NAME,
    deployment: str = "",
) -> AgentDispatch:
    state = AgentDispatchState(jobs=jobs, created_at=int(created_s * 1e9))
    return AgentDispatch(
        id=dispatch_id,
        agent_name=agent_name,
        deployment=deployment,
        metadata=metadata,
        state=state,
    )


def candidate(
    *, agent_name: str = NAME, deployment: str = "", untargeted: Policy = "accept"
) -> Candidate:
    return Candidate(
        agent_name=agent_name,
        deployment=deployment,
        answers_to=lambda name: name == "ours",
        untargeted=untargeted,
    )


def found(
    *dispatches: AgentDispatch,
    who: Candidate | None = None,
    untargeted: Policy = "accept",
    participants: Iterable[ParticipantInfo] | None = None,
    room_metadata: str = "",
    dead_jobs: Iterable[str] = (),
    served_s: float = 0.0,
    now_s: float = NOW,
    ages: Ages | None = None,
    adoptable_in_s: Callable[[Fits], float] = lambda _: 0.0,
) -> Finding | Until:
    """The judgement, with its times as points in time; see the tests at the end for the rest."""
    finding = judged(
        *dispatches,
        who=candidate(untargeted=untargeted) if who is None else who,
        participants=participants,
        room_metadata=room_metadata,
        dead_jobs=dead_jobs,
        served_s=served_s,
        now_s=now_s,
        ages=ages,
        adoptable_in_s=adoptable_in_s,
    )
    if isinstance(finding, Waiting):
        until_s = None if finding.in_s is None else math.ceil((now_s + finding.in_s) * 1e3) / 1e3
        return Until(finding.names, until_s)
    return Fits(finding.dispatch, finding.reason) if isinstance(finding, Fits) else finding


def judged(
    *dispatches: AgentDispatch,
    who: Candidate | None = None,
    participants: Iterable[ParticipantInfo] | None = None,
    room_metadata: str = "",
    dead_jobs: Iterable[str] = (),
    served_s: float = 0.0,
    now_s: float = NOW,
    ages: Ages | None = None,
    adoptable_in_s: Callable[[Fits], float] = lambda _: 0.0,
) -> Finding:
    participants = [participant()] if participants is None else list(participants)
    agents = [agent for each in participants if (agent := AgentSeen.of_info(each)) is not None]
    return judge(
        candidate() if who is None else who,
        participants=participants,
        dispatches=dispatches,
        served=served(dispatches, agents).keys(),
        asked=lambda each: asked_by(dispatch_metadata=each.metadata, room_metadata=room_metadata),
        dead_jobs=frozenset(dead_jobs),
        age=(Ages() if ages is None else ages).at(now_s, server_now_s=now_s),
        served_ago_s=lambda _: now_s - served_s,
        adoptable_in_s=adoptable_in_s,
    )


@dataclass(frozen=True)
class Until:
    """`Waiting`, with the time at which to look again, up to the next millisecond."""

    names: tuple[str, ...]
    until_s: float | None


# Who is there


@pytest.mark.parametrize(("name", "ours"), [(NAME, True), (None, True), ("sales", False)])
def test_an_agent_is_a_namesake_by_its_name_or_if_it_tells_none(
    name: str | None, ours: bool
) -> None:
    assert candidate().is_namesake(AgentSeen(agent_name=name)) is ours


@pytest.mark.parametrize(("name", "ours"), [("", True), ("sales", False), (None, True)])
def test_a_worker_without_a_name_serves_with_agents_without_one(
    name: str | None, ours: bool
) -> None:
    assert candidate(agent_name="").is_namesake(AgentSeen(agent_name=name)) is ours


def test_every_kind_of_participant_is_a_user_or_an_agent_or_known_to_be_neither() -> None:
    assert {*USER_KINDS, KINDS.AGENT, *OTHER_KINDS} == set(KINDS.values())


@pytest.mark.parametrize("kind", sorted(USER_KINDS))
def test_a_user_without_an_agent_waits(kind: ParticipantInfo.Kind) -> None:
    others = [participant(other) for other in OTHER_KINDS]
    asks = dispatch(OURS)
    assert found(asks, participants=[*others, participant(kind)]) == Fits(asks, "target")


@pytest.mark.parametrize("name", [NAME, None])
@pytest.mark.parametrize("users", [1, 2])
def test_an_agent_serves_whoever_is_there(users: int, name: str | None) -> None:
    agent = participant(KINDS.AGENT, name=name)
    assert found(dispatch(OURS), participants=[participant()] * users + [agent]) == Served()
    assert found(dispatch(OURS), participants=[agent] + [participant()] * users) == Served()


@pytest.mark.parametrize(("name", "speaks_for"), [("sales", None), (NAME, "agent-1"), (NAME, "")])
def test_an_agent_that_is_not_ours_serves_nobody_and_is_no_user(
    name: str, speaks_for: str | None
) -> None:
    other = participant(KINDS.AGENT, name=name, speaks_for=speaks_for)
    asks = dispatch(OURS)
    assert found(asks, participants=[participant(), other]) == Fits(asks, "target")
    assert found(asks, participants=[other]) == Empty()


@pytest.mark.parametrize("metadata", ["", OURS, THEIRS])
def test_a_room_without_a_user_is_empty(metadata: str) -> None:
    assert found(dispatch(metadata), participants=[]) == Empty()
    assert found(participants=[]) == Empty()


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_recorders_and_streams_are_no_users(kind: ParticipantInfo.Kind) -> None:
    assert not has_user([participant(kind)])
    assert found(dispatch(OURS), participants=[participant(kind)]) == Empty()


def test_participants_may_come_from_an_iterator() -> None:
    asks = dispatch(OURS)
    assert found(asks, participants=iter([participant()])) == Fits(asks, "target")


# What it asked for: which dispatches count


@pytest.mark.parametrize("untargeted", ["accept", "reject"])
def test_a_room_without_a_dispatch_never_asked(untargeted: Policy) -> None:
    assert found(untargeted=untargeted, room_metadata=OURS) == NotAsked()


@pytest.mark.parametrize(
    ("agent_name", "deployment"),
    [("", ""), ("sales", ""), (NAME, "eu"), (NAME, "us"), (NAME + "2", "staging"), ("", "staging")],
)
def test_only_the_agents_own_name_and_deployment_count(agent_name: str, deployment: str) -> None:
    other = dispatch(OURS, agent_name=agent_name, deployment=deployment)
    who = candidate(deployment="staging")
    assert who.asked_in([other]) == []
    assert found(other, who=who) == NotAsked()
    ours = dispatch(OURS, deployment="staging")
    assert found(other, ours, who=who) == Fits(ours, "target")


def test_every_dispatch_for_this_agent_asks() -> None:
    one, other, two = (
        dispatch(dispatch_id="1"),
        dispatch(agent_name="sales"),
        dispatch(dispatch_id="2"),
    )
    assert candidate().asked_in(iter([one, other, two])) == [one, two]


def test_a_worker_without_a_name_is_asked_without_one() -> None:
    asks = dispatch(agent_name="")
    assert found(asks, who=candidate(agent_name="")) == Fits(asks, "untargeted")


@pytest.mark.parametrize("newest_first", [True, False])
def test_of_several_dispatches_the_last_one_is_meant(newest_first: bool) -> None:
    old = dispatch(THEIRS, NOW - 100, dispatch_id="old")
    new = dispatch(OURS, NOW - 50, dispatch_id="new")
    both = [new, old] if newest_first else [old, new]
    assert found(*both) == Fits(new, "target")


def test_a_dispatch_for_another_agent_is_never_the_last_one() -> None:
    ours = dispatch(OURS, NOW - 100)
    assert found(ours, dispatch(THEIRS, NOW - 50, agent_name="sales")) == Fits(ours, "target")


# An agent may still come the regular way


def test_the_regular_way_gets_all_the_time_that_livekit_gives_it() -> None:
    chain_of_offers_s = 3.0
    assert chain_of_offers_s <= OFFER_S
    assert JOIN_S > OFFER_S


@pytest.mark.parametrize("metadata", ["", OURS, THEIRS, THEIRS_FIRST, BROKEN])
def test_a_fresh_dispatch_is_left_to_the_dispatcher(metadata: str) -> None:
    asks = dispatch(metadata, NOW)
    assert found(asks, now_s=NOW + OFFER_S - 0.001) == Until((), NOW + OFFER_S)


def test_a_dispatch_that_nobody_took_counts_as_dropped_once_the_offers_are_over() -> None:
    asks = dispatch(OURS, NOW)
    assert found(asks, now_s=NOW + OFFER_S) == Fits(asks, "target")


def test_an_agent_that_took_a_job_gets_time_to_join() -> None:
    asks = dispatch(OURS, jobs=[job(started_s=NOW)])
    assert found(asks, now_s=NOW + JOIN_S - 0.001) == Until((), NOW + JOIN_S)
    assert found(asks, now_s=NOW + JOIN_S) == Fits(asks, "target")


@pytest.mark.parametrize("created_s", [NOW, LONG_AGO])
def test_once_a_job_was_taken_the_age_of_its_dispatch_does_not_matter(created_s: float) -> None:
    asks = dispatch(OURS, created_s, [job(started_s=NOW - 1)])
    assert found(asks) == Until((), NOW - 1 + JOIN_S)


@pytest.mark.parametrize("status", sorted(set(JobStatus.values()) - {JobStatus.JS_RUNNING}))
def test_nobody_comes_from_a_job_that_does_not_run(status: JobStatus) -> None:
    asks = dispatch(OURS, NOW, [job(started_s=NOW, status=status)])
    assert found(asks) == Fits(asks, "target")


def test_a_job_that_is_known_to_be_dead_is_not_waited_for() -> None:
    asks = dispatch(OURS, NOW, [job("dead", started_s=NOW)])
    assert found(asks, dead_jobs=["other", "dead"]) == Fits(asks, "target")
    assert found(asks, dead_jobs=["other"]) == Until((), NOW + JOIN_S)


def test_a_dead_job_does_not_hide_one_that_lives() -> None:
    dead, alive = job("dead", started_s=NOW), job("alive", started_s=NOW - 1)
    for jobs in ([dead, alive], [alive, dead]):
        asks = dispatch(OURS, jobs=jobs)
        assert found(asks, dead_jobs=["dead"]) == Until((), NOW - 1 + JOIN_S)


def test_whoever_comes_last_is_waited_for() -> None:
    first, last = job("1", started_s=NOW - 3), job("2", started_s=NOW - 1)
    until_s = NOW - 1 + JOIN_S
    for jobs in ([first, last], [last, first]):
        assert found(dispatch(OURS, jobs=jobs)) == Until((), until_s)
    for dispatches in (
        [dispatch(jobs=[first]), dispatch(jobs=[last])],
        [dispatch(jobs=[last]), dispatch(jobs=[first])],
        [dispatch(jobs=[last]), dispatch(created_s=NOW - 1)],
        [dispatch(created_s=NOW - 1), dispatch(jobs=[last])],
    ):
        assert found(*dispatches) == Until((), until_s)


def test_an_older_dispatch_may_still_bring_an_agent() -> None:
    old = dispatch(OURS, NOW - 100, [job(started_s=NOW)])
    assert found(old, dispatch(OURS, NOW - 50)) == Until((), NOW + JOIN_S)


def test_an_agent_of_another_name_on_its_way_is_not_waited_for() -> None:
    asks = dispatch(OURS)
    other = dispatch(OURS, NOW, agent_name="sales")
    taken = dispatch(OURS, jobs=[job(started_s=NOW)], deployment="eu")
    assert found(asks, other, taken) == Fits(asks, "target")


# A team has ended it


def refused_for_all(metadata: str = OURS, created_s: float = LONG_AGO) -> AgentDispatch:
    ended = job(started_s=created_s, status=JobStatus.JS_SUCCESS, identity="")
    return dispatch(metadata, created_s, [ended], dispatch_id="ended")


@pytest.mark.parametrize("metadata", ["", OURS, THEIRS, THEIRS_FIRST])
def test_nobody_adopts_what_a_request_handler_has_ended(metadata: str) -> None:
    assert found(refused_for_all(metadata)) == NotAsked()
    assert found(refused_for_all(metadata, NOW)) == NotAsked()


@pytest.mark.parametrize("status", sorted(JobStatus.values()))
@pytest.mark.parametrize("identity", ["", "agent-J"])
def test_a_dispatch_was_ended_if_a_job_succeeded_without_a_participant(
    status: JobStatus, identity: str
) -> None:
    jobs = [job(started_s=NOW), job(started_s=NOW, status=status, identity=identity)]
    ended = (status, identity) == (JobStatus.JS_SUCCESS, "")
    assert was_ended(dispatch(jobs=jobs)) is ended


def test_whoever_dispatches_again_after_that_is_heard() -> None:
    again = dispatch(OURS, NOW - 50, dispatch_id="again")
    assert found(refused_for_all(), again) == Fits(again, "target")
    ended_last = refused_for_all(OURS, NOW - 20)
    assert found(again, ended_last) == NotAsked()


# Whose build may serve it


@pytest.mark.parametrize("untargeted", ["accept", "reject"])
def test_the_target_of_a_room_may_serve_it(untargeted: Policy) -> None:
    asks = dispatch(OURS)
    assert found(asks, untargeted=untargeted) == Fits(asks, "target")


@pytest.mark.parametrize("metadata", ["", "not JSON", BROKEN])
def test_a_room_that_names_no_build_is_left_to_the_policy(metadata: str) -> None:
    asks = dispatch(metadata)
    assert found(asks, untargeted="accept") == Fits(asks, "untargeted")
    assert found(asks, untargeted="reject") == NotAsked()


def test_room_metadata_names_the_target_where_the_dispatch_does_not() -> None:
    asks = dispatch()
    assert found(asks, room_metadata=OURS) == Fits(asks, "target")
    assert found(asks, room_metadata=THEIRS) == Until(("theirs", "1.4.2"), None)


def test_dispatch_metadata_wins_over_room_metadata() -> None:
    ours, theirs = dispatch(OURS), dispatch(THEIRS)
    assert found(ours, room_metadata=THEIRS) == Fits(ours, "target")
    assert found(theirs, room_metadata=OURS) == Until(("theirs", "1.4.2"), None)


@pytest.mark.parametrize("untargeted", ["accept", "reject"])
def test_another_builds_room_waits_for_it_forever(untargeted: Policy) -> None:
    waits = found(dispatch(THEIRS, 1.0), untargeted=untargeted)
    assert waits == Until(("theirs", "1.4.2"), None)


def test_the_fallback_comes_due_after_its_wait_and_not_before() -> None:
    asks = dispatch(THEIRS_FIRST, NOW - FALLBACK_S)
    assert found(asks, now_s=NOW - 0.001) == Until(("theirs",), NOW)
    assert found(asks, now_s=NOW) == Fits(asks, "fallback")


@pytest.mark.parametrize("latest", ["dispatch", "user", "agent"])
def test_the_wait_begins_when_a_user_first_had_no_agent(latest: str) -> None:
    begins_s = NOW - 10.5
    asks = dispatch(THEIRS_FIRST, begins_s if latest == "dispatch" else NOW - 500)
    users = [participant(joined_s=begins_s if latest == "user" else NOW - 400)]
    served_s = begins_s if latest == "agent" else NOW - 300
    waits = found(asks, participants=users, served_s=served_s)
    assert waits == Until(("theirs",), begins_s + FALLBACK_S)


@pytest.mark.parametrize("kind", sorted(USER_KINDS))
def test_the_wait_is_that_of_the_user_who_came_first(
    kind: ParticipantInfo.Kind,
) -> None:
    first, later = participant(kind, joined_s=NOW - 20), participant(joined_s=NOW - 2)
    for users in ([first, later], [later, first]):
        waits = found(dispatch(THEIRS_FIRST), participants=users)
        assert waits == Until(("theirs",), NOW - 20 + FALLBACK_S)


@pytest.mark.parametrize("kind", [*OTHER_KINDS, KINDS.AGENT])
def test_nobody_but_users_waits(kind: ParticipantInfo.Kind) -> None:
    others = [participant(kind, joined_s=at_s, name="sales") for at_s in (LONG_AGO, NOW)]
    waits = found(dispatch(THEIRS_FIRST), participants=[*others, participant(joined_s=NOW - 20)])
    assert waits == Until(("theirs",), NOW - 20 + FALLBACK_S)


def test_a_server_that_knows_no_milliseconds_tells_seconds() -> None:
    user = ParticipantInfo(joined_at=int(NOW - 20))
    waits = found(dispatch(THEIRS_FIRST), participants=[user])
    assert waits == Until(("theirs",), NOW - 20 + FALLBACK_S)


def test_a_worker_that_takes_only_its_own_jobs_takes_no_fallback() -> None:
    waits = found(dispatch(THEIRS_FIRST, 1.0), untargeted="reject")
    assert waits == Until(("theirs",), None)


def test_a_last_dispatch_without_a_fallback_takes_an_earlier_one_back() -> None:
    old, new = dispatch(THEIRS_FIRST, LONG_AGO), dispatch(THEIRS, NOW - 50)
    assert found(old, new) == Until(("theirs", "1.4.2"), None)


# Several dispatches for one agent

FRENCH: Final = json.dumps({"agent_build": "ours", "language": "fr"})
GERMAN: Final = json.dumps({"agent_build": "ours", "language": "de"})
GERMAN_OF_THEIRS: Final = json.dumps({"agent_build": "theirs", "language": "de"})


def french(created_s: float = NOW - 100, jobs: Iterable[Job] = ()) -> AgentDispatch:
    return dispatch(FRENCH, created_s, jobs, dispatch_id="fr")


def german(
    metadata: str = GERMAN, created_s: float = NOW - 50, jobs: Iterable[Job] = ()
) -> AgentDispatch:
    return dispatch(metadata, created_s, jobs, dispatch_id="de")


def serving(dispatch_id: str) -> ParticipantInfo:
    return participant(KINDS.AGENT, name=NAME, serves=dispatch_id)


def test_of_two_dispatches_that_wait_the_older_one_comes_first() -> None:
    fr, de = french(), german()
    assert found(fr, de) == Fits(fr, "target")
    assert found(de, fr) == Fits(fr, "target")


def test_a_room_is_adopted_for_the_dispatch_whose_agent_is_missing_and_no_other() -> None:
    fr, de = french(), german()
    assert found(fr, de, participants=[participant(), serving("fr")]) == Fits(de, "target")
    assert found(fr, de, participants=[participant(), serving("de")]) == Fits(fr, "target")
    both = [participant(), serving("de"), serving("fr")]
    assert found(fr, de, participants=both) == Served()


def test_a_dispatch_that_waits_for_another_build_holds_up_no_other() -> None:
    fr, de = french(), german(GERMAN_OF_THEIRS)
    assert found(de, fr) == Fits(fr, "target")
    half = [participant(), serving("fr")]
    assert found(de, fr, participants=half) == Until(("theirs",), None)


def test_nor_does_one_whose_agent_is_on_its_way() -> None:
    fr = french(jobs=[job(started_s=NOW - 1)])
    de = german()
    assert found(fr, de) == Fits(de, "target")
    half = [participant(), serving("de")]
    assert found(fr, de, participants=half) == Until((), NOW - 1 + JOIN_S)


def test_nor_does_one_that_was_ended_or_that_nobody_here_may_serve() -> None:
    ended = french(jobs=[job(started_s=NOW, status=JobStatus.JS_SUCCESS, identity="")])
    de = german()
    assert found(ended, de) == Fits(de, "target")
    assert found(ended, de, participants=[participant(), serving("de")]) == Served()
    untargeted = dispatch('{"language": "fr"}', NOW - 100, dispatch_id="fr")
    assert found(untargeted, de, untargeted="reject") == Fits(de, "target")


def test_a_room_of_which_several_roles_wait_says_what_for_and_until_when() -> None:
    patient = json.dumps(
        {"agent_build": {"id": "1.4.2", "fallback": "any", "wait": FALLBACK_S}, "language": "fr"}
    )
    fr = dispatch(patient, NOW - 10, dispatch_id="fr")
    de = german(GERMAN_OF_THEIRS)
    assert found(fr, de) == Until(("theirs", "1.4.2"), NOW - 10 + FALLBACK_S)


def test_dispatches_that_differ_in_nothing_but_the_build_are_one_role() -> None:
    before = german(GERMAN, NOW - 80)
    again = dispatch(GERMAN_OF_THEIRS, NOW - 50, dispatch_id="again")
    assert found(before, again) == Until(("theirs",), None)
    assert found(before, again, participants=[participant(), serving("de")]) == Served()
    assert found(before, again, participants=[participant(), serving("again")]) == Served()


def test_an_offer_that_only_this_build_may_take_is_told_whatever_else_waits() -> None:
    fr, de = french(NOW - 1), german(GERMAN_OF_THEIRS, NOW - 1)
    for dispatches in ([fr, de], [de, fr]):
        finding = judged(*dispatches, participants=[])
        assert isinstance(finding, Waiting)
        assert (finding.offered, finding.only_ours) == (True, True)
    finding = judged(french(), german(GERMAN_OF_THEIRS, NOW - 1), adoptable_in_s=lambda _: math.inf)
    assert isinstance(finding, Waiting)
    assert (finding.offered, finding.only_ours) == (True, False)


def test_what_may_not_be_adopted_yet_is_waited_for_and_holds_up_no_other() -> None:
    fr, de = french(), german()

    def paused(fits: Fits) -> float:
        return 8.0 if fits.dispatch.id == "fr" else 0.0

    assert found(fr, adoptable_in_s=paused) == Until((), NOW + 8)
    assert found(fr, de, adoptable_in_s=paused) == Fits(de, "target")


def test_what_may_never_be_adopted_gives_no_reason_to_look_again() -> None:
    assert found(french(), adoptable_in_s=lambda _: math.inf) == Until((), None)


def test_each_dispatch_has_waited_since_its_own_agent_was_last_seen() -> None:
    fr, de = french(), german()
    finding = judge(
        candidate(),
        participants=[participant()],
        dispatches=[fr, de],
        served=("fr",),
        asked=lambda each: asked_by(dispatch_metadata=each.metadata, room_metadata=""),
        dead_jobs=(),
        age=Ages().at(NOW, NOW),
        served_ago_s=lambda each: {"fr": 0.0, "de": 7.0}[each.id],
    )
    assert isinstance(finding, Fits)
    assert finding.waited_s == 7.0


# Whatever a server says, there is one finding, and it says when to look again

METADATA: Final = st.sampled_from(
    ["", OURS, THEIRS, THEIRS_FIRST, BROKEN, "{", FRENCH, GERMAN, GERMAN_OF_THEIRS]
)
TIMES: Final = st.sampled_from([0.0, NOW, NOW - 1, NOW - OFFER_S, NOW - JOIN_S]) | st.floats(
    NOW - 100, NOW + 100
)
JOBS: Final = st.builds(
    job,
    st.sampled_from(["1", "2", "3"]),
    started_s=TIMES,
    status=st.sampled_from([*JobStatus.values(), JobStatus.JS_RUNNING]),
)


def dispatches_with(metadata: st.SearchStrategy[str]) -> st.SearchStrategy[list[AgentDispatch]]:
    each = st.builds(
        dispatch,
        metadata,
        TIMES,
        st.lists(JOBS, max_size=2),
        st.sampled_from("12345"),
        agent_name=st.sampled_from([NAME, NAME, NAME, "sales"]),
    )
    return st.lists(each, max_size=3, unique_by=lambda each: each.id)


ONE_ROLE: Final = dispatches_with(st.sampled_from(["", OURS, THEIRS, THEIRS_FIRST, BROKEN]))
SEVERAL_ROLES: Final = dispatches_with(METADATA)
PARTICIPANTS: Final = st.builds(
    participant, st.sampled_from(sorted(KINDS.values())), name=st.just("sales"), joined_s=TIMES
)
ROOMS: Final = st.fixed_dictionaries(
    {
        "untargeted": st.sampled_from(["accept", "reject"]),
        "participants": st.lists(PARTICIPANTS, max_size=2).map(
            lambda others: [*others, participant()]
        ),
        "room_metadata": METADATA,
        "dead_jobs": st.sets(st.sampled_from(["1", "2"])),
        "served_s": TIMES,
    }
)


@given(dispatches=SEVERAL_ROLES, room=ROOMS, now_s=TIMES)
@example(dispatches=[AgentDispatch(agent_name=NAME)], room={}, now_s=0.0)
@example(
    dispatches=[dispatch(THEIRS_FIRST, 1.0)],
    room={"participants": [ParticipantInfo()]},
    now_s=1e12,
)
def test_every_room_gets_one_finding_that_moves_on(
    dispatches: list[AgentDispatch], room: dict[str, Any], now_s: float
) -> None:
    finding = found(*dispatches, **room, now_s=now_s)
    assert isinstance(finding, (*get_args(Finding), Until))
    assert not isinstance(finding, Served | Empty)
    if isinstance(finding, Fits):
        assert finding.dispatch in candidate().asked_in(dispatches)
    if isinstance(finding, Until):
        assert finding.until_s is None or finding.until_s > now_s
        assert finding.names or finding.until_s is not None


@given(dispatches=ONE_ROLE, room=ROOMS, now_s=TIMES)
def test_whoever_looks_again_when_told_to_learns_the_end_in_two_looks(
    dispatches: list[AgentDispatch], room: dict[str, Any], now_s: float
) -> None:
    ages = Ages()
    finding = found(*dispatches, **room, now_s=now_s, ages=ages)
    looks = 0
    while isinstance(finding, Until) and finding.until_s is not None:
        looks += 1
        assert looks <= 2
        finding = found(*dispatches, **room, now_s=finding.until_s, ages=ages)
    if looks:
        assert found(*dispatches, **room, now_s=NOW + 10_000, ages=ages) == finding


@given(room=ROOMS, created_s=TIMES, jobs=st.lists(JOBS, max_size=2), now_s=TIMES)
def test_no_build_but_the_target_ever_serves_a_room_without_a_fallback(
    room: dict[str, Any], created_s: float, jobs: list[Job], now_s: float
) -> None:
    assert isinstance(found(dispatch(THEIRS, created_s, jobs), **room, now_s=now_s), Until)


# What else a finding tells


def test_a_room_that_only_this_build_may_serve_is_told_apart() -> None:
    both = json.dumps({"agent_build": ["ours", "theirs"]})
    anybody = json.dumps({"agent_build": ["ours", "any"]})
    patient = json.dumps({"agent_build": {"id": "ours", "fallback": "any", "wait": 5}})
    twice = json.dumps({"agent_build": ["ours", "ours"]})
    for metadata, only_ours in (
        (OURS, True),
        (twice, True),
        (both, False),
        (anybody, False),
        (patient, False),
        ("", False),
    ):
        for asks in (dispatch(metadata), dispatch(metadata, NOW)):
            finding = judged(asks)
            assert isinstance(finding, Fits | Waiting)
            assert finding.only_ours is only_ours


def test_an_offer_and_an_agent_that_took_one_are_told_apart() -> None:
    offered = judged(dispatch(OURS, NOW - 1))
    assert isinstance(offered, Waiting)
    assert (offered.offered, offered.in_s) == (True, OFFER_S - 1)
    taken = judged(dispatch(OURS, jobs=[job(started_s=NOW - 1)]))
    assert isinstance(taken, Waiting)
    assert (taken.offered, taken.in_s) == (False, JOIN_S - 1)


@pytest.mark.parametrize("latest", ["dispatch", "user", "agent"])
def test_a_room_has_waited_since_the_last_thing_it_waits_for(latest: str) -> None:
    begins_s = NOW - 10.5
    finding = judged(
        dispatch(OURS, begins_s if latest == "dispatch" else NOW - 500),
        participants=[participant(joined_s=begins_s if latest == "user" else NOW - 400)],
        served_s=begins_s if latest == "agent" else NOW - 300,
    )
    assert isinstance(finding, Fits)
    assert finding.waited_s == 10.5
    assert finding.asked_s == (10.5 if latest == "dispatch" else 500)


def test_an_offer_into_a_room_without_a_user_is_told_too() -> None:
    offered = judged(dispatch(OURS, NOW - 1), participants=[])
    assert isinstance(offered, Waiting)
    assert offered.offered


@pytest.mark.parametrize("server_is_ahead_s", [-3600.0, -60.0, -10.0, 0.0, 10.0, 3600.0])
def test_the_workers_own_clock_never_meets_the_servers(server_is_ahead_s: float) -> None:
    server_now_s = NOW + server_is_ahead_s
    asks = dispatch(OURS, server_now_s - OFFER_S)
    finding = judge(
        candidate(),
        participants=[participant(joined_s=server_now_s - 1)],
        dispatches=[asks],
        asked=lambda each: asked_by(dispatch_metadata=each.metadata, room_metadata=""),
        served=(),
        dead_jobs=(),
        age=Ages().at(7.0, server_now_s),
    )
    assert isinstance(finding, Fits)
