"""A stopped worker lets its sessions end, takes no new one, and leaves."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import psutil
import pytest
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch

from build_aware.drain.signals import SAME_KEY_S
from build_aware.testbed.family import alive
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.processes import Process
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker
from tests.support import faults

AROUND = 16
"""Dispatches in the second around the signal: agents that join at once must do so within the ten
seconds that LiveKit's client gives a join, also on a slow machine."""


async def leaves_clean(
    worker: Process, family: list[psutil.Process], *, errors: int = 0, code: int = 0
) -> None:
    """The worker exits with `code`, leaves no process behind, and no error without a cause."""
    assert await worker.exit() == code, worker.tail()
    await until(lambda: not alive(family), f"all of {family} to be gone")
    found = [r["message"] for r in worker.records if r["level"] in ("ERROR", "CRITICAL")]
    assert len(found) == errors, found
    assert "Traceback" not in worker.output or errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_goes_on_until_its_user_leaves(
    number: signal.Signals, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit)
    user = await join(own_livekit, "call")
    await user.agent()

    running.send(number)
    await running.logged("draining worker")
    await user.ask("still there?", expect="still there?")
    late = await join(own_livekit, "late", identity="late")
    await own_livekit.process.logged("failed to send job request")
    assert late.agents_seen == []
    await user.ask("and now?", expect="and now?")

    family = running.family()
    await user.leave()
    await leaves_clean(running, family)
    assert len(running.find("session ended", room="call")) == 1
    assert not running.find("job offer answered", room="late", answer="accept")


async def test_sessions_that_end_in_the_same_moment_do_not_keep_the_worker(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit)
    users = [await join(own_livekit, f"call-{number}") for number in range(3)]
    for user in users:
        await user.agent()
    jobs = [psutil.Process(each["pid"]) for each in running.find("session started")]
    family = running.family()

    running.send()
    await running.logged("draining worker")
    running.send(signal.SIGSTOP)
    for user in users:
        await user.leave()
    await until(lambda: not alive(jobs), "all sessions to end")
    running.send(signal.SIGCONT)
    await leaves_clean(running, family)


async def test_an_idle_worker_leaves_at_once(
    own_livekit: LiveKitServer, worker: StartWorker
) -> None:
    running = await worker(own_livekit)
    family = running.family()
    running.send()
    await leaves_clean(running, family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_whole_process_group_cuts_no_call(
    number: signal.Signals, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit)
    user = await join(own_livekit, "call")
    await user.agent()
    family = running.family()

    running.send_to_group(number)
    await running.logged("draining worker")
    await user.ask("still there?", expect="still there?")
    await user.leave()
    await leaves_clean(running, family)
    assert len(running.find("session ended", room="call")) == 1


async def test_a_repeated_sigterm_changes_nothing(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit)
    user = await join(own_livekit, "call")
    await user.agent()
    family = running.family()

    running.send()
    running.send()
    await running.logged("draining worker")
    for _ in range(3):
        running.send()
        running.send_to_group()
        await user.ask("still there?", expect="still there?")
    await user.leave()
    await leaves_clean(running, family)
    assert len(running.find("session ended", room="call")) == 1


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
async def test_a_wrapper_that_forwards_what_the_group_gets_cuts_no_call(
    number: signal.Signals, own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, below=("uv", "run", "--no-sync"))
    user = await join(own_livekit, "call")
    await user.agent()
    family = running.family()

    running.send_to_group(number)
    await running.logged("draining worker")
    await user.ask("still there?", expect="still there?")
    await user.leave()
    await leaves_clean(running, family)
    assert len(running.find("session ended", room="call")) == 1


async def test_a_second_ctrl_c_forces_and_callbacks_still_run(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit)
    user = await join(own_livekit, "call")
    await user.agent()
    await running.logged("session started")
    family = running.family()

    running.send(signal.SIGINT)
    await running.logged("draining worker")
    await asyncio.sleep(2 * SAME_KEY_S)  # a person presses no faster
    running.send(signal.SIGINT)
    await leaves_clean(running, family, errors=1, code=4)
    (cut,) = running.find("sessions cut")
    assert (cut["rooms"], cut["cause"]) == (["call"], "second SIGINT")
    assert len(running.find("session ended", room="call")) == 1


async def test_in_dev_a_second_ctrl_c_exits_at_once(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.in_the_session(tmp_path / "agent", faults.CALLBACK_NEVER_RETURNS)
    command = ("agent.py", "dev")
    running = await worker(own_livekit, folder=folder, command=command, registered=False)
    await running.said("registered worker")
    user = await join(own_livekit, "call")
    await user.agent()
    await running.said("session started")

    running.send(signal.SIGINT)
    await running.said("shutting down worker")
    await asyncio.sleep(2 * SAME_KEY_S)  # a person presses no faster
    running.send(signal.SIGTERM)
    running.send(signal.SIGINT)
    # The session, which holds on to the worker's output, ends by its own limit half a minute later.
    assert await running.exit(deadline_s=180) == 4, running.tail()


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        pytest.param(signal.SIGTERM, faults.SWALLOW_WITH_SIGNAL, id="15-signal"),
        pytest.param(signal.SIGINT, faults.SWALLOW_WITH_LOOP, id="2-loop"),
        pytest.param(
            signal.SIGINT, faults.SWALLOW_WITH_SIGNAL, id="2-signal", marks=pytest.mark.slow
        ),
        pytest.param(
            signal.SIGTERM, faults.SWALLOW_WITH_LOOP, id="15-loop", marks=pytest.mark.slow
        ),
    ],
)
async def test_a_swallowed_signal_is_found_named_and_drains_all_the_same(
    number: signal.Signals,
    fault: str,
    own_livekit: LiveKitServer,
    worker: StartWorker,
    join: JoinRoom,
    tmp_path: Path,
) -> None:
    folder = faults.at_registration(tmp_path / "agent", fault)
    running = await worker(own_livekit, folder=folder)
    user = await join(own_livekit, "call")
    await user.agent()
    (found,) = await running.logged("taken over a stop signal", signal=number.name)
    assert found["handler"] == "greedy"
    module = folder / faults.SERVER
    line = 1 + module.read_text().splitlines().index(faults.HANDLER[fault])
    assert found["at"] == f"{module}:{line}"
    await running.logged("taken over a stop signal", count=2)
    family = running.family()

    running.send(number)
    await running.logged("draining worker")
    await running.said("greedy was called")
    await user.ask("still there?", expect="still there?")
    await user.leave()
    await leaves_clean(running, family, errors=2)


