"""New sessions go to the newest build by themselves: users whose rooms name nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from livekit import api

from build_aware.adoption.keeper import STABLE_S
from build_aware.adoption.rollout_room import NOBODY
from build_aware.dispatch import rollout_document
from build_aware.dispatch.following import GONE_AFTER
from build_aware.dispatch.rollout import Rollout, wanted
from build_aware.drain.exit_codes import ExitCode
from build_aware.testbed import Testbed
from build_aware.testbed.cluster import Cluster
from build_aware.testbed.livekit_server import AGENT_NAME, LiveKitServer
from build_aware.testbed.processes import Process
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker
from tests.e2e.test_adoption import build
from tests.support import faults
from tests.support.paths import ROOT

ROOM = rollout_document.room_of(AGENT_NAME, "")
FOLLOWED_S = 4.0
"""How long after a change the workers follow it: their lists of rooms are 2.5 seconds apart."""


async def rollout_in(server: LiveKitServer, room: str = ROOM) -> Rollout | None:
    """The rollout that a server carries; None if there is none that can be read."""
    async with server.api() as client:
        rooms = (await client.room.list_rooms(api.ListRoomsRequest(names=[room]))).rooms
    try:
        return rollout_document.read(rooms[0].metadata) if rooms else None
    except rollout_document.Unreadable:
        return None


async def is_current(server: LiveKitServer, build_id: str, room: str = ROOM) -> None:
    """Wait until a build is current, and all workers have had the time to follow."""

    async def current() -> Rollout | None:
        rollout = await rollout_in(server, room)
        return rollout if rollout is not None and rollout.is_current(build_id) else None

    await until(current, f"{build_id} to be current", 2 * STABLE_S + 180)
    await asyncio.sleep(FOLLOWED_S)  # What is promised, not less.


async def served(
    server: LiveKitServer, join: JoinRoom, names: list[str], *, deployment: str = ""
) -> dict[str, str]:
    """Let a user join each of these rooms, which name no build; returns who serves them."""
    at_once = asyncio.Semaphore(4)

    async def one(name: str) -> str:
        async with at_once:
            await server.create_room(name, deployment=deployment)
            user = await join(server, name)
            agent = await user.agent()
            assert len(user.agents_seen) == 1
            await user.leave()
            return agent.attributes["build.id"]

    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


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
    await is_current(own_livekit, "old")
    new = await worker(own_livekit, **build("new"))
    await is_current(own_livekit, "new")
    return old, new


@pytest.mark.long
async def test_a_new_build_takes_all_new_sessions_and_calls_go_on(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    for _ in range(2):
        await worker(own_livekit, **build("old"))
    await is_current(own_livekit, "old")
    await own_livekit.create_room("call")
    call = await join(own_livekit, "call", identity="caller")
    agent = await call.agent(build="old")
    await worker(own_livekit, **build("new"))
    await is_current(own_livekit, "new")
    rooms = [f"room-{number}" for number in range(12)]
    assert Counter((await served(own_livekit, join, rooms)).values()) == {"new": 12}
    assert call.agents_seen == [agent.identity]
    await call.insist("Which build?", "old")


@pytest.mark.slow
@pytest.mark.long
async def test_the_commands_steer_it(
    own_livekit: LiveKitServer, old_and_new: tuple[Process, Process], join: JoinRoom
) -> None:
    await own_livekit.create_room("call")
    call = await join(own_livekit, "call", identity="caller")
    await call.agent(build="new")

    code, said = await run(own_livekit, "rollback")
    assert code == 0, said
    await is_current(own_livekit, "old")
    rooms = [f"rolled-back-{number}" for number in range(8)]
    assert Counter((await served(own_livekit, join, rooms)).values()) == {"old": 8}

    _, said = await run(own_livekit, "builds", "--json")
    lines = {line["build"]: line for line in json.loads(said)["builds"]}
    assert lines["old"]["standing"] == "current"
    assert (lines["new"]["standing"], lines["new"]["rooms"]) == ("barred", 1)
    assert lines["new"]["draining"]

    ramped: set[str] = set()
    for percent in ("10", "20"):
        code, said = await run(own_livekit, "ramp", "new", percent)
        assert code == 0, said
        await asyncio.sleep(FOLLOWED_S)
        rollout = await rollout_in(own_livekit)
        names = [f"ramp-{number}" for number in range(40)]
        expected = {name: wanted(rollout, name) for name in names}
        found = await served(own_livekit, join, names)
        assert found == expected
        before, ramped = ramped, {name for name in names if found[name] == "new"}
        assert before < ramped

    code, said = await run(own_livekit, "promote", "new")
    assert code == 0, said
    await is_current(own_livekit, "new")
    rooms = [f"promoted-{number}" for number in range(8)]
    assert Counter((await served(own_livekit, join, rooms)).values()) == {"new": 8}
    await call.insist("Which build?", "new")


@pytest.mark.slow
@pytest.mark.long
async def test_where_the_new_build_dies_the_old_one_serves(
    own_livekit: LiveKitServer, old_and_new: tuple[Process, Process], join: JoinRoom
) -> None:
    old, new = old_and_new
    new.kill_family()
    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(comes(own_livekit, join, number))
    assert len(old.find("nobody took a job that is for another build")) == 1
    # From then on it takes them at once.
    assert old.find("job offer answered", room="room-11", answer="accept")


async def comes(server: LiveKitServer, join: JoinRoom, number: int, *, stays: bool = False) -> str:
    """A user comes, one in a second, and is served by a single agent; returns the build."""
    await asyncio.sleep(number)  # This is the load, not a wait.
    await server.create_room(f"room-{number}")
    user = await join(server, f"room-{number}")
    agent = await user.agent()
    assert len(user.agents_seen) == 1
    if not stays:
        await user.leave()
    return agent.attributes["build.id"]


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
    for _ in range(2):
        await worker(own_livekit, folder=folder, **build("old"))
    new.kill_family()
    async with asyncio.TaskGroup() as group:
        users = [group.create_task(comes(own_livekit, join, number)) for number in range(40)]
        await is_current(own_livekit, "old")
    assert {user.result() for user in users} == {"old"}


@pytest.mark.slow
@pytest.mark.long
async def test_a_full_current_build_is_helped_and_stays_current(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.with_short_pauses(tmp_path / "copy", PAUSE_S)
    old = await worker(own_livekit, folder=folder, **build("old"))
    await is_current(own_livekit, "old")
    await worker(own_livekit, **build("new") | {"AGENT_MAX_SESSIONS": "1"})
    await is_current(own_livekit, "new")
    assert await comes(own_livekit, join, 0, stays=True) == "new"
    async with asyncio.TaskGroup() as group:
        users = [group.create_task(comes(own_livekit, join, number)) for number in range(1, 50)]
    assert {user.result() for user in users} == {"old"}
    rollout = await rollout_in(own_livekit)
    assert rollout is not None
    assert rollout.is_current("new")
    # It was found to be gone, and has objected.
    assert rollout.revision >= CHALLENGED_AND_DEFENDED
    assert rollout.challenger is None
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
    await is_current(own_livekit, "old")
    with proxy.answering(HTTPStatus.SERVICE_UNAVAILABLE):
        proxy.cut_oldest()
        await worker(own_livekit, **build("new"))
        await is_current(own_livekit, "new")
    await old.logged("registered worker", count=2, deadline_s=180)
    await asyncio.sleep(FOLLOWED_S)
    rooms = [f"room-{number}" for number in range(8)]
    assert Counter((await served(own_livekit, join, rooms)).values()) == {"new": 8}


async def delete_the_room(server: LiveKitServer, room: str = ROOM) -> None:
    async with server.api() as client:
        await client.room.delete_room(api.DeleteRoomRequest(room=room))


async def restart_the_server(server: LiveKitServer) -> None:
    await server.stop()
    await server.restart()


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
        pytest.param(set_metadata(60_000 * "x"), False, id="64-KiB"),
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
    for each in old_and_new:
        if fault is restart_the_server:
            await each.logged("registered worker", count=2, deadline_s=180)
    if heals:
        await is_current(own_livekit, "new")
        assert await rollout_in(own_livekit) == before
    else:
        for each in old_and_new:
            await each.logged(
                "the rollout cannot be read and is left alone; what was known before "
                "goes on. Update this agent if it is of a newer format, else delete the room"
            )
    rooms = [f"room-{number}" for number in range(8)]
    assert Counter((await served(own_livekit, join, rooms)).values()) == {"new": 8}


@pytest.mark.slow
@pytest.mark.long
async def test_two_builds_that_register_together_end_in_one_current_build(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    builds = ("one", "two")
    await asyncio.gather(*(worker(own_livekit, **build(each)) for each in builds))

    async def both_known() -> Rollout | None:
        rollout = await rollout_in(own_livekit)
        return rollout if rollout is not None and all(map(rollout.knows, builds)) else None

    await until(both_known, "both builds known", 60)
    await asyncio.sleep(FOLLOWED_S)
    rollout = await rollout_in(own_livekit)
    assert rollout is not None
    assert rollout.current is not None
    rooms = [f"room-{number}" for number in range(8)]
    assert set((await served(own_livekit, join, rooms)).values()) == {rollout.current.build}


@pytest.mark.slow
@pytest.mark.long
async def test_a_build_that_was_rolled_back_stays_so_when_its_worker_restarts(
    own_livekit: LiveKitServer,
    old_and_new: tuple[Process, Process],
    worker: StartWorker,
    join: JoinRoom,
) -> None:
    _, new = old_and_new
    assert (await run(own_livekit, "rollback"))[0] == 0
    new.send()
    await new.exit()
    await worker(own_livekit, **build("new"))
    await asyncio.sleep(STABLE_S + FOLLOWED_S)  # Long enough for a new build.
    rooms = [f"room-{number}" for number in range(8)]
    assert Counter((await served(own_livekit, join, rooms)).values()) == {"old": 8}


@pytest.mark.slow
@pytest.mark.long
async def test_another_deployment_has_a_rollout_of_its_own(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    staging = {"LIVEKIT_AGENT_DEPLOYMENT": "staging"}
    await worker(own_livekit, **build("production"))
    await worker(own_livekit, **build("staged") | staging)
    await is_current(own_livekit, "production")
    await is_current(own_livekit, "staged", rollout_document.room_of(AGENT_NAME, "staging"))
    rooms = [f"room-{number}" for number in range(4)]
    assert set((await served(own_livekit, join, rooms)).values()) == {"production"}
    rooms = [f"staging-{number}" for number in range(4)]
    found = await served(own_livekit, join, rooms, deployment="staging")
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
    await is_current(own_livekit, "ours", room)
    await delete_the_room(own_livekit, room)
    await is_current(own_livekit, "ours", room)
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
    own_livekit: LiveKitServer, worker: StartWorker
) -> None:
    laptop = await worker(
        own_livekit, command=("agent.py", "dev", "--no-reload"), **build("laptop")
    )
    await laptop.logged("this worker follows the rollout and does not change it")
    await asyncio.sleep(STABLE_S + FOLLOWED_S)  # Long enough for a new build.
    assert await rollout_in(own_livekit) is None


@pytest.mark.slow
@pytest.mark.heavy
async def test_in_a_cluster_nobody_is_lost(
    cluster: Cluster, worker: StartWorker, join: JoinRoom
) -> None:
    one, two = cluster.nodes
    await worker(one, **build("old"))
    await is_current(one, "old")
    await worker(two, **build("new"))
    await is_current(one, "new")
    rooms = [f"room-{number}" for number in range(12)]
    assert len(await served(one, join, rooms)) == 12


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
