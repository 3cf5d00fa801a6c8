"""How a worker starts: what it says, and what it refuses."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import psutil
import pytest

from build_aware.testbed import Testbed
from build_aware.testbed.fake_livekit import FakeLiveKit
from build_aware.testbed.family import command_line
from build_aware.testbed.processes import Process
from build_aware.testbed.turns import turn
from build_aware.testbed.waiting import until
from build_aware.testbed.worker import READY_S
from tests.conftest import StartWorker
from tests.support import faults
from tests.support.copies import WAYS_IN, content_id


@pytest.mark.parametrize("command", WAYS_IN, ids=" ".join)
async def test_every_way_in_starts_the_same_worker(
    command: tuple[str, ...], fake: FakeLiveKit, worker: StartWorker
) -> None:
    running = await worker(fake, command=command, LIVEKIT_AGENT_NAME="assistant")
    assert fake.registrations[-1].agent_name == "assistant"
    assert (await fake.offer()).participant_attributes["build.id"] == content_id()
    assert {record["build.id"] for record in running.records} == {content_id()}


@pytest.mark.parametrize("command", WAYS_IN, ids=" ".join)
async def test_connection_flags_override_the_environment(
    command: tuple[str, ...], fake: FakeLiveKit, worker: StartWorker
) -> None:
    url = fake.credentials["LIVEKIT_URL"]
    await worker(fake, command=(*command, "--url", url), LIVEKIT_URL="")
    assert fake.registrations


@pytest.mark.parametrize("command", WAYS_IN, ids=" ".join)
async def test_every_problem_is_named_at_once_and_no_secret_is(
    command: tuple[str, ...], worker: StartWorker, fake: FakeLiveKit
) -> None:
    running = await worker(
        fake,
        command=command,
        registered=False,
        AGENT_BUILD_ID="not legal",
        AGENT_MODELS="psychic",
        AGENT_UNTARGETED="maybe",
        LIVEKIT_URL="",
    )
    assert await running.exit() == 2
    for name in ("AGENT_BUILD_ID", "AGENT_MODELS", "AGENT_UNTARGETED", "LIVEKIT_URL"):
        assert name in running.output
    assert "Traceback" not in running.output
    assert fake.credentials["LIVEKIT_API_SECRET"] not in running.output
    assert not fake.connections


async def test_a_running_worker_prints_no_secret(fake: FakeLiveKit, worker: StartWorker) -> None:
    fake.assigns = True
    running = await worker(fake, OPENAI_API_KEY="sk-secret-of-openai", LIVEKIT_LOG_LEVEL="DEBUG")
    assert (await fake.offer()).available
    # The room of the job does not exist: the job crashes, and its log shows no secret either.
    await running.logged("session ended")
    assert fake.credentials["LIVEKIT_API_SECRET"] not in running.output
    assert "sk-secret-of-openai" not in running.output


async def test_dev_refuses_untargeted_jobs_of_a_server_elsewhere(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    # Reached through a proxy on loopback, so that no name has to be resolved.
    running = await worker(
        fake,
        command=("agent.py", "dev"),
        registered=False,
        LIVEKIT_URL="ws://livekit.example",
        HTTP_PROXY=f"http://127.0.0.1:{fake.port}",
    )
    untargeted = await fake.offer()
    assert (untargeted.available, untargeted.terminate) == (False, False)
    metadata = f'{{"agent_build": "{content_id()}"}}'
    assert (await fake.offer(room_metadata=metadata)).available
    assert metadata.replace('"', '\\"') in running.output
    assert "AGENT_UNTARGETED=accept" in running.output


async def test_dev_accepts_untargeted_jobs_of_a_server_on_this_machine(
    fake: FakeLiveKit, worker: StartWorker
) -> None:
    await worker(fake, command=("agent.py", "dev"), registered=False)
    assert (await fake.offer()).available


@pytest.mark.parametrize("command", WAYS_IN, ids=" ".join)
async def test_the_fork_server_is_a_fork_of_the_worker(
    command: tuple[str, ...], fake: FakeLiveKit, worker: StartWorker
) -> None:
    running = await worker(fake, command=command)
    own = psutil.Process(running.pid).cmdline()
    children = psutil.Process(running.pid).children()
    (server,) = (child for child in children if child.cmdline() == own)
    # LiveKit has found it, and started none of its own.
    assert [c for c in running.family() if "multiprocessing.forkserver" in command_line(c)] == []
    assert any(child.cmdline() == own for child in server.children()), "no job process"


async def _handlers_are_in_place(running: Process) -> None:
    """Wait for the first lines of the program; a signal before them is Python's own to handle."""

    def handled() -> bool:
        status = Path(f"/proc/{running.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) & 1 << signal.SIGTERM - 1)

    await until(handled, "the first handlers", READY_S)


async def _the_fork_server_runs(running: Process) -> None:
    await until(lambda: len(running.family()) > 2, "the fork server", READY_S)


async def _livekit_starts(running: Process) -> None:
    await running.logged("starting worker", deadline_s=READY_S)


async def _job_processes_start(running: Process) -> None:
    await running.logged("initializing process", deadline_s=READY_S)


ONCE: Final = (signal.SIGTERM,)
TWICE: Final = (signal.SIGTERM, signal.SIGTERM)
BOTH: Final = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize(
    ("command", "reached", "numbers"),
    [
        (WAYS_IN[0], _handlers_are_in_place, ONCE),
        (WAYS_IN[0], _handlers_are_in_place, TWICE),
        (WAYS_IN[0], _the_fork_server_runs, TWICE),
        (WAYS_IN[0], _livekit_starts, TWICE),
        (WAYS_IN[0], _livekit_starts, BOTH),
        (WAYS_IN[1], _livekit_starts, TWICE),
        (WAYS_IN[0], _job_processes_start, TWICE),
    ],
)
async def test_stop_signals_during_the_start_end_it_with_0(
    command: tuple[str, ...],
    reached: Callable[[Process], Awaitable[None]],
    numbers: tuple[signal.Signals, ...],
    bed: Testbed,
    fake: FakeLiveKit,
    worker: StartWorker,
) -> None:
    async with turn():
        running = await worker(fake, command=command, registered=False)
        await reached(running)
        for number in numbers:
            running.send(number)
        assert await running.exit() == 0
    assert not fake.registrations
    assert "Traceback" not in running.output
    await until(lambda: not bed.processes.alive(), "all processes to be gone")


@pytest.mark.parametrize("command", WAYS_IN, ids=" ".join)
async def test_no_stop_signal_falls_between_livekits_handlers_and_ours(
    command: tuple[str, ...], fake: FakeLiveKit, worker: StartWorker, tmp_path: Path
) -> None:
    folder = faults.before_run(tmp_path / "agent", faults.SIGNALS_BEFORE_OURS_ARE_HANDLED)
    async with turn():
        running = await worker(fake, command=command, folder=folder, registered=False)
        assert await running.exit(READY_S) == 0
    assert "signalling twice" in running.output
    assert not fake.registrations
    assert "Traceback" not in running.output
