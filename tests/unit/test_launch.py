from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib
import inspect
import math
import textwrap
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast

import jwt
import pytest
from livekit.agents import AgentServer, JobRequest
from livekit.agents.job import JobAcceptArguments, RunningJobInfo
from livekit.agents.worker import WorkerPermissions
from livekit.api import TokenVerifier
from livekit.api.access_token import Claims
from livekit.protocol.agent import Job, JobState, JobType
from livekit.protocol.agent_dispatch import AgentDispatch, AgentDispatchState
from livekit.protocol.models import Room, TrackSource

from build_aware.adoption import launch as launching
from build_aware.adoption.launch import (
    JOB_PREFIX,
    Ask,
    Busy,
    Outcome,
    busy,
    grants,
    job_for,
    launch,
)
from build_aware.dispatch.attributes import AGENT_NAME

URL: Final = "ws://livekit.test:7880"
API_KEY: Final = "the-api-key"
API_SECRET: Final = "the-api-secret-of-32-characters-or-more"  # noqa: S105
CREDENTIALS: Final = (URL, API_KEY, API_SECRET)

ATTRIBUTES: Final = {"build.id": "7f3c9a1e52d0", "build.version": "1.4.2"}


def dispatch() -> AgentDispatch:
    return AgentDispatch(
        id="AD_1",
        agent_name="support",
        room="a-room",
        metadata='{"agent_build": "any"}',
        deployment="staging",
        attributes={"tier": "gold"},
        state=AgentDispatchState(jobs=[Job(id="AJ_dead", state=JobState(error="gone"))]),
    )


def room() -> Room:
    return Room(sid="RM_1", name="a-room", metadata="of the room", num_participants=1)


# The job


def test_the_job_is_what_the_dispatcher_would_have_made_of_the_dispatch() -> None:
    job = job_for(dispatch(), room())
    assert job == Job(
        id=job.id,
        dispatch_id="AD_1",
        type=JobType.JT_ROOM,
        room=room(),
        metadata='{"agent_build": "any"}',
        agent_name="support",
        deployment="staging",
        attributes={"tier": "gold"},
    )


def test_a_dispatch_that_says_little_makes_a_job_that_says_little() -> None:
    job = job_for(AgentDispatch(id="AD_1"), Room(name="a-room"))
    assert job == Job(id=job.id, dispatch_id="AD_1", room=Room(name="a-room"))


def test_every_job_has_an_id_of_its_own_like_those_of_livekit() -> None:
    ids = {job_for(dispatch(), room()).id for _ in range(20)}
    assert len(ids) == 20
    assert all(job_id.startswith("AJ_") and len(job_id) > len(JOB_PREFIX) + 8 for job_id in ids)


def test_a_job_is_not_changed_with_what_it_was_made_of() -> None:
    of_dispatch, of_room = dispatch(), room()
    job = job_for(of_dispatch, of_room)
    of_dispatch.attributes["tier"] = "lead"
    of_room.metadata = "changed"
    assert job.attributes == {"tier": "gold"}
    assert job.room.metadata == "of the room"


# Its launch


@dataclass
class Pool:
    """What stands in for LiveKit's process pool."""

    error: Exception | None = None
    launched: list[RunningJobInfo] = field(default_factory=list)

    async def launch_job(self, info: RunningJobInfo) -> None:
        self.launched.append(info)
        if self.error is not None:
            raise self.error


@dataclass
class Server:
    """What stands in for LiveKit's `AgentServer`."""

    _proc_pool: Pool = field(default_factory=Pool)
    _permissions: WorkerPermissions = field(default_factory=WorkerPermissions)
    id: str = "AW_1"


def accepting(
    name: str = "",
    identity: str = "",
    metadata: str = "",
    attributes: dict[str, str] | None = None,
) -> Ask:
    async def ask(request: JobRequest) -> None:
        await request.accept(name=name, identity=identity, metadata=metadata, attributes=attributes)

    return ask


ACCEPTING: Final = accepting(attributes=ATTRIBUTES)


@dataclass
class Launched:
    """What has become of a job."""

    outcome: Outcome
    info: RunningJobInfo | None
    looked_for: list[str]
    """The identities of which was asked whether they are free."""


async def launching_of(
    job: Job,
    ask: Ask = ACCEPTING,
    *,
    free: bool = True,
    permissions: WorkerPermissions | None = None,
) -> Launched:
    looked_for: list[str] = []

    async def is_free(identity: str) -> bool:
        looked_for.append(identity)
        return free

    pool = Pool()
    server = cast(AgentServer, Server(pool, permissions or WorkerPermissions()))
    outcome = await launch(server, job, ask=ask, credentials=CREDENTIALS, is_free=is_free)
    return Launched(outcome, pool.launched[0] if pool.launched else None, looked_for)


