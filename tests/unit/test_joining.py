from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import math
import textwrap
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from livekit.agents import AgentServer
from livekit.agents.job import JobAcceptArguments, RunningJobInfo
from livekit.api import TokenVerifier
from livekit.api.access_token import Claims
from livekit.protocol.agent import Job, JobState, JobType
from livekit.protocol.agent_dispatch import AgentDispatch, AgentDispatchState
from livekit.protocol.models import Room

from build_aware.adoption.judgement import AGENT_NAME
from build_aware.adoption.launch import JOB_PREFIX, Busy, busy, job_for, launch

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
    id: str = "AW_1"


async def launched(job: Job, attributes: dict[str, str] | None = None) -> RunningJobInfo:
    pool = Pool()
    given = dict(ATTRIBUTES) if attributes is None else attributes
    await launch(cast(AgentServer, Server(pool)), job, CREDENTIALS, given)
    (info,) = pool.launched
    return info


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
    await launched(a_job(), attributes)
    assert attributes == ATTRIBUTES


async def test_the_agents_name_is_that_of_the_job_whatever_the_worker_says() -> None:
    claims = claims_of(await launched(a_job(), {AGENT_NAME: "another"}))
    assert claims.attributes == {AGENT_NAME: "support"}


async def test_a_process_that_cannot_be_started_is_the_callers_to_see() -> None:
    pool = Pool(error=RuntimeError("no process became available"))
    with pytest.raises(RuntimeError, match="no process"):
        await launch(cast(AgentServer, Server(pool)), a_job(), CREDENTIALS, {})
    assert len(pool.launched) == 1


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
