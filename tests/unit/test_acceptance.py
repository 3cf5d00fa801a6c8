from __future__ import annotations

import ast
import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from livekit.agents import AssignmentTimeoutError, JobRequest
from livekit.agents.job import JobAcceptArguments
from livekit.protocol.agent import Job
from livekit.protocol.models import Room
from prometheus_client import REGISTRY

from build_aware.dispatch import acceptance as acceptances
from build_aware.dispatch.acceptance import Acceptance, Decision, Reason, decide
from build_aware.dispatch.answers import Answers
from build_aware.dispatch.attributes import of_job
from build_aware.dispatch.rooms import Rooms
from build_aware.dispatch.target import EXPECTED, Asked, Malformed, Target, Untargeted
from build_aware.identity.build import Build
from tests.support.paths import ROOT

Policy = Literal["accept", "reject"]

BUILD: Final = Build(id="7f3c9a1e52d0", version="1.4.2")
OURS: Final = json.dumps({"agent_build": BUILD.id})
OTHERS: Final = json.dumps({"agent_build": "000000000000"})
BROKEN: Final = json.dumps({"agent_build": 5})


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("untargeted", ["accept", "reject"])
@pytest.mark.parametrize("name", [BUILD.id, "1.4.2", "any"])
def test_a_job_for_this_build_is_taken_unless_full(
    name: str, untargeted: Policy, full: bool
) -> None:
    decision = decide(Target(("other", name)), BUILD, untargeted=untargeted, full=full)
    assert decision == (Decision(False, "full") if full else Decision(True, "target"))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("untargeted", ["accept", "reject"])
@pytest.mark.parametrize("fallback", ["none", "any"])
def test_a_job_for_other_builds_is_left_to_them(
    fallback: Literal["none", "any"], untargeted: Policy, full: bool
) -> None:
    decision = decide(Target(("other",), fallback), BUILD, untargeted=untargeted, full=full)
    assert decision == Decision(False, "other-target")


@pytest.mark.parametrize(
    ("asked", "untargeted", "full", "decision"),
    [
        (Untargeted(), "accept", False, Decision(True, "untargeted")),
        (Untargeted(), "accept", True, Decision(False, "full")),
        (Untargeted(), "reject", False, Decision(False, "untargeted")),
        (Untargeted(), "reject", True, Decision(False, "untargeted")),
        (Malformed("5"), "accept", False, Decision(True, "malformed")),
        (Malformed("5"), "accept", True, Decision(False, "full")),
        (Malformed("5"), "reject", False, Decision(False, "malformed")),
        (Malformed("5"), "reject", True, Decision(False, "malformed")),
    ],
)
def test_a_job_that_names_no_build_is_left_to_the_policy(
    asked: Asked, untargeted: Policy, full: bool, decision: Decision
) -> None:
    assert decide(asked, BUILD, untargeted=untargeted, full=full) == decision


@pytest.mark.parametrize("full", [False, True])
def test_a_room_that_had_an_agent_before_an_outage_is_left_to_it(full: bool) -> None:
    for asked in (Target((BUILD.id,)), Untargeted(), Malformed("5")):
        decision = decide(asked, BUILD, untargeted="accept", full=full, held=True)
        assert decision == Decision(False, "held")
    others = decide(Target(("other",)), BUILD, untargeted="accept", full=full, held=True)
    assert others == Decision(False, "other-target")


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_a_job_that_names_no_build_is_left_to_the_one_that_the_rollout_wants(
    full: bool, held: bool
) -> None:
    def decided(asked: Asked, untargeted: Policy = "accept") -> Decision:
        return decide(asked, BUILD, untargeted=untargeted, full=full, held=held, wanted=False)

    assert decided(Untargeted()) == Decision(False, "rollout")
    assert decided(Malformed("5")) == Decision(False, "rollout")
    assert decided(Untargeted(), "reject") == Decision(False, "untargeted")


@pytest.mark.parametrize("names", [(BUILD.id,), ("other",), ("any",)])
def test_one_that_names_a_build_is_decided_as_if_there_were_no_rollout(
    names: tuple[str, ...],
) -> None:
    unwanted, wanted = (
        decide(Target(names), BUILD, untargeted="accept", full=False, wanted=wanted)
        for wanted in (False, True)
    )
    assert unwanted == wanted


