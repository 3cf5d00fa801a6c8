"""Agents of other teams, with one line changed: they serve, drain and are adopted as ours do.

Times are held below what LiveKit alone would take; `bench/foreign.py` has the figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import pytest
from livekit import api
from livekit.protocol.agent import JobStatus
from livekit.protocol.agent_dispatch import AgentDispatch

from build_aware.dispatch.attributes import AGENT_NAME, DISPATCH, JOB
from build_aware.job.users import ALONE_S
from build_aware.testbed import Testbed
from build_aware.testbed.family import alive
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.processes import Process
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker, installed
from tests.support import foreign
from tests.support.foreign import Caller, Copy, Kind, Side, ask_for, copy

PROMPT_S: Final = 8.0
"""More than the 1 or 3 s that it takes, for a busy machine; less than LiveKit's own waits: 10 s for
callbacks, 15 for an entrypoint, 20 for a user who comes back, 60 for a session that closes."""

TAKEN_OVER_S: Final = 15.0
"""More than the 10 s that it takes at most, for a busy machine; LiveKit shows a dead agent for
20 s, and a room of which nothing is known is looked at once a minute."""

SWEPT_S: Final = 10.0
"""Long enough for several sweeps of every worker: what has not been adopted by then, is not."""

AWAY_S: Final = 4.0
"""How long a page takes to reload, or a train to leave a tunnel. LiveKit keeps a room for 20 s."""

LINGERING: Final = {"room": {"departure_timeout": 3600, "empty_timeout": 3600}}
"""A server whose empty rooms last an hour: nothing but the agent itself ends its job."""

HASTY: Final = {"room": {"departure_timeout": 1}}
"""A server that ends the jobs of a stock worker, which nothing else does."""

SEEN_TO_LEAVE: Final = "closing agent session due to participant disconnect"
"""What LiveKit logs in a job whose user has left."""

STRICT: Final = {"PYTHONWARNINGS": "error::DeprecationWarning"}

SIDES: Final[tuple[Side, ...]] = ("ours",)
"""Add "stock" to see that the test asks for nothing that LiveKit alone does not do."""


def kinds(*some: Kind) -> list[Any]:
    """Some of the kinds, as parameters; `bench/foreign.py` has all of them, beside stock."""
    return [pytest.param(kind, id=kind.name) for kind in some]


@pytest.fixture
async def lingering(bed: Testbed) -> LiveKitServer:
    return await installed(bed.livekit(**LINGERING))


async def leaves(caller: Caller, running: Process, agent: Copy) -> None:
    """The last user leaves, and then the draining worker, once the team's own work is done."""
    family = running.family()
    await caller.leave()
    left_at = time.time()
    assert await running.exit() == 0, running.tail()
    assert running.exited_at is not None
    last = max([left_at, *(note["at"] for note in agent.journal.find())])
    assert running.exited_at - last < PROMPT_S
    await until(lambda: not alive(family), f"all of {family} to be gone")


@pytest.mark.parametrize(
    "kind", kinds(foreign.STARTER, foreign.NEVER_RETURNS, foreign.SIGNALS_ON_THE_LOOP)
)
async def test_its_build_serves_goes_on_after_two_signals_and_leaves_with_the_last_user(
    kind: Kind, lingering: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    agent = copy(kind, tmp_path / "agent")
    build = await agent.build_id()
    running = await agent.start(worker, lingering)
    await ask_for(lingering, kind, "other", target=foreign.OTHER_BUILD)
    lonely = await Caller.joins(join, lingering, kind, "other")
    await running.logged("job offer answered", room="other", answer="reject")

    await ask_for(lingering, kind, "call", target=build)
    caller = await Caller.joins(join, lingering, kind, "call")
    served_by = await caller.agent()
    assert served_by.attributes["build.id"] == build
    assert served_by.attributes[AGENT_NAME] == kind.agent_name
    assert served_by.name == kind.shown_as
    await caller.is_answered()

    running.send_to_group()
    running.send_to_group()
    await running.logged("draining worker")
    await caller.is_answered()
    assert [there.sid for there in caller.agents] == [served_by.sid]
    await leaves(caller, running, agent)
    assert lonely.user.agents_seen == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds(foreign.LISTENER))
