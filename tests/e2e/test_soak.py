"""A real soak: with every kind of fault, and one that is stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from bench.soak.plan import EACH_S, KINDS
from build_aware.testbed import Process, Testbed
from build_aware.testbed.environ import environment
from build_aware.testbed.family import marked
from build_aware.testbed.livekit_server import BINARY_VARIABLE, find_binary
from build_aware.testbed.waiting import until
from build_aware.testbed.worker import READY_S
from tests.conftest import installed
from tests.support.paths import ROOT

WHOLE_S = EACH_S + 8 * 60
"""A whole soak: a fault takes longer on a busy machine, and all after it comes later."""


async def start(bed: Testbed, *arguments: str) -> Process:
    await installed(asyncio.to_thread(find_binary))
    env = {name: os.environ[name] for name in (BINARY_VARIABLE,) if name in os.environ}
    return await bed.processes.start(
        *(sys.executable, "-m", "bench.soak", *arguments),
        name="soak",
        cwd=ROOT,
        env=environment(**env),
    )


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
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


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(WHOLE_S + 60)
async def test_every_kind_of_fault_leaves_no_user_alone(bed: Testbed, tmp_path: Path) -> None:
    result = tmp_path / "soak.json"
    soak = await start(bed, "--each", "--seed", "7", "--json", str(result))
    assert await soak.exit(WHOLE_S) == 0, soak.output
    seen = json.loads(result.read_text("utf-8"))
    done = {fault["kind"] for fault in seen["seen"]["faults"] if fault["skipped"] is None}
    assert done == set(KINDS)