# The handler, called with LiveKit's own kind of request


@dataclass
class Offer:
    """One offered job, and every answer to it."""

    room_metadata: str = ""
    dispatch_metadata: str = ""
    on_accepting: Callable[[], Awaitable[None]] | None = None
    accepted: list[JobAcceptArguments] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)
    """The value of `terminate` of every rejection."""

    @property
    def request(self) -> JobRequest:
        room = Room(name="a-room", metadata=self.room_metadata)
        job = Job(id="AJ_1", metadata=self.dispatch_metadata, room=room)
        return JobRequest(job=job, on_accept=self._on_accept, on_reject=self._on_reject)

    @property
    def answers(self) -> int:
        return len(self.accepted) + len(self.terminated)

    async def _on_accept(self, arguments: JobAcceptArguments) -> None:
        self.accepted.append(arguments)
        if self.on_accepting is not None:
            await self.on_accepting()

    async def _on_reject(self, terminate: bool) -> None:
        self.terminated.append(terminate)


def acceptance(
    *, untargeted: Policy = "accept", full: bool = False, build: Build = BUILD
) -> Acceptance:
    return Acceptance(
        build, untargeted=untargeted, is_full=lambda: full, rooms=Rooms(), on_answered=tell
    )


def tell(*answer: Any) -> None:
    """Tell an answer at once."""
    answers = Answers()
    answers.given(*answer)
    answers.tell_all()


@pytest.mark.parametrize(
    ("offer", "untargeted"),
    [
        (Offer(room_metadata=OURS), "reject"),
        (Offer(dispatch_metadata=OURS), "reject"),
        (Offer(dispatch_metadata=OURS, room_metadata=OTHERS), "reject"),
        (Offer(), "accept"),
        (Offer(room_metadata="not JSON"), "accept"),
        (Offer(room_metadata=BROKEN), "accept"),
    ],
)
async def test_a_job_is_accepted_once_and_its_agent_tells_build_and_job(
    offer: Offer, untargeted: Policy
) -> None:
    await acceptance(untargeted=untargeted)(offer.request)
    (arguments,) = offer.accepted
    attributes = of_job(BUILD, offer.request.job)
    assert attributes.items() > {("build.id", "7f3c9a1e52d0"), ("build.version", "1.4.2")}
    assert arguments.attributes == attributes
    assert offer.terminated == []


@pytest.mark.parametrize(
    ("offer", "untargeted", "full"),
    [
        (Offer(room_metadata=OTHERS), "accept", False),
        (Offer(dispatch_metadata=OTHERS), "accept", False),
        (Offer(dispatch_metadata=OTHERS, room_metadata=OURS), "accept", False),
        (Offer(), "reject", False),
        (Offer(room_metadata="not JSON"), "reject", False),
        (Offer(room_metadata=BROKEN), "reject", False),
        (Offer(room_metadata=OURS), "accept", True),
        (Offer(), "accept", True),
    ],
)
async def test_a_job_is_rejected_once_and_left_to_the_next_worker(
    offer: Offer, untargeted: Policy, full: bool
) -> None:
    await acceptance(untargeted=untargeted, full=full)(offer.request)
    assert offer.terminated == [False]
    assert offer.accepted == []


async def test_fullness_is_asked_for_at_every_offer() -> None:
    fullness = iter([False, True, False])
    handler = Acceptance(BUILD, untargeted="accept", is_full=lambda: next(fullness), rooms=Rooms())
    offers = [Offer(), Offer(), Offer()]
    for offer in offers:
        await handler(offer.request)
    assert [len(offer.accepted) for offer in offers] == [1, 0, 1]


async def test_a_job_counts_as_accepting_while_livekit_assigns_it() -> None:
    assigned = asyncio.Event()
    arrived = asyncio.Event()

    async def assign() -> None:
        arrived.set()
        await assigned.wait()

    handler = acceptance()
    assert handler.accepting == {}
    answering = asyncio.create_task(handler(Offer(on_accepting=assign).request))
    await arrived.wait()
    assert handler.accepting.keys() == {"AJ_1"}
    assigned.set()
    await answering
    assert handler.accepting == {}


