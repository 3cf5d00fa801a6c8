"""Which agents are in a room, and which of its dispatches they serve."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit import rtc
from livekit.agents.telemetry.trace_types import ATTR_AGENT_NAME
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF
from livekit.protocol.agent import Job
from livekit.protocol.agent_dispatch import AgentDispatch, AgentDispatchState
from livekit.protocol.models import ParticipantInfo, Room

from build_aware.dispatch import attributes
from build_aware.dispatch.agents import AGENT, AgentSeen, by_role, of_job, role_of, served
from build_aware.dispatch.attributes import (
    AGENT_NAME,
    ASKED,
    DISPATCH,
    JOB,
    PUBLISHES_FOR,
    asked,
)
from build_aware.identity.build import Build

NAME: Final = "interpreter"
KINDS: Final = ParticipantInfo.Kind

FRENCH: Final = json.dumps({"language": "fr"})
GERMAN: Final = json.dumps({"language": "de"})
FRENCH_FROM_A: Final = json.dumps({"agent_build": "build-A", "language": "fr"})
FRENCH_FROM_B: Final = json.dumps({"language": "fr", "agent_build": ["build-B"]})


def dispatch(
    dispatch_id: str,
    metadata: str = "",
    *,
    created: int = 0,
    agent_name: str = NAME,
    deployment: str = "",
) -> AgentDispatch:
    return AgentDispatch(
        id=dispatch_id,
        agent_name=agent_name,
        deployment=deployment,
        metadata=metadata,
        state=AgentDispatchState(created_at=created),
    )


def ours(dispatch_id: str, metadata: str = "", deployment: str = "") -> AgentSeen:
    """An agent of a build-aware worker."""
    return AgentSeen(
        agent_name=NAME, dispatch_id=dispatch_id, asked=asked(deployment, metadata), job_id="AJ_1"
    )


def stock(agent_name: str | None = NAME, sid: str = "PA_stock") -> AgentSeen:
    """An agent of a stock worker; one of an old server tells no name."""
    return AgentSeen(sid=sid, agent_name=agent_name)


def served_ids(dispatches: list[AgentDispatch], *agents: AgentSeen) -> set[str]:
    """The same for every order of both."""
    answers = {
        frozenset(served(some_dispatches, some_agents))
        for some_dispatches in itertools.permutations(dispatches)
        for some_agents in itertools.permutations(agents)
    }
    (answer,) = answers
    return set(answer)


FR_AND_DE: Final = [dispatch("fr", FRENCH, created=1), dispatch("de", GERMAN, created=2)]


# Who is an agent


def info(
    kind: ParticipantInfo.Kind = KINDS.AGENT, attributes: dict[str, str] | None = None
) -> ParticipantInfo:
    return ParticipantInfo(sid="PA_1", identity="ada", kind=kind, attributes=attributes)


@dataclass
class Remote:
    """What stands in for a participant as a room shows it."""

    kind: int = AGENT
    attributes: dict[str, str] = field(default_factory=dict)
    sid: str = "PA_1"
    identity: str = "ada"


def of_remote(remote: Remote) -> AgentSeen | None:
    return AgentSeen.of_remote(cast(rtc.RemoteParticipant, remote))


ALL_ATTRIBUTES: Final = {AGENT_NAME: NAME, DISPATCH: "AD_1", ASKED: "01234567", JOB: "AJ_1"}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, AgentSeen(sid="PA_1", identity="ada")),
        ({AGENT_NAME: ""}, AgentSeen(sid="PA_1", identity="ada", agent_name="")),
        (
            ALL_ATTRIBUTES | {"build.id": "build-A"},
            AgentSeen(
                sid="PA_1",
                identity="ada",
                agent_name=NAME,
                dispatch_id="AD_1",
                asked="01234567",
                job_id="AJ_1",
                build="build-A",
            ),
        ),
    ],
)
def test_an_agent_is_what_its_attributes_tell(
    attributes: dict[str, str], expected: AgentSeen
) -> None:
    assert AgentSeen.of_info(info(attributes=attributes)) == expected
    assert of_remote(Remote(attributes=attributes)) == expected


@pytest.mark.parametrize("kind", sorted(set(KINDS.values()) - {KINDS.AGENT}))
def test_only_livekits_kind_makes_an_agent_not_what_somebody_says(
    kind: ParticipantInfo.Kind,
) -> None:
    assert AgentSeen.of_info(info(kind, ALL_ATTRIBUTES)) is None


@pytest.mark.parametrize(
    "kind", sorted(set(rtc.ParticipantKind.values()) - {rtc.ParticipantKind.PARTICIPANT_KIND_AGENT})
)
def test_in_a_room_too(kind: int) -> None:
    assert of_remote(Remote(kind, ALL_ATTRIBUTES)) is None


def test_an_agent_has_one_number_in_the_api_and_in_a_room() -> None:
    assert int(AGENT) == int(rtc.ParticipantKind.PARTICIPANT_KIND_AGENT)


@pytest.mark.parametrize("speaks_for", ["agent-1", ""])
def test_an_avatar_speaks_for_an_agent_and_is_none(speaks_for: str) -> None:
    attributes = ALL_ATTRIBUTES | {PUBLISHES_FOR: speaks_for}
    assert AgentSeen.of_info(info(attributes=attributes)) is None
    assert of_remote(Remote(attributes=attributes)) is None


def test_agents_and_avatars_are_known_by_livekits_own_attributes() -> None:
    assert AGENT_NAME == ATTR_AGENT_NAME
    assert PUBLISHES_FOR == ATTRIBUTE_PUBLISH_ON_BEHALF


def test_the_agent_of_a_job_is_what_it_will_tell_of_itself() -> None:
    job = Job(
        id="AJ_1",
        dispatch_id="AD_1",
        agent_name=NAME,
        deployment="eu",
        metadata=FRENCH,
        room=Room(name="call"),
    )
    assert AgentSeen.of_job(job) == AgentSeen(
        agent_name=NAME, dispatch_id="AD_1", asked=asked("eu", FRENCH), job_id="AJ_1"
    )


def test_a_job_tells_its_dispatch() -> None:
    job = Job(
        id="AJ_1",
        dispatch_id="AD_1",
        agent_name=NAME,
        deployment="eu",
        metadata=FRENCH,
        attributes={"tier": "gold"},
    )
    assert of_job(job) == AgentDispatch(
        id="AD_1",
        agent_name=NAME,
        deployment="eu",
        metadata=FRENCH,
        attributes={"tier": "gold"},
    )


# What is one role


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("", "", True, id="nothing"),
        pytest.param(FRENCH, FRENCH, True, id="the same"),
        pytest.param(FRENCH, GERMAN, False, id="another language"),
        pytest.param(FRENCH_FROM_A, FRENCH_FROM_B, True, id="another build"),
        pytest.param(FRENCH, FRENCH_FROM_A, True, id="a build and none"),
        pytest.param("", '{"agent_build": "build-A"}', True, id="a build and nothing at all"),
        pytest.param(FRENCH_FROM_A, '{"agent_build": "build-A"}', False, id="the same build"),
        pytest.param('{"a":1,"b":2}', '{ "b": 2, "a": 1 }', True, id="written otherwise"),
        pytest.param("hello", "", False, id="text and nothing"),
        pytest.param("hello", "hello", True, id="the same text"),
        pytest.param("hello", "Hello", False, id="other text"),
    ],
)
def test_a_role_is_what_metadata_says_beside_the_build(one: str, other: str, same: bool) -> None:
    roles = by_role([dispatch("1", one, created=1), dispatch("2", other, created=2)])
    assert len(roles) == (1 if same else 2)
    assert (role_of(dispatch("1", one)) == role_of(dispatch("2", other))) is same


@pytest.mark.parametrize(("agent_name", "deployment"), [("", ""), ("sales", ""), (NAME, "eu")])
def test_another_agent_and_another_deployment_are_other_roles(
    agent_name: str, deployment: str
) -> None:
    other = dispatch("2", FRENCH, agent_name=agent_name, deployment=deployment)
    assert len(by_role([dispatch("1", FRENCH), other])) == 2


def test_roles_and_their_dispatches_come_oldest_first() -> None:
    dispatches = [
        dispatch("fr-1", FRENCH, created=1),
        dispatch("de", GERMAN, created=2),
        dispatch("fr-2", FRENCH_FROM_A, created=3),
    ]
    for some in itertools.permutations(dispatches):
        roles = [[each.id for each in role] for role in by_role(some)]
        assert roles == [["fr-1", "fr-2"], ["de"]]


def test_dispatches_that_are_equally_old_come_in_one_order_everywhere() -> None:
    one, other = dispatch("1"), dispatch("2")
    assert by_role([one, other]) == by_role([other, one]) == [[one, other]]


# Who serves what: an agent whose dispatch is listed


def test_where_nobody_is_nothing_is_served() -> None:
    assert served(FR_AND_DE, []) == {}
    assert served([], [stock(), ours("fr")]) == {}


def test_an_agent_serves_the_dispatch_that_its_job_was_made_of() -> None:
    agent = ours("de", GERMAN)
    assert served(FR_AND_DE, [agent]) == {"de": agent}


def test_two_dispatches_of_one_agent_are_two_agents() -> None:
    french, german = ours("fr", FRENCH), ours("de", GERMAN)
    assert served(FR_AND_DE, [german, french]) == {"fr": french, "de": german}


def test_two_agents_for_one_dispatch_leave_the_other_one_without() -> None:
    assert served_ids(FR_AND_DE, ours("de", GERMAN), ours("de", GERMAN)) == {"de"}


def test_an_agent_for_one_dispatch_of_a_role_serves_the_role() -> None:
    dispatches = [
        dispatch("1", FRENCH_FROM_A, created=1),
        dispatch("2", FRENCH_FROM_B, created=2),
        dispatch("de", GERMAN, created=3),
    ]
    assert served_ids(dispatches, ours("1", FRENCH_FROM_A)) == {"1", "2"}
    assert served_ids(dispatches, ours("2", FRENCH_FROM_B)) == {"1", "2"}


def test_the_dispatch_tells_more_than_all_else() -> None:
    agent = AgentSeen(agent_name=NAME, dispatch_id="de", asked=asked("", FRENCH))
    assert served_ids(FR_AND_DE, agent) == {"de"}


# An agent whose dispatch is not listed: the server was restarted


def test_an_agent_from_before_a_restart_stands_for_what_asks_for_the_same() -> None:
    assert served_ids(FR_AND_DE, ours("gone", GERMAN)) == {"de"}
    assert served_ids(FR_AND_DE, ours("gone", GERMAN), ours("gone too", FRENCH)) == {"fr", "de"}


def test_it_stands_for_nothing_else() -> None:
    assert served_ids(FR_AND_DE, ours("gone", '{"language": "it"}')) == set()
    assert served_ids(FR_AND_DE, ours("gone", GERMAN, "eu")) == set()
    sales = dispatch("sales", GERMAN, agent_name="sales")
    assert served_ids([sales], ours("gone", GERMAN)) == set()


def test_it_stands_for_nothing_that_has_its_own_agent() -> None:
    own, other = ours("de", GERMAN), ours("gone", GERMAN)
    assert served(FR_AND_DE, [other, own]) == {"de": own}


def test_it_serves_the_role_that_was_asked_for_again() -> None:
    dispatches = [dispatch("1", FRENCH_FROM_A, created=1), dispatch("2", FRENCH_FROM_B, created=2)]
    assert served_ids(dispatches, ours("gone", FRENCH_FROM_A)) == {"1", "2"}


def test_an_agent_that_tells_what_it_was_asked_for_but_no_name_goes_by_that() -> None:
    nameless = AgentSeen(dispatch_id="gone", asked=asked("", GERMAN))
    assert served_ids(FR_AND_DE, nameless) == {"de"}


# Agents of stock workers


def test_a_stock_agent_stands_for_the_oldest_dispatch_of_its_name() -> None:
    sales = dispatch("sales", created=0, agent_name="sales")
    assert served_ids([*FR_AND_DE, sales], stock()) == {"fr"}


def test_and_the_next_one_for_the_next() -> None:
    agents = [stock(sid="PA_1"), stock(sid="PA_2"), stock(sid="PA_3")]
    assert served_ids(FR_AND_DE, *agents[:2]) == {"fr", "de"}
    assert served_ids(FR_AND_DE, *agents) == {"fr", "de"}


def test_it_takes_no_place_of_an_agent_that_knows_its_own() -> None:
    assert served_ids(FR_AND_DE, stock(), ours("fr", FRENCH)) == {"fr", "de"}
    assert served_ids(FR_AND_DE, stock(), ours("gone", FRENCH)) == {"fr", "de"}


@pytest.mark.parametrize("name", ["sales", "", NAME.upper()])
def test_an_agent_of_another_name_serves_nothing(name: str) -> None:
    assert served_ids(FR_AND_DE, stock(name)) == set()


def test_the_oldest_is_whose_role_was_asked_for_first() -> None:
    dispatches = [
        dispatch("fr-1", FRENCH, created=1),
        dispatch("de", GERMAN, created=2),
        dispatch("fr-2", FRENCH_FROM_A, created=3),
    ]
    assert served_ids(dispatches, stock()) == {"fr-1", "fr-2"}


def test_an_agent_that_tells_no_name_stands_for_the_oldest_of_any() -> None:
    sales = dispatch("sales", created=0, agent_name="sales")
    assert served_ids([*FR_AND_DE, sales], stock(None)) == {"sales"}
    assert served_ids(FR_AND_DE, stock(None)) == {"fr"}
    assert served_ids(FR_AND_DE, stock(None), stock(NAME)) == {"fr", "de"}
    assert served_ids([sales, FR_AND_DE[0]], stock(None), stock("sales")) == {"sales", "fr"}


def test_dispatches_without_a_name_have_agents_without_one() -> None:
    unnamed = dispatch("1", agent_name="")
    assert served_ids([unnamed], stock("")) == {"1"}
    assert served_ids([unnamed], stock(None)) == {"1"}
    assert served_ids([unnamed], stock(NAME)) == set()


# Whatever is there

METADATA: Final = st.sampled_from(["", FRENCH, GERMAN, FRENCH_FROM_A, FRENCH_FROM_B, "{"])
NAMES: Final = st.sampled_from([NAME, NAME, "sales", ""])
DISPATCHES: Final = st.lists(
    st.builds(
        dispatch,
        st.sampled_from("12345"),
        METADATA,
        created=st.integers(0, 3),
        agent_name=NAMES,
        deployment=st.sampled_from(["", "", "eu"]),
    ),
    max_size=4,
    unique_by=lambda each: each.id,
)
AGENTS: Final = st.lists(
    st.builds(
        AgentSeen,
        sid=st.uuids().map(str),
        agent_name=st.none() | NAMES,
        dispatch_id=st.none() | st.sampled_from("1234567"),
        asked=st.none() | st.builds(asked, st.sampled_from(["", "eu"]), METADATA),
    ),
    max_size=4,
)


@given(dispatches=DISPATCHES, agents=AGENTS)
def test_each_agent_serves_one_role_at_the_most_and_each_role_has_one(
    dispatches: list[AgentDispatch], agents: list[AgentSeen]
) -> None:
    answer = served(dispatches, agents)
    serving: dict[str | None, set[int]] = {}
    for number, role in enumerate(by_role(dispatches)):
        of_role = {answer.get(each.id) for each in role}
        assert len(of_role) == 1
        for agent in of_role - {None}:
            assert agent is not None
            serving.setdefault(agent.sid, set()).add(number)
    assert all(len(numbers) == 1 for numbers in serving.values())
    assert answer.keys() <= {each.id for each in dispatches}


@given(dispatches=DISPATCHES, agents=AGENTS, more=AGENTS)
def test_another_agent_takes_nothing_from_those_that_are_served(
    dispatches: list[AgentDispatch], agents: list[AgentSeen], more: list[AgentSeen]
) -> None:
    assert served(dispatches, agents).keys() <= served(dispatches, [*agents, *more]).keys()


@given(dispatches=DISPATCHES, agents=AGENTS)
def test_the_order_in_which_they_come_does_not_matter(
    dispatches: list[AgentDispatch], agents: list[AgentSeen]
) -> None:
    backwards = served(dispatches[::-1], agents[::-1])
    assert backwards.keys() == served(dispatches, agents).keys()


def test_an_agent_stands_for_the_same_that_another_build_is_asked_for() -> None:
    """A server was restarted, and the backend has dispatched again, to the new build by now."""
    told = attributes.of_job(Build("old"), Job(metadata='{"agent_build": "old", "a": 1}'))
    agent = AgentSeen(agent_name="", dispatch_id="gone", asked=told[attributes.ASKED])
    for metadata, stands in (('{"agent_build": "new", "a": 1}', True), ('{"a": 2}', False)):
        again = AgentDispatch(id="again", metadata=metadata)
        assert agent.may_stand_for(again) == stands
        assert (again.id in served([again], [agent])) == stands
