"""Sessions end when they should, and their shutdown callbacks run once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch

from build_aware.job.ending import CLOSE_S
from build_aware.testbed import Testbed
from build_aware.testbed.environ import environment
from build_aware.testbed.family import alive
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.processes import Process
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker, installed
from tests.support import faults
from tests.support.paths import ROOT

LINGERING = {"room": {"departure_timeout": 3600, "empty_timeout": 3600}}
"""A server whose empty rooms last an hour: nothing but the agent itself ends its job."""


@pytest.fixture
async def lingering(bed: Testbed) -> LiveKitServer:
    return await installed(bed.livekit(**LINGERING))


async def drains(worker: Process, *, code: int = 0) -> None:
    assert len(worker.find("session ended")) == 1, worker.tail()
    worker.send()
    assert await worker.exit() == code


async def test_the_job_ends_when_its_last_user_leaves(
    lingering: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(lingering)
    first = await join(lingering, "call", identity="first")
    second = await join(lingering, "call", identity="second")
    await first.agent()
    await first.leave()
    # The agent listens to the first user who came; now it turns to the other.
    await second.insist("still there?", expect="You said: still there?")
    assert not running.find("session ended")

    watcher = await join(lingering, "elsewhere")
    await second.leave()
    (ended,) = await running.logged("session ended", room="call")
    assert ended["reason"] == "the last user left"
    await watcher.leave()
    await running.logged("session ended", count=2)
    running.send()
    assert await running.exit() == 0


async def test_the_job_goes_on_when_its_user_joins_again_from_another_tab(
    lingering: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(lingering)
    first = await join(lingering, "call")
    agent = await first.agent()
    second = await join(lingering, "call")
    await second.insist("still there?", expect="You said: still there?")
    assert [other.identity for other in second.agents] == [agent.identity]
    assert not running.find("session ended")


@pytest.mark.slow
@pytest.mark.long
async def test_the_job_ends_when_its_user_is_killed_without_a_goodbye(
    bed: Testbed, lingering: LiveKitServer, worker: StartWorker
) -> None:
    running = await worker(lingering)
    script = (
        "import asyncio, sys\n"
        "from livekit import rtc\n"
        "async def main():\n"
        "    room = rtc.Room()\n"
        "    await room.connect(*sys.argv[1:])\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    user = await bed.processes.start(
        sys.executable,
        "-c",
        script,
        lingering.url,
        lingering.token("call", "user"),
        name="user",
        env=environment(),
    )
    await running.logged("session started")
    user.send(signal.SIGKILL)
    # What LiveKit needs to notice, and not more.
    await running.logged("session ended", deadline_s=120)
    await drains(running)


async def test_the_job_ends_when_nobody_ever_joins(
    lingering: LiveKitServer, worker: StartWorker
) -> None:
    running = await worker(lingering, AGENT_JOIN_TIMEOUT="2", LIVEKIT_AGENT_NAME="assistant")
    agents = [RoomAgentDispatch(agent_name="assistant")]
    async with lingering.api() as client:
        await client.room.create_room(api.CreateRoomRequest(name="lonely", agents=agents))
    (ended,) = await running.logged("session ended")
    assert ended["reason"] == "nobody joined in time"
    await drains(running)


async def test_the_job_ends_when_its_room_is_deleted(
    lingering: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(lingering)
    user = await join(lingering, "call")
    await user.agent()
    await running.logged("session started")
    async with lingering.api() as client:
        await client.room.delete_room(api.DeleteRoomRequest(room="call"))
    await running.logged("session ended")
    await drains(running)


async def test_the_job_ends_when_the_entrypoint_raises(
    lingering: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.in_the_session(tmp_path / "agent", faults.ENTRYPOINT_RAISES)
    running = await worker(lingering, folder=folder)
    user = await join(lingering, "call")
    await running.logged("session ended")
    await user.no_agent()
    assert "a bug in the entrypoint" in running.output
    await drains(running)


@contextlib.asynccontextmanager
async def provider_that_hangs() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """An OpenAI that takes every request, and never answers one."""
    asked = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody wakes this up")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", hang)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", asked
    await runner.cleanup()


@pytest.mark.parametrize("models", ["openai", pytest.param("realtime", marks=pytest.mark.slow)])
async def test_the_job_ends_while_the_model_provider_hangs(
    models: str, lingering: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    async with provider_that_hangs() as (url, asked):
        running = await worker(
            lingering, AGENT_MODELS=models, OPENAI_API_KEY="sk-none", OPENAI_BASE_URL=url
        )
        user = await join(lingering, "call")
        await user.agent()
        await running.logged("session started")
        await user.room.local_participant.send_text("hello", topic="lk.chat")
        await asyncio.wait_for(asked.wait(), 30)
        await user.leave()
        await running.logged("session ended")
        await drains(running)


async def test_a_failing_callback_stops_no_other(
    lingering: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.in_the_session(tmp_path / "agent", faults.CALLBACK_FAILS)
    running = await worker(lingering, folder=folder)
    user = await join(lingering, "call")
    await user.agent()
    await user.leave()
    await running.logged("session ended")
    (failed,) = await running.logged("a shutdown callback failed")
    assert "the database is down" in failed["message"]
    await drains(running)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.CALLBACK_NEVER_RETURNS, id="callback"),
        pytest.param(faults.THREAD_NEVER_ENDS, id="thread"),
        pytest.param(faults.LOOP_HANGS, id="loop"),
    ],
)
@pytest.mark.long
@pytest.mark.slow
async def test_a_job_that_hangs_in_its_end_is_ended(
    fault: str, lingering: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.in_the_session(tmp_path / "agent", fault)
    running = await worker(lingering, folder=folder)
    user = await join(lingering, "call")
    await user.agent()
    await user.ask("hello", expect="hello")
    family = running.family()
    await user.leave()
    running.send()
    assert await running.exit(deadline_s=180) == 0
    if fault == faults.THREAD_NEVER_ENDS:
        assert running.find("non-daemon thread `forgotten` may prevent the process from exiting")
        # Not left to the time that a job has which does not even get to its callbacks.
        assert running.lasted_since(running.find("session ended")[0]) < CLOSE_S
    if fault != faults.LOOP_HANGS:
        assert len(running.find("session ended")) == 1
    assert not [process for process in family if process.is_running() and process.ppid() > 1]


async def test_a_panic_of_the_native_library_ends_its_job_only(
    lingering: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.in_the_session(tmp_path / "agent", faults.NATIVE_PANIC)
    running = await worker(lingering, folder=folder)
    user = await join(lingering, "call")
    first = await user.agent()
    await running.logged("the job process got SIGTERM but its worker did not")
    assert running.running
    await user.agent(besides=first.identity)  # The room is adopted.
    await user.leave()
    running.send()
    assert await running.exit() == 0


def test_the_faults_still_fit_the_code() -> None:
    """The faults replace functions of the agent by name."""
    source = (ROOT / faults.SESSION).read_text("utf-8")
    for name in ("end_with_the_session", "turn_to_others"):
        assert f"def {name}(" in source


async def test_a_killed_worker_takes_no_callback_and_no_agent_with_it(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.in_the_session(tmp_path / "copy", faults.CALLBACK_WRITES)
    running = await worker(own_livekit, folder=folder)
    user = await join(own_livekit, "call")
    await user.agent()
    await running.logged("session started")
    family = running.family()
    running.send(signal.SIGKILL)
    # LiveKit would need twenty seconds to find out by itself.
    await user.no_agent(deadline_s=10)
    assert await until((folder / "ended").exists, "the callback's file")
    assert (folder / "ended").read_text() == "the worker died"
    await until(lambda: not alive(family), "all processes to be gone")


async def test_a_call_survives_the_death_of_the_fork_server(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit)
    user = await join(own_livekit, "call")
    await user.agent()
    children = psutil.Process(running.pid).children()
    # The other one is Python's resource tracker.
    (server,) = (child for child in children if child.children())
    server.kill()
    (died,) = await running.logged("the fork server of the job processes has died")
    assert died["died"] == server.pid
    await user.ask("still there?", expect="still there?")
    # More than there are warm processes: the new fork server makes some.
    for name in ("second", "third", "fourth"):
        later = await join(own_livekit, name, identity=name)
        await later.agent()
        await later.leave()
        await running.logged("session ended", room=name)
    assert not running.find("session ended", room="call")
    await user.leave()
    running.send()
    assert await running.exit() == 0
    assert len(running.find("has died")) == 1
    assert "Traceback" not in running.output