async def test_a_rejected_job_never_counts_as_accepting() -> None:
    handler = acceptance(untargeted="reject")
    seen: list[int] = []

    async def on_reject(_: bool) -> None:
        seen.append(len(handler.accepting))

    async def on_accept(_: JobAcceptArguments) -> None:
        raise AssertionError("a job was accepted against the policy")

    request = JobRequest(job=Job(id="AJ_1"), on_accept=on_accept, on_reject=on_reject)
    await handler(request)
    assert seen == [0]


async def test_a_job_that_livekit_never_assigns_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def never() -> None:
        raise AssignmentTimeoutError

    handler, offer = acceptance(), Offer(on_accepting=never)
    await handler(offer.request)
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert record.levelno == logging.WARNING
    assert "never assigned" in record.getMessage()
    assert (vars(record)["job_id"], vars(record)["room"]) == ("AJ_1", "a-room")
    assert handler.accepting == {}
    assert offer.answers == 1


async def test_any_other_failure_is_livekits_to_see() -> None:
    async def fail() -> None:
        raise ConnectionError("gone")

    handler = acceptance()
    with pytest.raises(ConnectionError):
        await handler(Offer(on_accepting=fail).request)
    assert handler.accepting == {}


@pytest.mark.parametrize("untargeted", ["accept", "reject"])
async def test_a_malformed_target_is_one_warning_that_says_what_is_expected(
    caplog: pytest.LogCaptureFixture, untargeted: Policy
) -> None:
    caplog.set_level(logging.INFO)
    await acceptance(untargeted=untargeted)(Offer(room_metadata=BROKEN).request)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "malformed target" in record.getMessage()
    fields = vars(record)
    assert fields["room"] == "a-room"
    assert fields["found"] == "5"
    assert fields["expected"] == EXPECTED
    assert fields["answer"] == untargeted


async def test_every_other_decision_is_one_line_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    handler = acceptance()
    metadata = json.dumps({"agent_build": ["ü\n", "b" * 999]})
    await handler(Offer(room_metadata=metadata).request)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    fields = vars(record)
    assert (fields["job_id"], fields["room"]) == ("AJ_1", "a-room")
    assert (fields["answer"], fields["reason"]) == ("reject", "other-target")
    assert fields["target"].startswith(r"'\xfc\n or bbb")
    assert len(fields["target"]) <= 100


@pytest.mark.parametrize(
    ("offer", "untargeted", "full", "answer", "reason"),
    [
        (Offer(room_metadata=OURS), "accept", False, "accept", "target"),
        (Offer(room_metadata=OTHERS), "accept", False, "reject", "other-target"),
        (Offer(), "accept", False, "accept", "untargeted"),
        (Offer(), "reject", False, "reject", "untargeted"),
        (Offer(room_metadata=BROKEN), "accept", False, "accept", "malformed"),
        (Offer(room_metadata=BROKEN), "reject", False, "reject", "malformed"),
        (Offer(), "accept", True, "reject", "full"),
    ],
)
async def test_every_answer_is_counted_once_by_its_reason(
    offer: Offer, untargeted: Policy, full: bool, answer: Policy, reason: Reason
) -> None:
    before = jobs_offered()
    await acceptance(untargeted=untargeted, full=full)(offer.request)
    after = jobs_offered()
    grown = {labels: n - before.get(labels, 0) for labels, n in after.items()}
    assert {labels: n for labels, n in grown.items() if n} == {(answer, reason): 1}


def jobs_offered() -> dict[tuple[str, str], float]:
    return {
        (sample.labels["answer"], sample.labels["reason"]): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "agent_jobs_offered_total"
    }


