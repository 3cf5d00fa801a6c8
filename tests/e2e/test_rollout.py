"""New sessions go to the newest build by themselves: users whose rooms name nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import re
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from livekit import api

from build_aware.adoption.keeper import STABLE_S
from build_aware.adoption.left_jobs import LEFT_S
from build_aware.adoption.rollout_room import NOBODY
from build_aware.dispatch import rollout_document
from build_aware.dispatch.following import GONE_AFTER
from build_aware.dispatch.rollout import Rollout, wanted
from build_aware.drain.exit_codes import ExitCode
from build_aware.testbed import Testbed
from build_aware.testbed.cluster import Cluster
from build_aware.testbed.livekit_server import AGENT_NAME, LiveKitServer
from build_aware.testbed.processes import Process, logged_at
from build_aware.testbed.proxy import Blind
from build_aware.testbed.status import Status
from build_aware.testbed.user import User
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker
from tests.e2e.test_adoption import build
from tests.support import faults
from tests.support.paths import ROOT

ROOM = rollout_document.room_of(AGENT_NAME, "")


async def rollout_in(server: LiveKitServer, room: str = ROOM) -> Rollout | None:
    """The rollout that a server carries; None if there is none that can be read."""
    async with server.api() as client:
        rooms = (await client.room.list_rooms(api.ListRoomsRequest(names=[room]))).rooms
    try:
        return rollout_document.read(rooms[0].metadata) if rooms else None
    except rollout_document.Unreadable:
        return None


async def is_current(
    server: LiveKitServer, build_id: str, *workers: Process, room: str = ROOM
) -> None:
    """Wait until a build is current, and these workers follow."""

    async def current() -> bool:
        rollout = await rollout_in(server, room)
        return rollout is not None and rollout.is_current(build_id)

    await until(current, f"{build_id} to be current", 2 * STABLE_S + 180)
    await follow(server, *workers, room=room)


async def follow(server: LiveKitServer, *workers: Process, room: str = ROOM) -> None:
    """Wait until all these workers know who is current, and who ramps.

    Those of a busy machine take longer than four seconds: they list rooms less often.
    """

    async def all_know() -> bool:
        rollout = await rollout_in(server, room)
        if rollout is None or rollout.current is None:
            return False
        ramp = rollout.ramp and {"build": rollout.ramp.build, "percent": rollout.ramp.percent}
        return all(told(each) == (rollout.current.build, ramp) for each in workers)

    await until(all_know, "all to follow")


def told(worker: Process) -> tuple[str, Any] | None:
    """Who is current and who ramps, as a worker has logged it last."""
    lines = [record for record in worker.find("the rollout") if "revision" in record]
    return (lines[-1]["current"], lines[-1]["ramp"]) if lines else None


async def joins(server: LiveKitServer, join: JoinRoom, room: str, *, deployment: str = "") -> User:
    """Let a user join a room that names no build, and get an agent."""
    await server.create_room(room, deployment=deployment)
    user = await join(server, room)
    await user.agent()
    return user


async def taken(
    server: LiveKitServer,
    join: JoinRoom,
    rooms: list[str],
    *workers: Process,
    deployment: str = "",
) -> dict[str, str]:
    """Let a user join each of these rooms; returns the build of the worker that took its job.

    Most of the users have an agent of that build. On a machine that is slow enough, another worker
    may be faster to adopt a room.
    """
    at_once = asyncio.Semaphore(4)

    def accepted(room: str) -> dict[str, str]:
        return {
            record["job_id"]: record["build.id"]
            for each in workers
            for record in each.find("job offer answered", room=room, answer="accept")
        }

    async def one(room: str) -> tuple[str, str]:
        async with at_once:
            before = accepted(room)
            user = await joins(server, join, room, deployment=deployment)
            served = (await user.agent()).attributes["build.id"]
            now = await until(lambda: accepted(room).items() - before.items(), f"who took {room}")
            await user.leave()
            ((_, build),) = now
            return build, served

    found = await asyncio.gather(*map(one, rooms))
    assert 2 * sum(build == served for build, served in found) > len(rooms), found
    return dict(zip(rooms, (build for build, _ in found), strict=True))


async def run(server: LiveKitServer, *arguments: str) -> tuple[int, str]:
    """Run one of the commands; returns its exit code and all that it has said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "agent.py", *arguments, "--agent-name", AGENT_NAME),
        cwd=ROOT,
        env={"PATH": "", "PYTHON_DOTENV_DISABLED": "1"} | server.credentials,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.fixture
