"""Our runner, with agents of others: plain `AgentServer`s that know nothing of this package."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Final

import pytest

from build_aware.testbed import Process, Testbed
from build_aware.testbed.fake_livekit import FakeLiveKit
from build_aware.testbed.worker import READY_S
from tests.support import programs

ENTRYPOINT: Final = """
@server.rtc_session(on_request=globals().get("on_request"))
async def entrypoint(ctx: JobContext):
    await ctx.connect()
"""

BLOCKS: Final = """
async def on_request(request):
    say("blocking")
    time.sleep(3600)
"""

SWALLOWS: Final = """
def greedy(number, frame):
    say("greedy was called")

server.once("worker_registered", lambda *_: signal.signal(signal.SIGTERM, greedy))
"""

INTERRUPTED_WHEN_A_JOB_PROCESS_STARTS: Final = """
_start = multiprocessing.process.BaseProcess.start

def start(process):
    say("starting a process")
    os.kill(os.getpid(), signal.SIGINT)
    _start(process)

multiprocessing.process.BaseProcess.start = start
"""

EXITS_WITH_SEVEN: Final = """
_aclose = server.aclose

async def aclose():
    await _aclose()
    raise SystemExit(7)

server.aclose = aclose
"""

SLOW_TO_DRAIN: Final = """
async def drain():
    say("draining")
    while not os.path.exists("drained"):
        await asyncio.sleep(0.02)

server.drain = drain
"""

HOLDS_ON: Final = """
async def never_ends():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

def hold_on():
    server.held = asyncio.ensure_future(never_ends())
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)

server.once("worker_started", hold_on)
"""


async def registered(running: Process) -> None:
    await running.said("registered worker", READY_S)


def assert_clean(running: Process) -> None:
    assert "Traceback" not in running.output
    assert "Deprecat" not in running.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_start_drains_and_exits_with_0(
    number: signal.Signals, bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    running = await programs.start(bed, fake, tmp_path / "agent", ENTRYPOINT, "start")
    await registered(running)
    running.send(number)
    assert await running.exit() == 0, running.tail()
    # JSON, as LiveKit's own.
    (draining,) = running.find("draining worker")
    assert {"level", "name", "timestamp"} <= draining.keys()
    assert running.find("shutting down worker")
    assert_clean(running)


async def test_dev_does_not_drain(bed: Testbed, fake: FakeLiveKit, tmp_path: Path) -> None:
    tells = 'server.once("worker_started", lambda: say(os.environ["LIVEKIT_DEV_MODE"] + " is dev"))'
    agent = ENTRYPOINT + tells
    running = await programs.start(bed, fake, tmp_path / "agent", agent, "dev", "--no-reload")
    await registered(running)
    running.send(signal.SIGINT)
    assert await running.exit() == 0, running.tail()
    assert "1 is dev" in running.output
    assert "draining worker" not in running.output
    assert "shutting down worker" in running.output
    assert running.records == []  # Lines in colours.
    assert "\x1b[" in running.output
    assert_clean(running)


async def test_a_blocked_request_does_not_keep_the_worker_from_draining(
    bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    running = await programs.start(bed, fake, tmp_path / "agent", BLOCKS + ENTRYPOINT, "start")
    await registered(running)
    offering = asyncio.ensure_future(fake.offer())
    await running.said("blocking")
    running.send()
    await running.said("the drain begins")
    running.send()
    assert await running.exit() == 0, running.tail()
    assert running.find("draining worker")
    assert_clean(running)
    offering.cancel()


async def test_a_swallowed_signal_is_named_and_drains_all_the_same(
    bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    running = await programs.start(bed, fake, tmp_path / "agent", SWALLOWS + ENTRYPOINT, "start")
    (found,) = await running.logged("taken over a stop signal", deadline_s=READY_S)
    assert found["handler"] == "greedy"
    running.send()
    assert await running.exit() == 0, running.tail()
    assert "greedy was called" in running.output
    assert running.find("draining worker")


async def test_ctrl_c_is_heard_while_a_job_process_starts(
    bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    agent = ENTRYPOINT + INTERRUPTED_WHEN_A_JOB_PROCESS_STARTS
    running = await programs.start(bed, fake, tmp_path / "agent", agent, "start")
    await registered(running)
    fake.assigns = True
    await fake.offer()
    await running.said("starting a process")
    await running.logged("draining worker")


async def test_repeated_sigterms_change_nothing(
    bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    agent = ENTRYPOINT + SLOW_TO_DRAIN
    running = await programs.start(bed, fake, tmp_path / "agent", agent, "start")
    await registered(running)
    for _ in range(3):
        running.send()
    await running.said("draining")
    for _ in range(3):
        running.send()
        running.send_to_group()
    (tmp_path / "agent" / "drained").touch()
    assert await running.exit() == 0, running.tail()
    assert running.text.count("the drain begins") == 1
    assert running.find("shutting down worker")


async def test_the_servers_exit_code_passes_through(
    bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    agent = ENTRYPOINT + EXITS_WITH_SEVEN
    running = await programs.start(bed, fake, tmp_path / "agent", agent, "start")
    await registered(running)
    running.send()
    assert await running.exit() == 7, running.tail()
    assert_clean(running)


async def test_a_server_that_cannot_run_is_a_crash(
    bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    # It has no entrypoint.
    running = await programs.start(bed, fake, tmp_path / "agent", "", "start")
    assert await running.exit(READY_S) == 1
    (failed,) = running.find("the worker failed")
    assert "No RTC session entrypoint" in failed["exc_info"]
    assert not fake.connections


async def test_a_task_and_a_thread_that_do_not_end_do_not_keep_the_process(
    bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    running = await programs.start(bed, fake, tmp_path / "agent", ENTRYPOINT + HOLDS_ON, "start")
    await registered(running)
    running.send()
    assert await running.exit() == 0, running.tail()
