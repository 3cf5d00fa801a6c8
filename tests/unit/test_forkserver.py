"""What Python's fork server tells of a process that has ended."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver, popen_forkserver
from typing import Final

import pytest

from agent.forkserver import read_exit_codes_once

MEETING_S: Final = 0.5


@pytest.fixture(autouse=True)
def restore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popen_forkserver.Popen, "poll", popen_forkserver.Popen.poll)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[popen_forkserver.Popen]:
    """A process that has ended with 7, and whose exit code is read by two threads at once."""
    meeting = threading.Barrier(2)
    read = forkserver.read_signed

    def read_together(descriptor: int) -> int:
        with contextlib.suppress(threading.BrokenBarrierError):  # Nobody else reads.
            meeting.wait(MEETING_S)
        code: int = read(descriptor)
        return code

    monkeypatch.setattr(forkserver, "read_signed", read_together)
    process = object.__new__(popen_forkserver.Popen)
    process.returncode = None
    process.sentinel, theirs = os.pipe()
    forkserver.write_signed(theirs, 7)
    os.close(theirs)
    yield process
    os.close(process.sentinel)


def read_twice_at_once(process: popen_forkserver.Popen) -> list[int | None]:
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(process.poll, 0)
        looking = threads.submit(process.poll)
        return [waiting.result(), looking.result(), process.poll()]


def test_an_exit_code_that_is_read_twice_is_lost_by_python(ended: popen_forkserver.Popen) -> None:
    """If this fails, Python has mended it, and `read_exit_codes_once` can go."""
    assert 255 in read_twice_at_once(ended)


def test_an_exit_code_is_read_once(ended: popen_forkserver.Popen) -> None:
    read_exit_codes_once()
    read_exit_codes_once()
    assert read_twice_at_once(ended) == [7, 7, 7]
