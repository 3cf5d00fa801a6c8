"""The fork server: how it starts, and what it tells of a process that has ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection, forkserver, popen_forkserver
from pathlib import Path
from typing import Final

import pytest

from build_aware.server.forkserver import mend_exit_codes
from tests.support.paths import ROOT

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
    process.pid = _pid_of_nobody()
    process.sentinel, theirs = os.pipe()
    forkserver.write_signed(theirs, 7)
    os.close(theirs)
    yield process
    os.close(process.sentinel)


def _pid_of_nobody() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    return gone.pid


@pytest.fixture
def orphan() -> Iterator[tuple[popen_forkserver.Popen, subprocess.Popen[bytes]]]:
    """A process that still runs, and whose fork server is gone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as runs:
        process = object.__new__(popen_forkserver.Popen)
        process.returncode = None
        process.pid = runs.pid
        process.sentinel, theirs = os.pipe()
        os.close(theirs)
        yield process, runs
        os.close(process.sentinel)


def test_a_process_whose_fork_server_is_gone_has_ended_says_python(
    orphan: tuple[popen_forkserver.Popen, subprocess.Popen[bytes]],
) -> None:
    process, _ = orphan
    assert process.poll() == 255


def test_a_process_whose_fork_server_is_gone_ends_when_it_ends(
    orphan: tuple[popen_forkserver.Popen, subprocess.Popen[bytes]],
) -> None:
    mend_exit_codes()
    process, runs = orphan
    assert process.poll() is None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(process.poll, 0)
        assert process.poll() is None
        runs.communicate(b"end\n")
        assert waiting.result() == 255
    assert process.poll() == 255


def test_python_keeps_what_it_knows_of_its_fork_server_where_we_put_it() -> None:
    names = {"_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid"}
    assert names <= vars(forkserver._forkserver).keys()


STARTED = """
import multiprocessing, os, signal, sys, threading, time
from multiprocessing.forkserver import _forkserver
from build_aware.server import forkserver

def cmdline(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()

if __name__ == "__main__":
    forkserver.PRELOAD, forkserver.FRAMEWORK_PRELOAD = "json", ()
    if "thread" in sys.argv:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    forkserver.start("offline")
    server = _forkserver._forkserver_pid
    context = multiprocessing.get_context("forkserver")
    first = context.Process(target=os.getppid)
    first.start()
    first.join()
    if "thread" not in sys.argv:  # A new one ignores them as soon as it has `agent.preload`.
        os.kill(server, signal.SIGINT)
        os.kill(server, signal.SIGTERM)
    second = context.Process(target=sys.exit, args=(7,))
    second.start()
    second.join()
    kind = "fork" if cmdline(server) == cmdline(os.getpid()) else "new"
    print(server, kind, first.exitcode, second.exitcode, _forkserver._forkserver_pid == server)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="LiveKit uses a fork server on Linux only")
@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        pytest.param((), "fork", id="alone"),
        # A fork would never see the locks released that a thread holds.
        pytest.param(("thread",), "new", id="beside-a-thread"),
    ],
)
def test_the_fork_server_serves_and_ends_with_the_worker(
    arguments: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    script = tmp_path / "started.py"
    script.write_text(STARTED)
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, script, *arguments],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stderr == ""
    pid, *rest = ran.stdout.split()
    assert rest == [kind, "0", "7", "True"]
    with contextlib.suppress(ProcessLookupError):
        server = os.pidfd_open(int(pid))
        assert connection.wait([server], 60), "the fork server has stayed"
        os.close(server)


def read_twice_at_once(process: popen_forkserver.Popen) -> list[int | None]:
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(process.poll, 0)
        looking = threads.submit(process.poll)
        return [waiting.result(), looking.result(), process.poll()]


def test_an_exit_code_that_is_read_twice_is_lost_by_python(ended: popen_forkserver.Popen) -> None:
    """If this fails, Python has mended it, and `mend_exit_codes` can go."""
    assert 255 in read_twice_at_once(ended)


def test_an_exit_code_is_read_once(ended: popen_forkserver.Popen) -> None:
    mend_exit_codes()
    mend_exit_codes()
    assert read_twice_at_once(ended) == [7, 7, 7]