async def launched(
    job: Job, ask: Ask = ACCEPTING, *, permissions: WorkerPermissions | None = None
) -> RunningJobInfo:
    result = await launching_of(job, ask, permissions=permissions)
    assert result.outcome == "launched"
    assert result.info is not None
    return result.info


def claims_of(info: RunningJobInfo) -> Claims:
    return TokenVerifier(API_KEY, API_SECRET).verify(info.token)


def a_job(agent_name: str = "support") -> Job:
    return Job(id="AJ_1", room=room(), agent_name=agent_name, dispatch_id="AD_1")


async def test_a_job_is_launched_as_one_that_was_offered_and_accepted() -> None:
    job = a_job()
    info = await launched(job)
    assert info == RunningJobInfo(
        accept_arguments=JobAcceptArguments(
            name="",
            identity="agent-AJ_1",
            metadata="",
            attributes={**ATTRIBUTES, AGENT_NAME: "support"},
        ),
        job=job,
        url=URL,
        token=info.token,
        worker_id="AW_1",
        fake_job=False,
    )


async def test_the_token_makes_an_agent_of_this_identity_in_this_room_and_no_other() -> None:
    claims = claims_of(await launched(a_job()))
    assert claims.kind == "agent"
    assert claims.identity == "agent-AJ_1"
    assert claims.video is not None
    assert claims.video.room == "a-room"
    assert claims.video.room_join is True
    assert claims.video.agent is True


@pytest.mark.parametrize("agent_name", ["support", ""])
async def test_the_token_tells_build_and_name_of_the_agent(agent_name: str) -> None:
    claims = claims_of(await launched(a_job(agent_name)))
    assert claims.attributes == {**ATTRIBUTES, "lk.agent_name": agent_name}


async def test_the_agent_may_publish_listen_and_tell_its_state() -> None:
    video = claims_of(await launched(a_job())).video
    assert video is not None
    assert video.can_publish
    assert video.can_publish_data
    assert video.can_subscribe
    assert video.can_update_own_metadata


async def test_the_token_grants_nothing_beyond_the_session() -> None:
    claims = claims_of(await launched(a_job()))
    video = claims.video
    assert video is not None
    beyond = (
        video.room_admin,
        video.room_create,
        video.room_list,
        video.room_record,
        video.ingress_admin,
        video.hidden,
        video.recorder,
        video.destination_room,
    )
    assert not any(beyond)
    assert claims.agent is None


async def test_the_secret_goes_nowhere() -> None:
    info = await launched(a_job())
    assert API_SECRET not in repr(info)
    assert API_SECRET not in repr(dataclasses.asdict(dataclasses.replace(info, job=Job())))
    assert API_SECRET not in repr(claims_of(info))


async def test_attributes_of_the_worker_stay_as_they_are() -> None:
    attributes = dict(ATTRIBUTES)
    await launched(a_job(), accepting(attributes=attributes))
    assert attributes == ATTRIBUTES


async def test_the_agents_name_is_that_of_the_job_whatever_the_handler_says() -> None:
    claims = claims_of(await launched(a_job(), accepting(attributes={AGENT_NAME: "another"})))
    assert claims.attributes == {AGENT_NAME: "support"}


async def test_a_handler_may_give_no_attributes_at_all() -> None:
    claims = claims_of(await launched(a_job(), accepting()))
    assert claims.attributes == {AGENT_NAME: "support"}


async def test_a_process_that_cannot_be_started_is_the_callers_to_see() -> None:
    pool = Pool(error=RuntimeError("no process became available"))
    server = cast(AgentServer, Server(pool))
    with pytest.raises(RuntimeError, match="no process"):
        await launch(server, a_job(), ask=ACCEPTING, credentials=CREDENTIALS)
    assert len(pool.launched) == 1


# What the request handler says


async def test_the_handler_sees_the_request_that_the_dispatcher_would_have_made() -> None:
    seen: list[JobRequest] = []

    async def ask(request: JobRequest) -> None:
        seen.append(request)
        await request.accept()

    job = a_job()
    await launched(job, ask)
    (request,) = seen
    assert isinstance(request, JobRequest)
    assert (request.id, request.job, request.room) == (job.id, job, job.room)
    assert (request.agent_name, request.publisher) == ("support", job.participant)


