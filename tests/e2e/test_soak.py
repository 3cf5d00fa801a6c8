"""A real soak that is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from agent.build import ROOT
from testbed import Process, Testbed
from testbed.livekit_server import BINARY_VARIABLE, find_binary
from testbed.processes import environment, marked
from testbed.waiting import until
from testbed.worker import READY_S
from tests.conftest import installed


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
