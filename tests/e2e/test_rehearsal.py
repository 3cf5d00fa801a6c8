"""Real rehearsals: ours passes, and each thing that can go wrong is caught for real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from build_aware.rehearsal.scenario import Options, plan
from build_aware.testbed import Process, Testbed
from build_aware.testbed.environ import environment
from build_aware.testbed.family import marked
from build_aware.testbed.livekit_server import BINARY_VARIABLE, find_binary
from build_aware.testbed.waiting import until
from build_aware.testbed.worker import READY_S
from tests.conftest import installed
from tests.support.paths import ROOT

DEADLINE_S = 480.0


async def start(bed: Testbed, *arguments: str, **env: str) -> Process:
    await installed(asyncio.to_thread(find_binary))
    env |= {name: os.environ[name] for name in (BINARY_VARIABLE,) if name in os.environ}
    return await bed.processes.start(
        *(sys.executable, "agent.py", "rehearse", *arguments),
        name="rehearsal",
        cwd=ROOT,
        env=environment(**env),
    )


async def rehearse(bed: Testbed, folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run a rehearsal; return its exit code, its verdict on the contestant, and its output."""
    file = folder / "verdict.json"
    # On a machine that runs other tests at the same time nobody comes in ten seconds.
    process = await start(bed, "--json", str(file), "--patience", "60", *arguments)
    code = await process.exit(DEADLINE_S)
    assert file.exists(), process.output
    assert marked(process.mark) == []
    (verdict,) = json.loads(file.read_text())["contestants"]
    return code, verdict, process.output


@pytest.mark.heavy
async def test_ours_passes_two_deploys_with_twenty_sessions(bed: Testbed, tmp_path: Path) -> None:
    picture = tmp_path / "rehearsal.svg"
    code, verdict, output = await rehearse(
        bed,
        tmp_path,
        *("--sessions", "20", "--deploys", "2", "--workers", "1", "--timeline", str(picture)),
    )
    assert code == 0, output
    assert (verdict["asked"], verdict["served"], verdict["troubles"]) == (20, 20, [])
    assert set(verdict["lingering"]) == {"build-1.1", "build-2.1"}
    assert None not in verdict["lingering"].values()
    assert "build-3" in picture.read_text()
    content = json.loads((tmp_path / "verdict.json").read_text())
    scenario = plan(Options(sessions=20, deploys=2, workers=1))
    planned = [session["length_s"] for session in content["scenario"]["sessions"]]
    assert planned == [session.length_s for session in scenario.sessions]


@pytest.mark.heavy
@pytest.mark.slow
async def test_a_worker_of_a_wrong_build_that_never_exits_is_caught(
    bed: Testbed, tmp_path: Path
) -> None:
    # Where the target is ahead of its workers, a stock worker of the old build takes all.
    code, verdict, output = await rehearse(
        bed,
        tmp_path,
        *("--worker", "stock", "--target-first", "--untargeted", "0"),
        *("--stop", "eaten", "--grace", "3"),
        *("--sessions", "8", "--deploys", "1", "--workers", "1", "--length", "1", "1"),
    )
    assert code == 1, output
    assert verdict["misrouted"] > 0, output
    assert {t["why"] for t in verdict["troubles"]} == {"asked for build-2, answered by build-1"}
    assert verdict["lingering"] == {"build-1.1": None}, output
    assert "build-1.1: does not exit, and is killed" in output
    assert "never" in output


DROPS = """
from livekit.agents import JobRequest, cli

from build_aware.rehearsal.contestants.starter import entrypoint, new_server

server = new_server()


async def on_request(request: JobRequest) -> None:
    if request.room.name == "session-3":
        await request.reject()
    else:
        await request.accept()


server.rtc_session(entrypoint, on_request=on_request)

if __name__ == "__main__":
    cli.run_app(server)
"""


@pytest.mark.heavy
@pytest.mark.slow
async def test_a_worker_that_drops_a_session_is_caught(bed: Testbed, tmp_path: Path) -> None:
    worker = tmp_path / "drops.py"
    worker.write_text(DROPS)
    code, verdict, output = await rehearse(
        bed,
        tmp_path,
        *("--worker", str(worker), "--untargeted", "1", "--patience", "30"),
        *("--sessions", "8", "--deploys", "1", "--workers", "1", "--length", "1", "1"),
    )
    assert code == 1, output
    lost = [t["session"] for t in verdict["troubles"] if t["kind"] == "lost"]
    assert 3 in lost, output
    assert "session 3 lost: no agent within 30 s" in output


SLOW_LOGS = """
import logging, os, pathlib, threading, time

def slow(record):
    if threading.current_thread() is not threading.main_thread():
        pathlib.Path(os.environ["SLOW_LOGS"]).touch()
        for _ in range(50):
            time.sleep(0.0005)
    return False

logger = logging.getLogger("livekit")
logger.setLevel(logging.DEBUG)
logger.addFilter(slow)
"""
"""Keeps a native thread of the rehearsal's users in Python, from their first join to the end."""


@pytest.mark.parametrize(
    ("number", "again"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGINT, True)],
    ids=["sigint", "sigterm", "sigint-again-and-again"],
)
async def test_a_rehearsal_that_is_stopped_while_users_join_leaves_nothing_behind(
    number: signal.Signals, again: bool, bed: Testbed, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_LOGS)
    joining = tmp_path / "joining"
    process = await start(
        bed,
        *("--sessions", "20", "--deploys", "1", "--workers", "1"),
        PYTHONPATH=str(tmp_path),
        SLOW_LOGS=str(joining),
        LIVEKIT_RTC_DEBUG="1",
    )
    await process.said("build-1: 1 ready", READY_S)
    await until(joining.exists, "a user to join")
    process.send(number)
    async with asyncio.timeout(DEADLINE_S):
        while again and not await process.exited(0.001):
            process.send(number)
    assert await process.exit() == 130, process.output
    assert "interrupted" in process.output
    assert "Traceback" not in process.output
    assert marked(process.mark) == []
