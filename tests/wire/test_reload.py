"""`dev` starts its worker again when a file changes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

import pytest

from build_aware.testbed import Testbed
from build_aware.testbed.fake_livekit import FakeLiveKit
from build_aware.testbed.family import alive
from build_aware.testbed.waiting import until
from build_aware.testbed.worker import READY_S
from tests.support import programs

NAMED: Final = """
@server.rtc_session(agent_name="{}")
async def entrypoint(ctx: JobContext):
    await ctx.connect()
"""

EXITS: Final = """
server.once("worker_registered", lambda *_: os._exit({}))
"""


async def registered(fake: FakeLiveKit, name: str) -> None:
    await until(
        lambda: any(registration.agent_name == name for registration in fake.registrations),
        f"{name} to be registered",
        READY_S,
    )


async def test_a_change_starts_the_worker_again_and_ctrl_c_ends_all(
    bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    folder = tmp_path / "agent"
    running = await programs.start(bed, fake, folder, NAMED.format("before"), "dev")
    await registered(fake, "before")
    first = running.family()[1:]

    programs.write(folder, NAMED.format("after"))
    await registered(fake, "after")
    assert not alive(first), "the worker of before still runs"
    assert "shutting down worker" in running.output

    # As a terminal does.
    running.send_to_group(signal.SIGINT)
    assert await running.exit() == 0, running.tail()
    await until(lambda: not bed.processes.alive(), "all processes to be gone")
    assert "Traceback" not in running.output
    assert "Deprecat" not in running.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_watcher_alone_stops_the_worker(
    number: signal.Signals, bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    running = await programs.start(bed, fake, tmp_path / "agent", NAMED.format("it"), "dev")
    await registered(fake, "it")
    running.send(number)
    assert await running.exit() == 0, running.tail()
    assert "shutting down worker" in running.output
    await until(lambda: not bed.processes.alive(), "all processes to be gone")


async def test_a_worker_that_crashes_is_started_again_with_the_next_change(
    bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    folder = tmp_path / "agent"
    running = await programs.start(bed, fake, folder, NAMED.format("before"), "dev")
    await registered(fake, "before")
    programs.write(folder, "def slip(:")
    await running.said("it restarts when a file changes")
    programs.write(folder, NAMED.format("after"))
    await registered(fake, "after")


async def test_ctrl_c_ends_the_wait_for_a_change_after_a_crash(
    bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    folder = tmp_path / "agent"
    running = await programs.start(bed, fake, folder, NAMED.format("it") + EXITS.format(1), "dev")
    await running.said("it restarts when a file changes", READY_S)
    running.send(signal.SIGINT)
    assert await running.exit() == 1


@pytest.mark.parametrize("code", [0, 2, 3])
async def test_a_worker_that_ends_by_itself_ends_all_with_its_exit_code(
    code: int, bed: Testbed, fake: FakeLiveKit, tmp_path: Path
) -> None:
    folder = tmp_path / "agent"
    agent = NAMED.format("it") + EXITS.format(code)
    running = await programs.start(bed, fake, folder, agent, "dev")
    assert await running.exit(READY_S) == code