async def test_the_agent_joins_as_the_handler_says() -> None:
    ask = accepting("Ada", "ada", "knows the way", {"tier": "gold"})
    info = await launched(a_job(), ask)
    assert info.accept_arguments == JobAcceptArguments(
        name="Ada",
        identity="ada",
        metadata="knows the way",
        attributes={"tier": "gold", AGENT_NAME: "support"},
    )
    claims = claims_of(info)
    assert (claims.name, claims.identity, claims.metadata) == ("Ada", "ada", "knows the way")
    assert claims.attributes == {"tier": "gold", AGENT_NAME: "support"}


@pytest.mark.parametrize("terminate", [True, False])
async def test_a_job_that_the_handler_refuses_is_not_launched(terminate: bool) -> None:
    async def ask(request: JobRequest) -> None:
        await request.reject(terminate=terminate)

    result = await launching_of(a_job(), ask)
    assert (result.outcome, result.info) == ("refused", None)


async def test_a_handler_that_says_nothing_refuses() -> None:
    async def ask(_: JobRequest) -> None:
        pass

    result = await launching_of(a_job(), ask)
    assert (result.outcome, result.info) == ("refused", None)


async def test_a_handler_that_fails_refuses_and_the_log_says_where(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ask(_: JobRequest) -> None:
        raise LookupError("no such tenant")

    result = await launching_of(a_job(), ask)
    assert (result.outcome, result.info) == ("refused", None)
    (record,) = caplog.records
    assert vars(record)["room"] == "a-room"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


@pytest.mark.parametrize("first", ["accept", "reject"])
async def test_the_first_answer_counts_whatever_comes_after_it(first: str) -> None:
    async def ask(request: JobRequest) -> None:
        if first == "accept":
            await request.accept(identity="ada")
            await request.reject()
        else:
            await request.reject()
            await request.accept()
        raise LookupError("too late")

    result = await launching_of(a_job(), ask)
    assert result.outcome == ("launched" if first == "accept" else "refused")


async def test_a_handler_that_does_not_answer_in_time_refuses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(launching, "ANSWER_S", 0.01)

    async def ask(_: JobRequest) -> None:
        await asyncio.Event().wait()

    result = await launching_of(a_job(), ask)
    assert result.outcome == "refused"
    assert len(caplog.records) == 1


# The last look before it joins


async def test_an_identity_of_its_own_is_free_without_asking() -> None:
    result = await launching_of(a_job(), free=False)
    assert (result.outcome, result.looked_for) == ("launched", [])
    result = await launching_of(a_job(), accepting(identity="agent-AJ_1"), free=False)
    assert (result.outcome, result.looked_for) == ("launched", [])


@pytest.mark.parametrize("free", [True, False])
async def test_a_fixed_identity_joins_only_where_nobody_has_it(free: bool) -> None:
    result = await launching_of(a_job(), accepting(identity="ada"), free=free)
    assert result.looked_for == ["ada"]
    assert result.outcome == ("launched" if free else "taken")
    assert (result.info is not None) is free


async def test_it_is_asked_after_the_handler_which_may_take_its_time() -> None:
    order: list[str] = []

    async def ask(request: JobRequest) -> None:
        await request.accept(identity="ada")
        order.append("the handler returned")

    async def is_free(_: str) -> bool:
        order.append("looked")
        return True

    server = cast(AgentServer, Server())
    await launch(server, a_job(), ask=ask, credentials=CREDENTIALS, is_free=is_free)
    assert order == ["the handler returned", "looked"]


# What the server grants


@pytest.mark.parametrize(
    ("permission", "grant"),
    [
        ("can_publish", "can_publish"),
        ("can_subscribe", "can_subscribe"),
        ("can_publish_data", "can_publish_data"),
        ("can_update_metadata", "can_update_own_metadata"),
        ("hidden", "hidden"),
    ],
)
@pytest.mark.parametrize("granted", [True, False])
async def test_the_agent_may_do_what_its_server_registered_for(
    permission: str, grant: str, granted: bool
) -> None:
    permissions = WorkerPermissions(**{permission: granted})  # type: ignore[arg-type]
    video = claims_of(await launched(a_job(), permissions=permissions)).video
    assert video is not None
    assert getattr(video, grant) is granted


def test_what_a_worker_registers_with_is_known() -> None:
    fields = {each.name for each in dataclasses.fields(WorkerPermissions)}
    looked_at = {"can_publish", "can_subscribe", "can_publish_data", "can_update_metadata"}
    assert fields == looked_at | {"hidden", "can_publish_sources"}


def test_the_sources_are_left_to_the_dispatchers_own_rule() -> None:
    permissions = WorkerPermissions(can_publish_sources=[TrackSource.MICROPHONE])
    assert grants(permissions, "a-room").can_publish_sources is None


async def test_the_token_is_good_for_a_first_join_and_not_for_a_day() -> None:
    info = await launched(a_job())
    claims = jwt.decode(info.token, options={"verify_signature": False})
    assert claims["exp"] - claims["nbf"] == 3600


# Availability


def a_server(load: float, *, threshold: float = 0.7, draining: bool = False) -> AgentServer:
    server = AgentServer(load_threshold=threshold)
    server._devmode = server._simulation = False
    server._worker_load, server._draining, server._reserved_slots = load, draining, 0
    server._proc_pool = cast(Any, SimpleNamespace(processes=[]))
    return server


@pytest.mark.parametrize("load", [0.0, 0.5, 0.699])
def test_a_server_below_its_threshold_is_not_busy(load: float) -> None:
    assert busy(a_server(load)) is None


@pytest.mark.parametrize("load", [0.7, 0.95, 3.0])
def test_a_server_at_its_threshold_is_busy_by_what_it_measures(load: float) -> None:
    assert busy(a_server(load)) == Busy(load, 0.7)


def test_a_server_without_a_threshold_is_never_busy() -> None:
    assert busy(a_server(5.0, threshold=math.inf)) is None


def test_a_server_that_drains_is_not_busy_whatever_it_measures() -> None:
    assert busy(a_server(5.0, draining=True)) is None


# What is LiveKit's own: these fail when it moves


def values_given_to(attribute: str, cls: type) -> list[ast.expr]:
    """What the code of a class assigns to an attribute of `self`."""
    return [
        node.value
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls))))
        if isinstance(node, ast.Assign)
        and any(ast.unparse(target) == f"self.{attribute}" for target in node.targets)
    ]