def changes(before: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """What has been counted since."""
    now = jobs_offered()
    return {key: now[key] - before.get(key, 0) for key in now if now[key] != before.get(key, 0)}


# The team's own request handler, asked after ours


BY_THE_TEAM: Final = ("reject", "on_request")


class Team:
    """A request handler as teams write them.

    Attributes:
        asked: the requests that it got.
        told: the rooms of the jobs that this worker does not get to serve.
        began: ids of the jobs that it does.
        handler: ours, with the team's behind.
    """

    def __init__(
        self, answer: Callable[[JobRequest], Awaitable[object]], *, untargeted: Policy = "accept"
    ) -> None:
        self.asked: list[JobRequest] = []
        self.told: list[str] = []
        self.began: list[str] = []
        self._answer = answer
        self.handler = Acceptance(
            BUILD,
            untargeted=untargeted,
            is_full=lambda: False,
            rooms=Rooms(),
            team=self._on_request,
            on_answered=tell,
            on_refused=self.told.append,
            on_accepted=lambda job: self.began.append(job.id),
        )

    async def _on_request(self, request: JobRequest) -> None:
        self.asked.append(request)
        await self._answer(request)


@pytest.mark.parametrize(
    ("offer", "untargeted"),
    [(Offer(room_metadata=OTHERS), "accept"), (Offer(), "reject")],
)
async def test_the_team_is_not_asked_about_jobs_of_other_builds(
    offer: Offer, untargeted: Policy
) -> None:
    team = Team(lambda request: request.accept(), untargeted=untargeted)
    await team.handler(offer.request)
    assert (team.asked, offer.terminated) == ([], [False])


async def test_the_team_sees_livekits_own_kind_of_request() -> None:
    team, offer = Team(lambda request: request.accept()), Offer(room_metadata=OURS)
    await team.handler(offer.request)
    (request,) = team.asked
    assert type(request) is JobRequest
    assert (request.id, request.job, request.room.name) == ("AJ_1", offer.request.job, "a-room")


async def test_the_team_accepts_under_a_name_of_its_own_and_our_attributes_stay_ours() -> None:
    def accept(request: JobRequest) -> Awaitable[None]:
        return request.accept(
            name="Ada",
            identity="agent",
            metadata="theirs",
            attributes={"team": "blue", "build.id": "forged", "build.job": "forged"},
        )

    team, offer = Team(accept), Offer(dispatch_metadata=OURS)
    before = jobs_offered()
    await team.handler(offer.request)
    assert changes(before) == {("accept", "target"): 1}
    ours = of_job(BUILD, offer.request.job)
    assert offer.accepted == [
        JobAcceptArguments("Ada", "agent", "theirs", {"team": "blue"} | ours),
    ]
    assert ours["build.id"] == BUILD.id
    assert (offer.terminated, team.told, team.began) == ([], [], ["AJ_1"])


async def test_a_team_that_says_nothing_more_gets_livekits_own_identity() -> None:
    team, offer = Team(lambda request: request.accept()), Offer()
    await team.handler(offer.request)
    (arguments,) = offer.accepted
    assert (arguments.identity, arguments.name) == ("agent-AJ_1", "")
    assert arguments.attributes == of_job(BUILD, offer.request.job)


async def test_a_job_counts_as_accepting_while_the_team_thinks() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def think(request: JobRequest) -> None:
        asked.set()
        await answer.wait()
        await request.accept()

    team = Team(think)
    answering = asyncio.create_task(team.handler(Offer().request))
    await asked.wait()
    assert team.handler.accepting.keys() == {"AJ_1"}
    answer.set()
    await answering
    assert team.handler.accepting == {}


async def test_the_team_may_leave_a_job_to_the_next_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    team, offer = Team(lambda request: request.reject(terminate=False)), Offer()
    before = jobs_offered()
    await team.handler(offer.request)
    assert (offer.terminated, offer.accepted) == ([False], [])
    assert (team.told, team.began) == (["a-room"], [])
    assert changes(before) == {BY_THE_TEAM: 1}
    (record,) = caplog.records
    assert (vars(record)["answer"], vars(record)["reason"]) == BY_THE_TEAM


async def test_a_bare_reject_goes_to_livekit_as_written_and_is_explained_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    team, offers = Team(lambda request: request.reject()), [Offer(), Offer()]
    before = jobs_offered()
    for offer in offers:
        await team.handler(offer.request)
    assert [offer.terminated for offer in offers] == [[True], [True]]
    # It has ended for everybody: nobody adopts its room.
    assert team.told == []
    assert changes(before) == {BY_THE_TEAM: 2}
    (record,) = [r for r in caplog.records if "for all workers" in r.getMessage()]
    assert "reject(terminate=False)" in record.getMessage()
    assert (vars(record)["job_id"], vars(record)["room"]) == ("AJ_1", "a-room")


async def test_what_the_team_raises_is_livekits_to_see() -> None:
    async def fail(request: JobRequest) -> None:
        raise LookupError("a bug of theirs")

    team, offer = Team(fail), Offer()
    before = jobs_offered()
    with pytest.raises(LookupError, match="a bug of theirs"):
        await team.handler(offer.request)
    # LiveKit refuses it then, for nobody but this worker.
    assert changes(before) == {}
    assert (offer.answers, team.handler.accepting) == (0, {})


async def test_a_team_that_does_not_answer_leaves_it_to_livekit() -> None:
    async def say_nothing(request: JobRequest) -> None: ...

    team, offer = Team(say_nothing), Offer()
    await team.handler(offer.request)
    assert (offer.answers, team.handler.accepting) == (0, {})


async def test_an_answer_after_the_handler_has_returned_fails_nothing() -> None:
    answers = []

    async def later(request: JobRequest) -> None:
        answers.append(asyncio.ensure_future(request.reject(terminate=False)))

    team, offer = Team(later), Offer()
    await team.handler(offer.request)
    await answers[0]
    assert (offer.terminated, team.told) == ([False], ["a-room"])


async def test_a_team_that_hangs_keeps_no_place_and_no_drain(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(request: JobRequest) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(acceptances, "ANSWER_S", 0.0)
    team, offer = Team(hang), Offer()
    await team.handler(offer.request)
    # LiveKit refuses it then, for nobody but this worker.
    assert (offer.answers, team.handler.accepting) == (0, {})
    assert team.told == ["a-room"]
    assert [r.levelname for r in caplog.records if "did not answer in time" in r.getMessage()] == [
        "ERROR"
    ]


async def test_a_team_that_has_answered_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may wait for the assignment, and for a job process."""

    async def assigned() -> None:
        await asyncio.sleep(0.05)

    monkeypatch.setattr(acceptances, "ANSWER_S", 0.01)
    team, offer = Team(lambda request: request.accept()), Offer(on_accepting=assigned)
    await team.handler(offer.request)
    assert (len(offer.accepted), team.told) == (1, [])


async def test_a_timeout_of_the_teams_own_is_livekits_to_see() -> None:
    async def fail(request: JobRequest) -> None:
        raise TimeoutError("of theirs")

    with pytest.raises(TimeoutError, match="of theirs"):
        await Team(fail).handler(Offer().request)


async def test_a_job_that_livekit_never_assigns_is_a_warning_with_a_team_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def never() -> None:
        raise AssignmentTimeoutError

    team = Team(lambda request: request.accept())
    await team.handler(Offer(on_accepting=never).request)
    assert any("never assigned" in record.getMessage() for record in caplog.records)
    assert (team.told, team.began) == (["a-room"], [])


async def test_a_room_that_is_adopted_is_asked_for_as_well() -> None:
    """Without another look at the build: adoption has decided on that."""
    accepts, refuses = (
        Team(lambda request: request.accept(identity="agent")),
        Team(lambda request: request.reject(terminate=False)),
    )
    accepted, refused = Offer(room_metadata=OTHERS), Offer()
    await accepts.handler.ask_team(accepted.request)
    await refuses.handler.ask_team(refused.request)
    assert [arguments.identity for arguments in accepted.accepted] == ["agent"]
    assert refused.terminated == [False]


async def test_without_a_team_a_room_that_is_adopted_is_accepted() -> None:
    offer = Offer()
    await acceptance().ask_team(offer.request)
    (arguments,) = offer.accepted
    assert arguments.attributes == of_job(BUILD, offer.request.job)


async def test_a_worker_that_refuses_remembers_the_room() -> None:
    told: list[str] = []
    handler = Acceptance(
        BUILD, untargeted="reject", is_full=lambda: False, rooms=Rooms(), on_refused=told.append
    )
    await handler(Offer().request)
    assert told == ["a-room"]


# Whatever the metadata says


METADATA: Final = st.text(max_size=200) | st.builds(
    lambda value: json.dumps({"agent_build": value}),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["any", BUILD.id]),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "wait"]), inner),
        max_leaves=6,
    ),
)


@given(
    room_metadata=METADATA,
    dispatch_metadata=METADATA,
    untargeted=st.sampled_from(["accept", "reject"]),
    full=st.booleans(),
)
@example(OURS, OTHERS, "accept", True)
@example('{"agent_build": ' + "[" * 100_000, '{"agent_build": "\0"}', "accept", False)
async def test_any_metadata_gets_exactly_one_answer(
    room_metadata: str, dispatch_metadata: str, untargeted: Policy, full: bool
) -> None:
    offer = Offer(room_metadata=room_metadata, dispatch_metadata=dispatch_metadata)
    await acceptance(untargeted=untargeted, full=full)(offer.request)
    assert offer.answers == 1
    assert not any(offer.terminated)


# A rejection that ends the job for everybody is LiveKit's default


def wrong_rejections(source: str) -> list[int]:
    """The lines that use a `reject` method in any way but `.reject(terminate=False)`."""
    tree = ast.parse(source)
    right = {
        id(call.func)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and [(k.arg, ast.dump(k.value)) for k in call.keywords]
        == [("terminate", ast.dump(ast.Constant(False)))]
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "reject" and id(node) not in right
    ]


@pytest.mark.parametrize(
    "source",
    [
        "await request.reject()",
        "await request.reject(terminate=True)",
        "await request.reject(False)",
        "await request.reject(terminate=0)",
        "await request.reject(terminate=not final)",
        "await request.reject(**options)",
        "await request.reject(terminate=False, **options)",
        "await self.offer.request.reject()",
        "answer = request.reject\nawait answer()",
    ],
)
def test_the_search_for_wrong_rejections_finds_them(source: str) -> None:
    assert wrong_rejections(source) == [1]


def test_the_search_for_wrong_rejections_knows_a_right_one() -> None:
    assert wrong_rejections("await request.reject(terminate=False)") == []


PASSED_ON: Final = "await request.reject(terminate=terminate)"
"""What a team's own handler says goes to LiveKit as they wrote it."""


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "agent.py",
        *sorted((ROOT / "agent").rglob("*.py")),
        *sorted(p for p in (ROOT / "build_aware").rglob("*.py") if p.parent.name != "contestants"),
    ],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_no_bare_reject(path: Path) -> None:
    source = path.read_text("utf-8")
    lines = [source.splitlines()[number - 1].strip() for number in wrong_rejections(source)]
    assert lines == [PASSED_ON] * (path.name == "acceptance.py")


# The rollout


class Rolled:
    """A worker whose build the rollout does not want for any room but one.

    Attributes:
        asked: the rooms that the rollout was asked about.
        left: ids of the jobs that were left to another build.
        refused: the rooms of the other jobs that this worker does not get to serve.
        handler: its request handler.
    """

    def __init__(self, *, wants: str = "", untargeted: Policy = "accept") -> None:
        self.asked: list[str] = []
        self.left: list[str] = []
        self.refused: list[str] = []
        self._wants = wants
        self.handler = Acceptance(
            BUILD,
            untargeted=untargeted,
            is_full=lambda: False,
            rooms=Rooms(),
            takes=self._takes,
            on_answered=tell,
            on_left=lambda job: self.left.append(job.id),
            on_refused=self.refused.append,
        )

    def _takes(self, room: str, now_s: float) -> bool:
        self.asked.append(room)
        return room == self._wants


async def test_what_the_rollout_gives_to_another_build_is_refused_for_this_worker_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    worker, offer = Rolled(), Offer()
    await worker.handler(offer.request)
    assert offer.terminated == [False]
    assert (worker.left, worker.refused) == (["AJ_1"], [])
    assert vars(caplog.records[-1])["reason"] == "rollout"


async def test_what_it_gives_to_this_one_is_taken() -> None:
    worker, offer = Rolled(wants="a-room"), Offer()
    await worker.handler(offer.request)
    assert len(offer.accepted) == 1
    assert (worker.left, worker.refused) == ([], [])


@pytest.mark.parametrize("metadata", [OURS, OTHERS])
async def test_it_is_not_asked_about_jobs_that_name_a_build(metadata: str) -> None:
    worker = Rolled()
    await worker.handler(Offer(room_metadata=metadata).request)
    assert worker.asked == []
    assert worker.left == []
