"""A real soak, with every kind of fault at least once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from agent.build import ROOT
from bench.soak.plan import EACH_S, KINDS
from testbed import Process, Testbed
from testbed.livekit_server import BINARY_VARIABLE, find_binary
from testbed.processes import environment, marked
from testbed.waiting import until
from testbed.worker import READY_S
from tests.conftest import installed

DEADLINE_S = 2 * EACH_S
"""Deploys take longer on a busy machine."""


async def start(bed: Testbed, *arguments: str) -> Process:
    await installed(asyncio.to_thread(find_binary))
    env = {name: os.environ[name] for name in (BINARY_VARIABLE,) if name in os.environ}
    return await bed.processes.start(
        *(sys.executable, "-m", "bench.soak", *arguments),
        name="soak",
        cwd=ROOT,
        env=environment(**env),
    )


@pytest.mark.slow
@pytest.mark.timeout(DEADLINE_S + 60)
async def test_users_get_through_every_kind_of_fault(bed: Testbed, tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    soak = await start(bed, "--each", "--seed", "7", "--json", str(file))
    code = await soak.exit(DEADLINE_S)
    assert code == 0, soak.output
    assert marked(soak.mark) == []
    faults = json.loads(file.read_text())["seen"]["faults"]
    assert {fault["kind"] for fault in faults} == set(KINDS)
    assert [fault for fault in faults if fault["skipped"]] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_soak_that_is_stopped_leaves_nothing_behind(
    number: signal.Signals, bed: Testbed
) -> None:
    soak = await start(bed, "--minutes", "1")
    await soak.said("users begin to come", 3 * READY_S)
    await until(lambda: len(marked(soak.mark)) > 5, "job processes to run")
    soak.send(number)
    assert await soak.exit() == 130, soak.output
    assert "interrupted" in soak.output
    assert "Traceback" not in soak.output
    assert marked(soak.mark) == []
