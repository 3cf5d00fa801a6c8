"""Programs with users end with their own exit code, whatever livekit's native threads do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from build_aware.testbed import ports
from build_aware.testbed.environ import environment
from tests.support.paths import ROOT

IN_THE_MIDDLE_OF_A_LOG = """
import asyncio, logging, sys, threading, time
from livekit import rtc
from build_aware.testbed.ending import run_and_exit

inside = threading.Event()

def slow(record):
    inside.set()
    for _ in range(4000):
        time.sleep(0.0005)  # Takes and gives back the GIL each time.
    return False

logging.getLogger("livekit").addFilter(slow)

def program():
    try:
        asyncio.run(rtc.Room().connect(sys.argv[1], "token"))
    except rtc.ConnectError:
        inside.wait()
        sys.exit(130)

run_and_exit(program)
"""

ENDS = """
import atexit, sys
from build_aware.testbed.ending import run_and_exit

atexit.register(print, "called")

def program():
    {}

run_and_exit(program)
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=60,
    )


def test_a_native_thread_in_the_middle_of_a_log_aborts_nothing() -> None:
    (port,) = ports.free(1)
    done = run(IN_THE_MIDDLE_OF_A_LOG, f"ws://127.0.0.1:{port}")
    assert done.returncode == 130, done


@pytest.mark.parametrize(
    ("end", "code", "error"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('wrong')", 1, "wrong\n"),
        ("raise ValueError('wrong')", 1, "ValueError: wrong\n"),
    ],
)
def test_a_program_ends_as_without(end: str, code: int, error: str) -> None:
    done = run(ENDS.format(end))
    assert (done.returncode, done.stdout) == (code, "called\n"), done
    assert done.stderr.endswith(error)
    assert bool(done.stderr) == bool(error)
