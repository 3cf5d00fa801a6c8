"""The worker as PID 1 of a container, and below a shell that is."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from build_aware.testbed.family import alive
from build_aware.testbed.livekit_server import LiveKitServer
from build_aware.testbed.waiting import until
from tests.conftest import JoinRoom, StartWorker
from tests.support.namespaces import NAMESPACE, need_namespaces


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    need_namespaces()


async def test_as_pid_1_it_drains_on_sigterm_and_leaves_no_zombie(
    own_livekit: LiveKitServer, worker: StartWorker, join: JoinRoom
) -> None:
    running = await worker(own_livekit, below=NAMESPACE)
    first = await join(own_livekit, "first", identity="first")
    second = await join(own_livekit, "second", identity="second")
    await first.agent()
    await second.agent()
    await first.leave()
    await running.logged("session ended", room="first")

    family = running.family()
    pid_1 = family[1]
    assert pid_1.cmdline()[-2:] == ["agent.py", "start"]
    await until(lambda: not zombies(pid_1), "no zombie below PID 1")
    pid_1.terminate()
    await running.logged("draining worker")
    await second.ask("still there?", expect="still there?")
    await second.leave()
    assert await running.exit() == 0
    assert not alive(family)
    assert not running.find("the stop signal will not arrive")


async def test_below_a_shell_that_is_pid_1_it_says_what_to_write_instead(
    own_livekit: LiveKitServer, worker: StartWorker, tmp_path: Path
) -> None:
    script = tmp_path / "entrypoint.sh"
    # Not the last command: some shells would turn into it by themselves.
    script.write_text('#!/bin/sh\n"$@"\necho "the worker is gone"\n')
    running = await worker(own_livekit, below=(*NAMESPACE, "sh", str(script)))
    (warned,) = running.find("the stop signal will not arrive")
    assert warned["pid_1"] == "sh"
    assert "exec" in warned["message"]
    assert 'CMD ["python", "agent.py", "start"]' in warned["message"]


def zombies(process: psutil.Process) -> list[psutil.Process]:
    return [
        child
        for child in process.children(recursive=True)
        if child.status() == psutil.STATUS_ZOMBIE
    ]