async def test_a_room_that_waited_is_adopted_and_so_it_is_when_its_worker_is_killed(
    kind: Kind, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    agent = copy(kind, tmp_path / "agent")
    await ask_for(own_livekit, kind, "waits")
    caller = await Caller.joins(join, own_livekit, kind, "waits")
    dying = await agent.start(worker, own_livekit)
    first = await caller.agent()
    assert first.name == kind.shown_as
    await caller.is_answered()

    await agent.start(worker, own_livekit, name="other")
    dying.send(signal.SIGKILL)
    killed = time.monotonic()
    second = await caller.agent(besides=first)
    assert time.monotonic() - killed < TAKEN_OVER_S
    assert second.name == kind.shown_as
    await until(lambda: [there.sid for there in caller.agents] == [second.sid], "one agent")
    await caller.is_answered()


@pytest.mark.slow
async def test_one_changed_character_makes_another_build(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.ECHO
    copies = [copy(kind, tmp_path / "A"), copy(kind, tmp_path / "B", change=("back", "Back"))]
    builds = [await each.build_id() for each in copies]
    assert len(set(builds)) == 2
    for each in copies:
        await each.start(worker, own_livekit)
    for number, build in enumerate(2 * builds):
        room = f"call-{number}"
        await ask_for(own_livekit, kind, room, target=build)
        caller = await Caller.joins(join, own_livekit, kind, room)
        assert (await caller.agent()).attributes["build.id"] == build


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
async def test_each_dispatch_gets_one_agent_however_many_workers_adopt(
    workers: int, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.TRANSLATORS
    agent = copy(kind, tmp_path / "agent")
    await ask_for(own_livekit, kind, "meeting", each=("de", "fr"))
    caller = await Caller.joins(join, own_livekit, kind, "meeting")
    await asyncio.gather(
        *(agent.start(worker, own_livekit, name=f"worker-{number}") for number in range(workers))
    )
    await one_for_each(caller, 2)
    assert {there.attributes[AGENT_NAME] for there in caller.agents} == {kind.agent_name}


async def one_for_each(caller: Caller, count: int) -> None:
    """Hold that each of so many dispatches has an agent of its own, and goes on having it."""

    def settled() -> bool:
        served = [there.attributes.get(DISPATCH) for there in caller.agents]
        return len(served) == len(set(served)) == count

    await until(settled, f"an agent for each of {count} dispatches")
    await caller.ask("hello")
    await caller.nobody_but(*caller.agents, for_s=SWEPT_S / 2)
    caller.answers.clear()
    await caller.send("hello")
    await until(lambda: len(caller.answers) >= count, "all of them to answer")
    assert sorted(caller.answers) == ["de: hello", "fr: hello"]


@pytest.mark.slow
async def test_both_agents_of_a_room_are_replaced_when_their_worker_is_killed(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.TRANSLATORS
    agent = copy(kind, tmp_path / "agent")
    dying = await agent.start(worker, own_livekit)
    await ask_for(own_livekit, kind, "meeting", each=("de", "fr"))
    caller = await Caller.joins(join, own_livekit, kind, "meeting")
    await one_for_each(caller, 2)
    gone = {there.attributes[JOB] for there in caller.agents}
    await agent.start(worker, own_livekit, name="other")
    dying.send(signal.SIGKILL)
    await until(lambda: not gone & jobs(caller), "both to be gone", TAKEN_OVER_S)
    await one_for_each(caller, 2)


def jobs(caller: Caller) -> set[str]:
    return {there.attributes.get(JOB, "") for there in caller.agents}


@pytest.mark.slow
async def test_a_purposeful_end_of_one_agent_leaves_the_other_its_dispatch(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.TRANSLATORS
    # The one for French hangs up when it is told to.
    change = ("    await ctx.connect()", HANGS_UP)
    agent = copy(kind, tmp_path / "agent", change=change)
    await agent.start(worker, own_livekit)
    await ask_for(own_livekit, kind, "meeting", each=("de", "fr"))
    caller = await Caller.joins(join, own_livekit, kind, "meeting")
    await until(lambda: len(caller.agents) == 2, "two agents")
    await caller.send("au revoir")
    await until(lambda: len(caller.agents) == 1, "one agent")
    (german,) = caller.agents
    await caller.nobody_but(german, for_s=SWEPT_S)
    assert len(caller.user.agents_seen) == 2
    assert await caller.ask("hallo") == "de: hallo"


HANGS_UP: Final = """
    @ctx.room.on("data_received")
    def on_data(packet: object) -> None:
        if ctx.job.metadata == "fr" and packet.data == b"au revoir":
            ctx.shutdown("said goodbye")

    await ctx.connect()"""


@pytest.mark.parametrize("side", SIDES)
async def test_their_own_endings_run_to_their_end_and_then_the_worker_leaves(
    side: Side, bed: Testbed, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.ENDINGS
    livekit = await installed(bed.livekit(**(LINGERING if side == "ours" else HASTY)))
    agent = copy(kind, tmp_path / "agent", side=side)
    running = await agent.start(worker, livekit)
    await ask_for(livekit, kind, "call")
    caller = await Caller.joins(join, livekit, kind, "call")
    await caller.is_answered()
    running.send()
    await running.logged("draining worker")
    await leaves(caller, running, agent)
    events = [note["event"] for note in agent.journal.find()]
    assert events == [
        *("report begins", "report is sent", "closing the books", "goodbye", "books are closed")
    ]
    # What they made their report of was not taken away before.
    assert agent.journal.find("report is sent")[0]["items"] >= 2
    assert agent.journal.find("closing the books")[0]["reason"]


async def test_a_callback_that_raises_stops_no_other(
    lingering: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.CALLBACK_RAISES
    agent = copy(kind, tmp_path / "agent")
    running = await agent.start(worker, lingering)
    await ask_for(lingering, kind, "call")
    caller = await Caller.joins(join, lingering, kind, "call")
    await caller.is_answered()
    running.send()
    await running.logged("draining worker")
    await leaves(caller, running, agent)
    assert len(agent.journal.find("books are closed")) == 1
    assert "the database is down" in running.output


@pytest.mark.slow
async def test_a_callback_that_blocks_its_process_is_bounded_by_the_teams_own_limit(
    lingering: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.BLOCKS
    agent = copy(kind, tmp_path / "agent")
    running = await agent.start(worker, lingering)
    await ask_for(lingering, kind, "call")
    caller = await Caller.joins(join, lingering, kind, "call")
    await caller.is_answered()
    running.send()
    await running.logged("draining worker")
    family = running.family()
    await caller.leave()
    note = await agent.journal.noted("blocking")
    await running.exit()
    assert running.exited_at is not None
    assert running.exited_at - note["at"] < note["limit_s"] + PROMPT_S
    await until(lambda: not alive(family), f"all of {family} to be gone")


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "kind", [foreign.ECHO, foreign.REMEMBERS, foreign.STARTER], ids=lambda kind: kind.name
)
async def test_a_user_who_was_away_finds_the_same_agent(
    kind: Kind,
    side: Side,
    own_livekit: LiveKitServer,
    worker: StartWorker,
    join: JoinRoom,
    tmp_path: Path,
) -> None:
    agent = copy(kind, tmp_path / "agent", side=side)
    await agent.start(worker, own_livekit)
    await ask_for(own_livekit, kind, "call")
    caller = await Caller.joins(join, own_livekit, kind, "call")
    before = await caller.agent()
    await caller.is_answered()
    await caller.leave()
    await asyncio.sleep(AWAY_S)  # This is what is tested, not a wait.
    caller = await Caller.joins(join, own_livekit, kind, "call")
    assert (await caller.agent()).sid == before.sid
    if kind is foreign.ECHO:
        await caller.is_answered()
    elif kind is foreign.REMEMBERS:
        # It counts what was said before, too.
        heard = await caller.user.insist("and now?", expect="You said: and now?")
        assert int(heard.rstrip(")").rpartition("(")[2]) >= 2
    else:
        # LiveKit closed its session, and so it is mute, but nobody else's.
        assert len(caller.agents) == 1


@pytest.mark.slow
async def test_a_job_that_was_left_before_the_drain_ends_a_minute_after(
    lingering: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.STARTER
    agent = copy(kind, tmp_path / "agent")
    running = await agent.start(worker, lingering)
    await ask_for(lingering, kind, "call")
    caller = await Caller.joins(join, lingering, kind, "call")
    await caller.is_answered()
    left = time.monotonic()
    await caller.leave()
    await until(lambda: SEEN_TO_LEAVE in running.output, "the job to see its user leave")
    running.send()
    assert await running.exit() == 0, running.tail()
    assert ALONE_S <= time.monotonic() - left < ALONE_S + PROMPT_S
    assert "the last user left" in running.output


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
async def test_the_end_of_a_session_is_not_the_end_of_the_job(
    side: Side, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.TRANSFERS
    agent = copy(kind, tmp_path / "agent", side=side)
    await agent.start(worker, own_livekit)
    await ask_for(own_livekit, kind, "call")
    caller = await Caller.joins(join, own_livekit, kind, "call")
    there = await caller.agent()
    await caller.nobody_but(there, for_s=SWEPT_S)
    await caller.is_answered()


@pytest.mark.slow
async def test_a_room_that_the_team_refuses_gets_nobody(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.REFUSES
    refusing = copy(kind, tmp_path / "refusing")
    running = await refusing.start(worker, own_livekit)
    await ask_for(own_livekit, kind, "closed-1")
    caller = await Caller.joins(join, own_livekit, kind, "closed-1")
    await until(lambda: dispatches(own_livekit, "closed-1", ended=True), "the job to be ended")
    # It says what a bare `reject` does, and once.
    assert len(running.find("reject(terminate=False)")) == 1

    # Neither does a worker get it whose team would have taken it.
    takes_all = copy(kind, tmp_path / "takes-all", change=('CLOSED = "closed-"', 'CLOSED = "-"'))
    other = await takes_all.start(worker, own_livekit)
    await caller.nobody_but(for_s=SWEPT_S)
    assert not running.find("adopting a waiting room", room="closed-1")
    assert not other.find("adopting a waiting room", room="closed-1")


@pytest.mark.slow
async def test_a_room_that_the_team_refuses_is_not_adopted_either(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.REFUSES
    callers = {}
    for room in ("closed-1", "open-1"):
        await ask_for(own_livekit, kind, room)
        callers[room] = await Caller.joins(join, own_livekit, kind, room)
    await copy(kind, tmp_path / "agent").start(worker, own_livekit)
    there = await callers["open-1"].agent()
    assert (there.name, there.identity) == ("Front desk", "desk-of-open-1")
    await callers["closed-1"].nobody_but(for_s=SWEPT_S)


async def dispatches(server: LiveKitServer, room: str, *, ended: bool) -> list[AgentDispatch]:
    """The dispatches of a room, with a job that has ended or that has not."""
    async with server.api() as client:
        found = await client.agent_dispatch.list_dispatch(room)
    return [
        each
        for each in found
        if any((job.state.status == JobStatus.JS_SUCCESS) == ended for job in each.state.jobs)
    ]


@pytest.mark.slow
async def test_agents_of_one_identity_are_told_apart(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.FIXED_IDENTITY
    agent = copy(kind, tmp_path / "agent")
    await agent.start(worker, own_livekit)
    callers, before = [], []
    for room in ("one", "two", "three"):
        await ask_for(own_livekit, kind, room)
        callers.append(await Caller.joins(join, own_livekit, kind, room))
        before.append(await callers[-1].agent())
        await callers[-1].is_answered()
    for there in before:
        assert (there.identity, there.metadata) == ("agent", "team support")
        assert there.attributes["team"] == "support"
        assert "forged" not in there.attributes.values()
    # One ends because its user leaves, one is killed: the third one is not touched.
    await callers[0].leave()
    os.kill((await agent.journal.noted("job", room="two"))["pid"], signal.SIGKILL)
    after = await callers[1].agent(besides=before[1])
    assert after.attributes[JOB] != before[1].attributes[JOB]
    await callers[1].is_answered()
    await callers[2].nobody_but(before[2], for_s=SWEPT_S)
    await callers[2].is_answered()


@pytest.mark.slow
@pytest.mark.parametrize("room", ["late", "early"])
async def test_a_crash_ends_its_job_only_and_is_not_repeated_at_once(
    room: str, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.CRASHES
    agent = copy(kind, tmp_path / "agent")
    running = await agent.start(worker, own_livekit)
    await ask_for(own_livekit, kind, room)
    caller = await Caller.joins(join, own_livekit, kind, room)
    first = await agent.journal.noted("books are closed")
    await asyncio.sleep(SWEPT_S)
    assert len(agent.journal.find("dialling")) <= 3
    assert "a bug in the entrypoint" in running.output
    await caller.leave()
    running.send()
    assert await running.exit() == 0, running.tail()
    assert len(agent.journal.find("dialling")) == len(agent.journal.find("books are closed"))
    assert first["at"] > agent.journal.find("dialling")[0]["at"]


@pytest.mark.slow
async def test_a_thread_executor_works_and_is_warned_of(
    own_livekit: LiveKitServer, worker: StartWorker, tmp_path: Path
) -> None:
    for kind, warned in ((foreign.THREADS, True), (foreign.ECHO, False)):
        running = await copy(kind, tmp_path / kind.name).start(worker, own_livekit)
        said = running.find("jobs run in threads of the worker", level="WARNING")
        assert bool(said) == warned


@pytest.mark.parametrize("side", SIDES)
async def test_a_job_can_terminate_the_programs_that_it_started(
    side: Side, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.CHILDREN
    agent = copy(kind, tmp_path / "agent", side=side)
    running = await agent.start(worker, own_livekit)
    await ask_for(own_livekit, kind, "call")
    caller = await Caller.joins(join, own_livekit, kind, "call")
    await caller.is_answered()
    running.send()  # Not to the group, which its programs belong to.
    await running.logged("draining worker")
    await caller.send("end the first")
    first = await agent.journal.noted("ended the first")
    async with own_livekit.api() as client:
        await client.room.delete_room(api.DeleteRoomRequest(room="call"))
    second = await agent.journal.noted("ended the second")
    assert await running.exit() == 0, running.tail()
    for note in (first, second):
        assert (note["ran"], note["code"]) == (True, -signal.SIGTERM)


@pytest.mark.parametrize("side", SIDES)
async def test_variables_that_a_module_sets_are_seen_in_its_jobs(
    side: Side, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.VARIABLES
    agent = copy(kind, tmp_path / "agent", side=side)
    (agent.folder / ".env.module").write_text("LOADED_BY_THE_MODULE=module\nSET_OUTSIDE=module\n")
    (agent.folder / ".env.main").write_text("LOADED_BY_MAIN=main\n")
    flags = ("--url", own_livekit.url)
    env = {"SET_OUTSIDE": "outside", "SET_TWICE": "outside", "PYTHON_DOTENV_DISABLED": "0"}
    await agent.start(
        worker, own_livekit, command=("agent.py", "start", *flags), LIVEKIT_URL="", **env
    )
    await ask_for(own_livekit, kind, "call")
    caller = await Caller.joins(join, own_livekit, kind, "call")
    there = await caller.agent()
    await until(lambda: "child" in there.attributes, "what it has seen")
    expected = {
        "SET_OUTSIDE": "outside",
        "SET_BY_THE_MODULE": "module",
        "SET_TWICE": "module",
        "LOADED_BY_THE_MODULE": "module",
        "SET_BY_MAIN": "main",
        "LOADED_BY_MAIN": "main",
        "LIVEKIT_URL": own_livekit.url,
    }
    places = ("entrypoint", "late import", "plugin", "import of the plugin", "child")
    seen = {place: json.loads(there.attributes[place]) for place in places}
    assert seen == dict.fromkeys(places, expected)


@pytest.mark.slow
async def test_it_starts_without_a_deprecation_warning(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.STARTER
    agent = copy(kind, tmp_path / "agent")
    in_dev = await agent.start(
        worker, own_livekit, command=("agent.py", "dev"), name="dev", registered=False, **STRICT
    )
    await in_dev.said("registered worker")
    in_dev.send(signal.SIGINT)
    assert await in_dev.exit() == 0, in_dev.tail()

    running = await agent.start(worker, own_livekit, name="start", **STRICT)
    await ask_for(own_livekit, kind, "call")
    caller = await Caller.joins(join, own_livekit, kind, "call")
    await caller.is_answered()
    running.send(signal.SIGINT)
    await running.logged("draining worker")
    await caller.leave()
    assert await running.exit() == 0, running.tail()
    assert "DeprecationWarning" not in in_dev.output + running.output


async def test_its_text_console_runs_without_a_deprecation_warning(tmp_path: Path) -> None:
    agent = copy(foreign.STARTER, tmp_path / "agent")
    code, output, errors = await agent.run("console", "--text", said="good morning\n", **STRICT)
    assert (code, errors) == (0, "")
    assert "You said: good morning" in output


@pytest.mark.slow
async def test_livekits_own_way_in_finds_the_same_server(
    lingering: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.SIGNALS_AT_IMPORT
    agent = copy(kind, tmp_path / "agent")
    command = ("-m", "livekit.agents", "start", "agent.py")
    running = await agent.start(worker, lingering, command=command)
    await ask_for(lingering, kind, "call", target=await agent.build_id())
    caller = await Caller.joins(join, lingering, kind, "call")
    await caller.is_answered()
    running.send_to_group()
    running.send_to_group()
    await running.logged("draining worker")
    await caller.is_answered()
    await leaves(caller, running, agent)


@pytest.mark.slow
async def test_a_server_that_says_nothing_is_told_by_the_environment(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    kind = foreign.ECHO
    says = "AgentServer(port=0, load_fnc=lambda: 0.0, load_threshold=math.inf)"
    agent = copy(kind, tmp_path / "agent", change=(says, "AgentServer()"))
    running = await agent.start(worker, own_livekit, AGENT_MAX_SESSIONS="1")
    callers = []
    for room in ("one", "two"):
        await ask_for(own_livekit, kind, room)
        callers.append(await Caller.joins(join, own_livekit, kind, room))
        if room == "one":
            await callers[0].is_answered()
    await callers[1].nobody_but(for_s=SWEPT_S / 2)
    (listening,) = running.find("HTTP server listening")
    assert "8081" not in listening["message"]
