"""Turns at the processors, for what needs much of them: across all test beds of this machine.

A worker that starts takes all the CPU it can get for a few seconds. Ten that start at once take
ten times as long each, and starve the sessions beside them; taking turns costs no time at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

VARIABLE: Final = "TESTBED_TURNS"
"""The variable that names the folder of the locks, for test beds below a test bed."""

_POLL_S: Final = 0.05


def folder() -> Path:
    """Where the locks are."""
    shared = Path(tempfile.gettempdir()) / f"testbed-turns-{os.getuid()}"
    found = Path(os.environ.get(VARIABLE, shared))
    found.mkdir(mode=0o700, exist_ok=True)
    return found


@contextlib.asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """Wait for a turn, one for each CPU, and hold it. A process that dies gives it back."""
    while True:
        with contextlib.ExitStack() as stack:
            if any(stack.enter_context(_locked(number)) for number in range(count())):
                yield
                return
        await asyncio.sleep(_POLL_S)


@contextlib.contextmanager
def _locked(number: int) -> Iterator[bool]:
    """Hold a lock that all processes of this user share; False if another one has it."""
    with (folder() / str(number)).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def count() -> int:
    """How many turns there are at a time."""
    return max(os.cpu_count() or 1, 2)
