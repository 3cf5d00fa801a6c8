"""Rooms that wait for an agent get one, from a worker that may serve them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from pathlib import Path

import pytest
from livekit import rtc
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.room import RoomConfiguration

from build_aware.adoption.adopt import BUSY_WAIT_S
from build_aware.drain.exit_codes import ExitCode
from build_aware.testbed.livekit_server import AGENT_NAME, LiveKitServer
from build_aware.testbed.processes import Process, logged_at
from build_aware.testbed.status import Status
from build_aware.testbed.user import User
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker
from tests.support import faults
from tests.support.metadata import asking_for

logger = logging.getLogger(__name__)

SOON_S = 18.0
"""What takes seconds takes no longer on a very busy machine, and without our doing it takes longer:
LiveKit shows a dead agent for 20 seconds, and a room of which nothing is known is looked at once a
minute."""

SWEPT_S = 10.0
"""Long enough for several sweeps of every worker: what has not been adopted by then, is not."""


def build(name: str) -> dict[str, str]:
    """The settings of a worker of this build."""
    return {"name": name, "AGENT_BUILD_ID": name, "LIVEKIT_AGENT_NAME": AGENT_NAME}


def registered_at(worker: Process) -> float:
    return logged_at(worker.find("registered worker")[0])


async def nobody_serves(user: User, for_s: float = SWEPT_S) -> None:
    """Hold for a while that no agent comes."""
    before = len(user.agents_seen)
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert user.agents_seen[before:] == []
        await asyncio.sleep(0.1)


async def test_a_room_that_asked_too_early_is_served_when_its_build_comes(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    old = await worker(own_livekit, **build("build-A"))
    await own_livekit.create_room("early", "build-B")
    user = await join(own_livekit, "early")
    await old.logged("job offer answered", answer="reject", reason="other-target")
    await nobody_serves(user)

    new = await worker(own_livekit, **build("build-B"))
    agent = await user.agent()
    assert time.time() - registered_at(new) < SOON_S
    assert agent.attributes["build.id"] == "build-B"
    assert agent.attributes["lk.agent_name"] == AGENT_NAME
    await user.insist("Which build are you?", "build-B")
    assert len(user.agents_seen) == 1
    [adopted] = new.find("adopting a waiting room")
    assert (adopted["room"], adopted["reason"]) == ("early", "target")


async def test_a_fallback_comes_due(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    await worker(own_livekit, **build("build-A"))
    began = time.monotonic()
    await own_livekit.create_room("due", {"id": "build-B", "fallback": "any", "wait": 5})
    user = await join(own_livekit, "due")
    agent = await user.agent()
    assert time.monotonic() - began >= 5
    assert agent.attributes["build.id"] == "build-A"


async def test_without_a_fallback_nobody_else_serves_and_a_warning_says_who_waits(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, **build("build-A"))
    await own_livekit.create_room("none", {"id": "build-B", "fallback": "none", "wait": 1})
    user = await join(own_livekit, "none")
    [warning] = await running.logged("rooms wait for a build other than this one")
    assert warning["rooms"] == {"none": "'build-B'"}
    await nobody_serves(user)
    assert len(running.find("rooms wait for a build other than this one")) == 1


async def test_rooms_that_found_no_worker_are_served_by_the_first_one(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    await own_livekit.create_room("nobody-up")
    user = await join(own_livekit, "nobody-up")
    await own_livekit.process.logged("no worker is available")
    running = await worker(own_livekit, **build("build-A"))
    await user.agent()
    assert time.time() - registered_at(running) < SOON_S
    assert len(user.agents_seen) == 1


@pytest.mark.heavy
@pytest.mark.slow
async def test_thirty_rooms_that_found_no_worker_are_served_once_each(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    users = [await join(own_livekit, f"crowd-{number}") for number in range(30)]
    running = await worker(own_livekit)
    await asyncio.gather(*(user.agent(deadline_s=120) for user in users))
    await asyncio.gather(*(user.insist("Which build?", "build") for user in users))
    assert [len(user.agents_seen) for user in users] == [1] * 30
    assert len(running.find("adopting a waiting room")) == 30


@pytest.mark.long
async def test_users_of_a_killed_worker_get_another_agent(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    dying = await worker(own_livekit, **build("build-A"))
    users: list[User] = []
    for number in range(5):
        await own_livekit.create_room(f"orphan-{number}", ["build-A", "build-B"])
        users.append(await join(own_livekit, f"orphan-{number}"))
        await users[-1].agent()
    # The other worker has had its look at each room, and found an agent there.
    await own_livekit.counts(users=5, publishers=5)
    began = time.time()
    other = await worker(own_livekit, **build("build-B"))
    await until(lambda: own_livekit.calls(since=began)["ListParticipants"] >= 5, "five looks")

    dying.send(signal.SIGKILL)
    killed = time.monotonic()
    for user in users:
        await user.agent(build="build-B")
    assert time.monotonic() - killed < SOON_S
    assert len(other.find("adopting a waiting room")) == 5


@pytest.mark.slow
@pytest.mark.long
async def test_a_user_of_a_killed_worker_whose_agent_published_nothing_gets_another_one_soon(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.in_the_session(tmp_path / "copy", faults.PUBLISHES_NOTHING)
    dying = await worker(own_livekit, folder=folder, **build("build-A"))
    await own_livekit.create_room("silent", ["build-A", "build-B"])
    user = await join(own_livekit, "silent")
    dead = await user.agent()
    began = time.time()
    await worker(own_livekit, **build("build-B"))
    # The other worker has seen the agent: in a look, and in a check after that.
    await until(lambda: own_livekit.calls(since=began)["ListParticipants"] >= 2, "look and check")

    dying.send(signal.SIGKILL)
    killed = time.monotonic()
    await user.agent(build="build-B", besides=dead.identity)
    assert time.monotonic() - killed < SOON_S


@pytest.mark.slow
async def test_a_job_that_a_request_handler_has_ended_is_adopted_by_nobody(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    refusing = await worker(
        own_livekit,
        folder=faults.ends_every_job(tmp_path / "copy"),
        AGENT_ADOPTION="off",
        **build("build-A"),
    )
    await own_livekit.create_room("ended", "build-B")
    user = await join(own_livekit, "ended")

    async def was_refused() -> bool:
        async with own_livekit.api() as client:
            (dispatch,) = await client.agent_dispatch.list_dispatch("ended")
        return bool(dispatch.state.jobs)

    await until(was_refused, "the job to have ended")
    await refusing.stop()
    other = await worker(own_livekit, **build("build-B"))
    await nobody_serves(user)
    assert not other.find("adopting a waiting room")


async def test_the_user_of_a_killed_job_process_gets_another_agent(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, **build("build-A"))
    await own_livekit.create_room("crash")
    user = await join(own_livekit, "crash")
    first = await user.agent()
    [record] = await running.logged("session started")

    os.kill(record["pid"], signal.SIGKILL)
    killed = time.monotonic()
    second = await user.agent(besides=first.identity)
    assert time.monotonic() - killed < SOON_S
    await user.insist("Which build?", second.attributes["build.id"])
    assert [agent.identity for agent in await own_livekit.agents_in("crash")] == [second.identity]


async def test_an_agent_that_was_cut_off_leaves_the_room_to_who_took_over(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.in_the_session(tmp_path / "copy", faults.CUT_OFF_WHEN_ANOTHER_AGENT_COMES)
    running = await worker(own_livekit, folder=folder, **build("build-A"))
    await own_livekit.create_room("cut-off")
    user = await join(own_livekit, "cut-off")
    await user.agent()
    await running.logged("session started")

    other = rtc.Room()
    await other.connect(own_livekit.url, own_livekit.agent_token("cut-off", "other-agent"))
    (ended,) = await running.logged("session ended")
    # The second comes from LiveKit, where it sees first that the agent has left its room.
    assert ended["reason"] in ("another agent has taken over", "parent process shutdown")

    async def has_left() -> bool:
        agents = await own_livekit.agents_in("cut-off")
        return [agent.identity for agent in agents] == ["other-agent"]

    await until(has_left, "the first agent to have left")
    await other.disconnect()
    await user.agent()


async def test_the_user_of_a_session_that_the_drain_cut_gets_another_agent(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    leaving = await worker(own_livekit, AGENT_DRAIN_TIMEOUT="10", **build("build-A"))
    await own_livekit.create_room("long-call")
    user = await join(own_livekit, "long-call")
    await user.agent()
    await worker(own_livekit, **build("build-B"))
    leaving.send()
    assert await leaving.exit() == ExitCode.SESSIONS_CUT
    await user.agent(build="build-B")


async def test_a_user_who_comes_back_gets_an_agent_again(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, **build("build-A"))
    await own_livekit.create_room("came-back")
    user = await join(own_livekit, "came-back")
    await user.agent()
    await user.leave()
    await running.logged("session ended")
    again = await join(own_livekit, "came-back")
    await again.agent()


@pytest.mark.heavy
async def test_of_many_workers_that_adopt_a_room_at_once_one_stays(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    users = [await join(own_livekit, f"herd-{number}") for number in range(10)]
    workers = await asyncio.gather(
        *(worker(own_livekit, name=f"worker-{n}", registered=False) for n in range(4))
    )
    await asyncio.gather(*(user.agent(deadline_s=180) for user in users))
    await asyncio.gather(*(user.insist("Which build?", "build", 180) for user in users))

    def no_more_than_one() -> bool:
        # As users see it: livekit-server goes on listing some who have left while they joined.
        return max(len(user.agents) for user in users) == 1

    await until(no_more_than_one, "the later agents to have left", deadline_s=180)
    await asyncio.gather(*(user.insist("Which build?", "build", 180) for user in users))
    await until(no_more_than_one, "one agent for each room", deadline_s=180)
    assert [user.spoke_together for user in users] == [[]] * len(users)
    adoptions = sum(len(worker.find("adopting a waiting room")) for worker in workers)
    logger.info("adoptions: %s", adoptions)


@pytest.mark.long
@pytest.mark.slow
async def test_a_room_that_wants_no_agent_is_left_alone(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.in_the_session(tmp_path / "copy", faults.ENDS_THE_CALL)
    await worker(own_livekit, folder=folder, **build("build-A"))
    users = {}
    for name in ("by-session", "by-job"):
        await own_livekit.create_room(name)
        users[name] = await join(own_livekit, name)
        await users[name].agent()
    await own_livekit.create_room("another-agent", agent_name="another")
    for name in ("another-agent", "people-only"):
        users[name] = await join(own_livekit, name)
    other = await worker(own_livekit, **build("build-B"))

    for name in ("by-session", "by-job"):
        await users[name].no_agent()
    await asyncio.gather(*(nobody_serves(user, for_s=75) for user in users.values()))
    assert not other.find("adopting a waiting room")

    # Not because nobody looks: a user who comes back after a real loss is served.
    await own_livekit.create_room("lost", "build-B")
    other.send(signal.SIGSTOP)
    user = await join(own_livekit, "lost")
    other.send(signal.SIGCONT)
    await user.agent()


async def test_a_full_worker_adopts_nothing_until_it_has_room(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    await worker(own_livekit, AGENT_MAX_SESSIONS="1", **build("build-A"))
    await own_livekit.create_room("first")
    first = await join(own_livekit, "first")
    await first.agent()

    await own_livekit.create_room("second")
    second = await join(own_livekit, "second")
    await nobody_serves(second)
    await first.leave()
    await second.agent()


@pytest.mark.slow
@pytest.mark.long
async def test_no_room_is_forgotten_when_the_server_restarts(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    config = RoomConfiguration(
        metadata=asking_for("build-B"), agents=[RoomAgentDispatch(agent_name=AGENT_NAME)]
    )
    old = await worker(own_livekit, **build("build-A"))
    new = await worker(own_livekit, AGENT_MAX_SESSIONS="1", **build("build-B"))
    users = []
    for name in ("first", "second"):
        users.append(await join(own_livekit, name, config=config))
    await until(lambda: any(user.agents for user in users), "one of the two to be served")

    await own_livekit.stop()
    await own_livekit.restart()
    await new.logged("registered worker", count=2, deadline_s=180)
    await old.logged("registered worker", count=2, deadline_s=180)
    await worker(own_livekit, **build("build-B"))
    for name in ("first", "second"):
        user = await join(own_livekit, name, config=config, identity="again")
        await user.agent(deadline_s=120)
    assert old.running
    assert "Traceback" not in old.output


@pytest.mark.slow
async def test_a_sweep_costs_one_call_while_all_rooms_have_agents(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    await worker(own_livekit, AGENT_ADOPTION="off")
    for number in range(5):
        user = await join(own_livekit, f"call-{number}")
        await user.agent()
        await user.unmute()
    await own_livekit.counts(users=5, publishers=10)

    watching = await worker(own_livekit, **build("build-B"))
    began = time.time()
    await until(lambda: own_livekit.calls(since=began)["ListRooms"] >= 5, "five sweeps")
    assert own_livekit.calls(since=began).keys() == {"ListRooms"}
    assert watching.running


async def test_a_worker_that_is_full_by_cpu_says_so_and_adopts_what_has_waited(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.full_by_cpu(tmp_path / "copy")
    running = await worker(own_livekit, folder=folder, AGENT_MAX_SESSIONS="", **build("build-A"))
    await running.logged("worker is at full capacity")
    began = time.monotonic()
    for room in ("one", "two"):
        await own_livekit.create_room(room)
    users = [await join(own_livekit, room, identity=room) for room in ("one", "two")]
    (warning,) = await running.logged("LiveKit counts this worker as full")
    assert (warning["level"], warning["load"], warning["threshold"]) == ("WARNING", 0.95, 0.7)
    assert set(warning["rooms"]) <= {"one", "two"}
    assert "agent_rooms_waiting_for_cpu" in await (await Status.of(running)).metrics()
    for user in users:
        await user.agent()
    assert time.monotonic() - began >= BUSY_WAIT_S
    assert not running.find("job offer answered")


async def test_a_worker_whose_clock_is_late_adopts_as_soon_as_any(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    await own_livekit.create_room("waits", "build-A")
    user = await join(own_livekit, "waits")
    folder = faults.with_a_late_clock(tmp_path / "copy", 60)
    running = await worker(own_livekit, folder=folder, **build("build-A"))
    registered = time.monotonic()
    await running.logged("adopting a waiting room")
    assert time.monotonic() - registered < SOON_S
    await user.agent()