def named(path: str, module: str) -> Any:
    """What a dotted name means in a module."""
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def test_the_pool_is_where_it_is_looked_for_and_launches_jobs() -> None:
    (value,) = values_given_to("_proc_pool", AgentServer)
    assert isinstance(value, ast.Call)
    pool = named(ast.unparse(value.func), AgentServer.__module__)
    assert inspect.iscoroutinefunction(pool.launch_job)
    signature = inspect.signature(pool.launch_job, eval_str=True)
    assert [*signature.parameters] == ["self", "info"]
    assert signature.parameters["info"].annotation is RunningJobInfo


def test_the_permissions_are_where_they_are_looked_for() -> None:
    permissions = WorkerPermissions(hidden=True)
    assert AgentServer(permissions=permissions)._permissions is permissions


def test_a_job_request_takes_what_it_is_given() -> None:
    assert [*inspect.signature(JobRequest).parameters] == ["job", "on_reject", "on_accept"]


def test_what_livekit_measures_is_where_it_is_looked_for() -> None:
    code = inspect.getsource(AgentServer._is_available)
    assert "if self._draining:" in code
    assert "ServerEnvOption.getvalue(self._load_threshold, self._devmode)" in code
    assert "return self._get_effective_load() < load_threshold" in code


def test_livekit_itself_launches_accepted_jobs_through_the_pool() -> None:
    assert "await self._proc_pool.launch_job(running_info)" in inspect.getsource(
        AgentServer._answer_availability
    )


def test_availability_is_a_plain_question_that_takes_no_arguments() -> None:
    assert not inspect.iscoroutinefunction(AgentServer._is_available)
    assert [*inspect.signature(AgentServer._is_available).parameters] == ["self"]


def test_livekit_asks_the_same_question_before_it_takes_an_offer() -> None:
    assert "if not self._is_available():" in inspect.getsource(AgentServer._answer_availability)


def test_a_server_has_an_id() -> None:
    assert isinstance(AgentServer().id, str)


def required_fields(cls: type) -> set[str]:
    return {
        each.name
        for each in dataclasses.fields(cls)
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    }


def test_a_running_job_needs_what_it_is_given_and_no_more() -> None:
    assert required_fields(RunningJobInfo) == {
        "accept_arguments",
        "job",
        "url",
        "token",
        "worker_id",
        "fake_job",
    }


def test_accept_arguments_need_what_they_are_given_and_no_more() -> None:
    assert required_fields(JobAcceptArguments) == {"name", "identity", "metadata"}
    assert "attributes" in {each.name for each in dataclasses.fields(JobAcceptArguments)}