async def old_and_new(own_livekit: LiveKitServer, worker: StartWorker) -> tuple[Process, Process]:
    """A worker of an old build, and one of a new build that has become current."""
    old = await worker(own_livekit, **build("old"))
    await is_current(own_livekit, "old", old)
    new = await worker(own_livekit, **build("new"))
    await is_current(own_livekit, "new", old, new)
    return old, new


@pytest.mark.long
async def test_a_new_build_takes_all_new_sessions_and_calls_go_on(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    workers = [await worker(own_livekit, **build("old")) for _ in range(2)]
    await is_current(own_livekit, "old", *workers)
    await own_livekit.create_room("call")
    call = await join(own_livekit, "call", identity="caller")
    agent = await call.agent(build="old")
    workers.append(await worker(own_livekit, **build("new")))
    await is_current(own_livekit, "new", *workers)
    rooms = [f"room-{number}" for number in range(60)]
    assert set((await taken(own_livekit, join, rooms, *workers)).values()) == {"new"}
    assert call.agents_seen == [agent.identity]
    await call.insist("Which build?", "old")


@pytest.mark.slow
@pytest.mark.long
async def test_the_commands_steer_it(
    own_livekit: LiveKitServer, old_and_new: tuple[Process, Process], join: JoinRoom
) -> None:
    await own_livekit.create_room("call")
    call = await join(own_livekit, "call", identity="caller")
    agent = await call.agent(build="new")

    code, said = await run(own_livekit, "rollback")
    assert code == 0, said
    await is_current(own_livekit, "old", *old_and_new)
    rooms = [f"rolled-back-{number}" for number in range(8)]
    assert set((await taken(own_livekit, join, rooms, *old_and_new)).values()) == {"old"}

    _, said = await run(own_livekit, "builds", "--json")
    lines = {line["build"]: line for line in json.loads(said)["builds"]}
    assert lines["old"]["standing"] == "current"
    assert (lines["new"]["standing"], lines["new"]["rooms"]) == ("barred", 1)
    assert lines["new"]["draining"]

    ramped: set[str] = set()
    for percent in ("10", "20"):
        code, said = await run(own_livekit, "ramp", "new", percent)
        assert code == 0, said
        await follow(own_livekit, *old_and_new)
        rollout = await rollout_in(own_livekit)
        names = [f"ramp-{number}" for number in range(40)]
        expected = {name: wanted(rollout, name) for name in names}
        found = await taken(own_livekit, join, names, *old_and_new)
        assert found == expected
        before, ramped = ramped, {name for name in names if found[name] == "new"}
        assert before < ramped
        await are_closed(own_livekit, names)

    code, said = await run(own_livekit, "promote", "new")
    assert code == 0, said
    await is_current(own_livekit, "new", *old_and_new)
    rooms = [f"promoted-{number}" for number in range(8)]
    assert set((await taken(own_livekit, join, rooms, *old_and_new)).values()) == {"new"}
    assert call.agents_seen == [agent.identity]
    await call.insist("Which build?", "new")


async def are_closed(server: LiveKitServer, rooms: list[str]) -> None:
    """Wait until no room has these names: only a new room is offered to workers."""

    async def gone() -> bool:
        async with server.api() as client:
            return not (await client.room.list_rooms(api.ListRoomsRequest(names=rooms))).rooms

    await until(gone, "the rooms to be closed")


@pytest.mark.slow
@pytest.mark.long
async def test_where_the_new_build_dies_the_old_one_serves(
    own_livekit: LiveKitServer, old_and_new: tuple[Process, Process], join: JoinRoom
) -> None:
    old, new = old_and_new
    new.kill_family()
    async with a_user_each_second(own_livekit, join) as users:
        (warning,) = await old.logged("nobody took a job that is for another build")
        # From then on it takes them at once.
        await old.logged("job offer answered", answer="accept", reason="untargeted")
    assert {user.result() for user in users} == {"old"}
    # Nobody waits for it to find out that it is right to.
    (adopted,) = old.find("adopting a waiting room", room=warning["room"])
    refusals = map(logged_at, old.find("job offer answered", reason="rollout"))
    assert max(refusals) < logged_at(adopted) + 1


async def comes(server: LiveKitServer, join: JoinRoom, number: int, *, stays_s: float = 0.0) -> str:
    """A user comes and is served by a single agent in the end; returns its build."""
    user = await joins(server, join, f"room-{number}")
    await asyncio.sleep(stays_s)  # This is the load, not a wait.
    await until(lambda: len(user.agents) == 1, "one agent")
    (agent,) = user.agents
    await user.leave()
    return agent.attributes["build.id"]


@contextlib.asynccontextmanager
async def a_user_each_second(
    server: LiveKitServer, join: JoinRoom, *, stays_s: float = 0.0
) -> AsyncIterator[list[asyncio.Task[str]]]:
    """Users come until this ends, not too many at once on a slow machine; see `comes`."""
    users: list[asyncio.Task[str]] = []
    at_once = asyncio.Semaphore(10)

    async def come(number: int) -> str:
        try:
            return await comes(server, join, number, stays_s=stays_s)
        finally:
            at_once.release()

    async def keep_coming() -> None:
        for number in itertools.count(1):
            await at_once.acquire()
            users.append(group.create_task(come(number)))
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as group:
        coming = group.create_task(keep_coming())
        try:
            yield users
        finally:
            coming.cancel()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("overlap_s", [1, 2 * STABLE_S])
async def test_deploys_under_a_stream_of_users(
    overlap_s: float, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    workers = [await worker(own_livekit, **build("build-0"))]
    await is_current(own_livekit, "build-0", *workers)
    after: list[int] = []
    async with a_user_each_second(own_livekit, join, stays_s=2) as users:
        for number in (1, 2):
            workers.append(await worker(own_livekit, **build(f"build-{number}")))
            status = await Status.of(workers[-1])
            await until(functools.partial(is_ready, status), "the new worker to be ready")
            overlap = asyncio.create_task(asyncio.sleep(overlap_s))
            sees_it = overlap_s > STABLE_S
            if not sees_it:
                await overlap
                workers[-2].send()
            await is_current(own_livekit, f"build-{number}", *workers[-2 if sees_it else -1 :])
            after.append(len(users))
            await until(lambda: len(users) >= after[-1] + 5, "some more users")
            await overlap
            if sees_it:
                workers[-2].send()
    for number, first in enumerate(after, start=1):
        rooms = {f"room-{user + 1}" for user in range(first, len(users))}
        older = workers[:number]
        answers = [said for each in older for said in each.find("job offer answered")]
        assert not rooms & {said["room"] for said in answers if said["answer"] == "accept"}
    assert [await each.exit() for each in workers[:-1]] == [0, 0]


async def is_ready(status: Status) -> bool:
    return await status.ready() == HTTPStatus.OK


PAUSE_S = 3.0
"""The first pause of workers that are started with short ones."""


@pytest.mark.slow
@pytest.mark.long
async def test_the_previous_image_takes_over_when_the_current_build_is_gone(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    """Be it that it was deployed again, or that the code was reverted: its build is known."""
    folder = faults.with_short_pauses(tmp_path / "copy", PAUSE_S)
    before = await worker(own_livekit, folder=folder, **build("old"))
    await is_current(own_livekit, "old")
    before.send()
    new = await worker(own_livekit, **build("new"))
    await is_current(own_livekit, "new")
    again = [await worker(own_livekit, folder=folder, **build("old")) for _ in range(2)]
    await follow(own_livekit, *again)
    new.kill_family()
    # They stay for longer than a worker waits to see who takes a job.
    async with a_user_each_second(own_livekit, join, stays_s=2 * LEFT_S) as users:
        await is_current(own_livekit, "old")
    assert {user.result() for user in users} == {"old"}


@pytest.mark.slow
@pytest.mark.long
async def test_a_full_current_build_is_helped_and_stays_current(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.with_short_pauses(tmp_path / "copy", PAUSE_S)
    old = await worker(own_livekit, folder=folder, **build("old"))
    await is_current(own_livekit, "old", old)
    new = await worker(own_livekit, **build("new") | {"AGENT_MAX_SESSIONS": "1"})
    await is_current(own_livekit, "new", old, new)
    user = await joins(own_livekit, join, "room-0")
    assert (await user.agent()).attributes["build.id"] == "new"

    async def has_objected() -> bool:
        rollout = await rollout_in(own_livekit)
        assert rollout is not None
        assert rollout.is_current("new")
        return rollout.revision >= CHALLENGED_AND_DEFENDED and rollout.challenger is None

    async with a_user_each_second(own_livekit, join, stays_s=2 * LEFT_S) as users:
        await until(has_objected, "the current build to be found gone, and to object", 300)
    assert {user.result() for user in users} == {"old"}
    assert len(old.find("nobody took a job that is for another build")) >= 1 + GONE_AFTER


CHALLENGED_AND_DEFENDED = 4
"""The revision after old, new, a challenge and an objection."""


@pytest.mark.slow
@pytest.mark.long
async def test_a_worker_that_was_cut_off_follows_when_it_is_back(
    bed: Testbed, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    proxy = await bed.proxy(own_livekit)
    old = await worker(own_livekit, LIVEKIT_URL=proxy.url, **build("old"))
    await is_current(own_livekit, "old", old)
    with proxy.answering(HTTPStatus.SERVICE_UNAVAILABLE):
        proxy.cut_oldest()
        a_minute = asyncio.create_task(asyncio.sleep(60))
        new = await worker(own_livekit, **build("new"))
        await is_current(own_livekit, "new", new)
        await a_minute
    await old.logged("registered worker", count=2, deadline_s=180)
    await follow(own_livekit, old, new)
    rooms = [f"room-{number}" for number in range(8)]
    assert set((await taken(own_livekit, join, rooms, old, new)).values()) == {"new"}


async def delete_the_room(server: LiveKitServer, room: str = ROOM) -> None:
    async with server.api() as client:
        await client.room.delete_room(api.DeleteRoomRequest(room=room))


async def restart_the_server(server: LiveKitServer) -> None:
    await server.stop()
    await server.restart()


LONGEST = 64_000
"""How long metadata may be, in bytes, by livekit-server's default: it refuses 64 KiB."""


def set_metadata(text: str) -> Any:
    async def change(server: LiveKitServer) -> None:
        async with server.api() as client:
            await client.room.update_room_metadata(
                api.UpdateRoomMetadataRequest(room=ROOM, metadata=text)
            )

    return change


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "heals"),
    [
        pytest.param(restart_the_server, True, id="restart"),
        pytest.param(delete_the_room, True, id="deleted"),
        pytest.param(set_metadata(""), True, id="emptied"),
        pytest.param(set_metadata("garbage"), False, id="garbage"),
        pytest.param(set_metadata('{"format": 2, "revision": 99}'), False, id="newer-format"),
        pytest.param(set_metadata(LONGEST * "x"), False, id="as-long-as-it-may-be"),
    ],
)
async def test_what_befalls_the_document_sends_nobody_to_the_old_build(
    fault: Any,
    heals: bool,
    own_livekit: LiveKitServer,
    old_and_new: tuple[Process, Process],
    join: JoinRoom,
) -> None:
    before = await rollout_in(own_livekit)
    await fault(own_livekit)
    # Some come before anybody could mend it, be it to the old build.
    await asyncio.gather(*(joins(own_livekit, join, f"at-once-{number}") for number in range(4)))
    for each in old_and_new:
        if fault is restart_the_server:
            await each.logged("registered worker", count=2, deadline_s=180)
    if heals:
        await is_current(own_livekit, "new", *old_and_new)
        assert await rollout_in(own_livekit) == before
    else:
        for each in old_and_new:
            await each.logged(
                "the rollout cannot be read; this worker goes on with what it knew. If a newer "
                "release wrote it, upgrade this agent; if not, delete the room with "
                "`lk room delete`"
            )
    rooms = [f"room-{number}" for number in range(8)]
    assert set((await taken(own_livekit, join, rooms, *old_and_new)).values()) == {"new"}


@pytest.mark.slow
@pytest.mark.long
async def test_two_builds_that_register_together_end_in_one_current_build(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    builds = ("one", "two")
    workers = await asyncio.gather(*(worker(own_livekit, **build(each)) for each in builds))
    # Their time comes while they are stopped, so they go on in the same moment.
    for each in workers:
        each.send(signal.SIGSTOP)
    await asyncio.sleep(STABLE_S)
    for each in workers:
        each.send(signal.SIGCONT)

    async def both_known() -> Rollout | None:
        rollout = await rollout_in(own_livekit)
        return rollout if rollout is not None and all(map(rollout.knows, builds)) else None

    await until(both_known, "both builds known", 60)
    await follow(own_livekit, *workers)
    rollout = await rollout_in(own_livekit)
    assert rollout is not None
    assert rollout.current is not None
    rooms = [f"room-{number}" for number in range(8)]
    assert set((await taken(own_livekit, join, rooms, *workers)).values()) == {
        rollout.current.build
    }


@pytest.mark.slow
@pytest.mark.long
async def test_a_build_that_was_rolled_back_stays_so_when_its_worker_restarts(
    own_livekit: LiveKitServer,
    old_and_new: tuple[Process, Process],
    worker: StartWorker,
    join: JoinRoom,
) -> None:
    old, new = old_and_new
    assert (await run(own_livekit, "rollback"))[0] == 0
    new.send()
    await new.exit()
    again = await worker(own_livekit, **build("new"))
    await asyncio.sleep(2 * STABLE_S)  # Long enough for a new build.
    rooms = [f"room-{number}" for number in range(8)]
    assert set((await taken(own_livekit, join, rooms, old, new, again)).values()) == {"old"}


@pytest.mark.slow
@pytest.mark.long
async def test_another_deployment_has_a_rollout_of_its_own(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    staging = {"LIVEKIT_AGENT_DEPLOYMENT": "staging"}
    production = await worker(own_livekit, **build("production"))
    staged = await worker(own_livekit, **build("staged") | staging)
    await is_current(own_livekit, "production", production)
    staging_room = rollout_document.room_of(AGENT_NAME, "staging")
    await is_current(own_livekit, "staged", staged, room=staging_room)
    rooms = [f"room-{number}" for number in range(4)]
    assert set((await taken(own_livekit, join, rooms, production, staged)).values()) == {
        "production"
    }
    rooms = [f"staging-{number}" for number in range(4)]
    found = await taken(own_livekit, join, rooms, production, staged, deployment="staging")
    assert set(found.values()) == {"staged"}


@pytest.mark.slow
@pytest.mark.long
async def test_the_room_of_an_unnamed_agent_is_offered_to_nobody(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    room = rollout_document.room_of("", "")
    unnamed = {"LIVEKIT_AGENT_NAME": ""}
    stock = await worker(
        own_livekit,
        command=("-m", "build_aware.rehearsal.contestants.stock", "start"),
        **build("stock") | unnamed,
    )
    ours = await worker(own_livekit, **build("ours") | unnamed)
    await is_current(own_livekit, "ours", ours, room=room)
    await delete_the_room(own_livekit, room)
    await is_current(own_livekit, "ours", ours, room=room)
    async with own_livekit.api() as client:
        (nobody,) = await client.agent_dispatch.list_dispatch(room)
    assert (nobody.agent_name, list(nobody.state.jobs)) == (NOBODY, [])
    user = await join(own_livekit, "call")
    await until(lambda: user.agents, "an agent, of whichever worker")
    assert room not in stock.output
    assert not ours.find("job offer answered", room=room)


@pytest.mark.slow
@pytest.mark.long
async def test_dev_follows_and_writes_nothing(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    production = await worker(own_livekit, **build("old"))
    await is_current(own_livekit, "old", production)
    laptop = await worker(
        own_livekit, command=("agent.py", "dev", "--no-reload"), **build("laptop")
    )
    await laptop.said("this worker follows the rollout and does not change it")
    await laptop.said("read the rollout")
    await asyncio.sleep(2 * STABLE_S)  # Long enough for a new build.
    rooms = [f"room-{number}" for number in range(6)]
    assert set((await taken(own_livekit, join, rooms, production)).values()) == {"old"}
    rollout = await rollout_in(own_livekit)
    assert rollout is not None
    assert not rollout.knows("laptop")


@pytest.mark.slow
@pytest.mark.long
async def test_a_new_build_that_crashes_at_its_start_is_never_promoted(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    old = await worker(own_livekit, **build("old"))
    await is_current(own_livekit, "old", old)
    for _ in range(3):
        new = await worker(own_livekit, **build("new"))
        await new.logged("read the rollout")
        await asyncio.sleep(0.3 * STABLE_S)  # So long it lives.
        new.kill()
        await new.exited()
    rooms = [f"room-{number}" for number in range(6)]
    assert set((await taken(own_livekit, join, rooms, old)).values()) == {"old"}
    rollout = await rollout_in(own_livekit)
    assert rollout is not None
    assert not rollout.knows("new")


@pytest.mark.slow
@pytest.mark.heavy
async def test_in_a_cluster_nobody_is_lost(
    cluster: Cluster, worker: StartWorker, join: JoinRoom
) -> None:
    one, two = cluster.nodes
    old = await worker(one, **build("old"))
    await is_current(one, "old", old)
    new = await worker(two, **build("new"))
    await is_current(one, "new", old, new)
    rooms = [f"room-{number}" for number in range(12)]
    users = await asyncio.gather(*(joins(one, join, room) for room in rooms))
    await until(lambda: all(len(user.agents) == 1 for user in users), "one agent for each")


class Calls(Blind):
    """Sees the calls of a server's API, each with the room that it is about, if any."""

    def __init__(self, seen: list[tuple[str, str, float]]) -> None:
        self._seen = seen
        self._call = ""

    def from_client(self, data: bytes) -> None:
        if found := re.search(rb"POST /twirp/livekit\.\w+/(\w+)", data):
            self._call = found[1].decode()
        room = re.search(rb"room-\d+-", data)
        if found or room:
            self._seen.append((self._call, room[0].decode() if room else "", time.monotonic()))


@pytest.mark.slow
@pytest.mark.long
async def test_a_refused_job_costs_one_call_and_a_server_that_rests_none(
    bed: Testbed, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    calls: list[tuple[str, str, float]] = []
    proxy = await bed.proxy(own_livekit, lambda: Calls(calls))
    old = await worker(own_livekit, LIVEKIT_URL=proxy.url, **build("old"))
    await is_current(own_livekit, "old", old)
    new = await worker(own_livekit, **build("new"))
    await is_current(own_livekit, "new", old, new)

    async def stays(room: str) -> float:
        """A user stays until the old worker has looked what became of the job that it refused."""
        user = await joins(own_livekit, join, room)
        there_s = time.monotonic()
        await user.be_noticed()
        await lists(3, there_s + LEFT_S)
        await user.leave()
        return there_s

    async def lists(count: int, since_s: float) -> None:
        def enough() -> bool:
            return sum(call == "ListRooms" and at_s > since_s for call, _, at_s in calls) >= count

        await until(enough, f"{count} lists")

    there: dict[str, float] = {}
    for number in range(0, 40, 4):  # The server asks one worker or the other first.
        rooms = [f"room-{number + each}-" for each in range(4)]
        there |= dict(zip(rooms, await asyncio.gather(*map(stays, rooms)), strict=True))
        refused = {each["room"] for each in old.find("job offer answered", reason="rollout")}
        if min(len(refused), len(there.keys() - refused)) >= 4:
            break
    assert len(refused) >= 4
    cost = {
        room: sum(about == room and at_s > came_s for _, about, at_s in calls)
        for room, came_s in there.items()
    }
    not_asked = statistics.median(cost[room] for room in there.keys() - refused)
    assert statistics.median(cost[room] for room in refused) <= not_asked + 1

    resting_s = time.monotonic()
    await lists(5, resting_s)
    assert {call for call, _, at_s in calls if at_s > resting_s} == {"ListRooms"}


@pytest.mark.slow
async def test_commands_say_what_cannot_be(own_livekit: LiveKitServer) -> None:
    for arguments, code, message in (
        (("rollback",), ExitCode.CONFIGURATION, "there is no previous build"),
        (("promote", "x"), ExitCode.CONFIGURATION, "no worker of build x has been seen"),
        (("ramp", "x", "10"), ExitCode.CONFIGURATION, "no worker of build x has been seen"),
        (("builds",), 0, "There is no rollout"),
        (("promote", "x", "--force"), 0, "current   x"),
        (("promote", "--url", "ws://127.0.0.1:1"), ExitCode.UNREACHABLE, "check LIVEKIT_URL"),
        (("promote", "--url", "wss://x.livekit.cloud"), ExitCode.CONFIGURATION, "lk agent deploy"),
    ):
        found, said = await run(own_livekit, *arguments)
        assert found == code, said
        assert message in said
        assert "Traceback" not in said