async def test_a_blocked_event_loop_does_not_keep_the_worker_from_draining(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.at_registration(tmp_path / "agent", faults.BLOCK_THE_LOOP)
    running = await worker(own_livekit, folder=folder, registered=False)
    await running.said("blocking")
    running.send()
    running.send()
    await running.logged("draining worker")
    assert await running.exit() == 0
    assert "no longer blocking" not in running.output


async def test_a_sigterm_between_livekits_own_steps_cuts_no_call(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.at_registration(tmp_path / "agent", faults.SIGNALS_BETWEEN_THE_STEPS)
    running = await worker(own_livekit, folder=folder)
    user = await join(own_livekit, "call")
    await user.agent()
    family = running.family()

    running.send()
    await running.said("signalled between two steps")
    await running.logged("draining worker")
    await user.ask("still there?", expect="still there?")
    await user.leave()
    await leaves_clean(running, family)
    assert running.output.count("signalled between two steps") > 2


async def test_ctrl_c_is_heard_while_job_processes_start(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom, tmp_path: Path
) -> None:
    folder = faults.at_registration(tmp_path / "agent", faults.STARTS_PROCESSES_UNTIL_STOPPED)
    running = await worker(own_livekit, folder=folder)
    user = await join(own_livekit, "call")
    await user.agent()
    await running.said("starting a process")

    running.send(signal.SIGINT)
    await running.logged("draining worker")
    await user.ask("still there?", expect="still there?")
    family = running.family()
    await user.leave()
    await leaves_clean(running, family)


@pytest.mark.slow
async def test_three_calls_that_end_one_after_the_other_all_end_by_themselves(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit)
    users = [await join(own_livekit, f"call-{n}", identity=f"user-{n}") for n in range(3)]
    for user in users:
        await user.agent()
    family = running.family()

    running.send()
    await running.logged("draining worker")
    for number, user in enumerate(users):
        for other in users[number:]:
            await other.ask("still there?", expect="still there?")
        await user.leave()
        await running.logged("session ended", room=f"call-{number}")
        assert running.running or number == 2
    await leaves_clean(running, family)
    reasons = [record["reason"] for record in running.find("session ended")]
    assert reasons == ["the last user left"] * 3


@pytest.mark.heavy
async def test_dispatches_around_the_signal_are_all_served_once(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    # The users come later, a few at a time: no session may give up on its user before that.
    env = {"LIVEKIT_AGENT_NAME": "assistant", "AGENT_JOIN_TIMEOUT": "600"}
    stopped = await worker(own_livekit, name="stopped", **env)
    rooms = [f"around-{number}" for number in range(AROUND)]

    async with own_livekit.api() as client:

        async def dispatch(number: int) -> None:
            # Spread over the second around the signal: this is the load, not a wait.
            await asyncio.sleep(number / AROUND)
            agents = [RoomAgentDispatch(agent_name="assistant")]
            request = api.CreateRoomRequest(name=rooms[number], agents=agents)
            await client.room.create_room(request)

        async def stop() -> None:
            await asyncio.sleep(0.5)
            stopped.send()

        # LiveKit picks a worker by chance: one session is the stopped worker's for certain.
        await dispatch(0)
        await stopped.logged("session started")
        other = await worker(own_livekit, name="other", **env)
        family = stopped.family()
        await asyncio.gather(stop(), *(dispatch(number) for number in range(1, AROUND)))

    def started() -> int:
        return sum(len(running.find("session started")) for running in (stopped, other))

    # Agents that join at once keep two cores busy: the users wait until that is over. On a busy
    # machine LiveKit may lose a job in the change, for its workers have three seconds to answer
    # in; then the user is adopted.
    with contextlib.suppress(TimeoutError):
        await until(lambda: started() == len(rooms), "all sessions to start", 30)
    limit = asyncio.Semaphore(6)

    async def talk(room: str) -> None:
        async with limit:
            user = await join(own_livekit, room)
            await user.agent()
            await user.insist("hello", expect="You said: hello")
            assert len(user.agents_seen) == 1, user.agents_seen
            await user.leave()

    await asyncio.gather(*(talk(room) for room in rooms))
    await leaves_clean(stopped, family)
    by_stopped = len(stopped.find("session ended"))
    assert by_stopped > 0
    await other.logged("session ended", count=AROUND - by_stopped)
    ended = [r for running in (stopped, other) for r in running.find("session ended")]
    assert sorted(record["room"] for record in ended) == sorted(rooms)
    assert {record["reason"] for record in ended} == {"the last user left"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.IGNORES_CANCELLATION, id="entrypoint"),
        pytest.param(faults.CALLBACK_NEVER_RETURNS, id="callback", marks=pytest.mark.slow),
        pytest.param(faults.THREAD_NEVER_ENDS, id="thread", marks=pytest.mark.slow),
        pytest.param(faults.LOOP_HANGS, id="loop", marks=pytest.mark.slow),
    ],
)
async def test_a_stuck_session_is_cut_within_the_budget(
    fault: str,
    own_livekit: LiveKitServer,
    worker: StartWorker,
    join: JoinRoom,
    tmp_path: Path,
) -> None:
    folder = faults.in_the_session(tmp_path / "agent", fault)
    running = await worker(own_livekit, folder=folder, AGENT_DRAIN_TIMEOUT="16")
    user = await join(own_livekit, "stuck")
    await user.agent()
    family = running.family()

    running.send()
    (began,) = await running.logged("draining worker")
    assert await running.exit(deadline_s=120) == 4
    await until(lambda: not alive(family), f"all of {family} to be gone")
    (cut,) = running.find("sessions cut")
    assert (cut["rooms"], cut["cause"]) == (["stuck"], "drain timeout")
    # The budget, and what a busy machine adds; LiveKit's own limits add up to minutes.
    assert running.lasted_since(began) < 16 + 10


def job_processes(worker: Process) -> list[psutil.Process]:
    """Its job processes: the children of its fork server, which is its own child."""
    main, *others = worker.family()
    return [process for process in alive(others) if process.ppid() != main.pid]


async def test_a_draining_worker_warms_up_no_more_processes(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit)
    user = await join(own_livekit, "call")
    await user.agent()
    [started] = await running.logged("session started")
    idle = await until(
        lambda: [job for job in job_processes(running) if job.pid != started["pid"]],
        "idle job processes",
    )
    running.send()
    await running.logged("draining worker")
    idle[0].kill()
    await until(lambda: not alive(idle[:1]), "an idle job process to be gone")
    known = {job.pid for job in job_processes(running)}
    # LiveKit's pool would replace it within 0.1 s.
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert {job.pid for job in job_processes(running)} <= known
        await asyncio.sleep(0.1)
    await user.leave()
    assert await running.exit() == 0
